package drivers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type ina3221Options struct {
	bus      `config:",inline"`
	Address  uint16  `config:"address" default:"0x40" min:"0x40" max:"0x43" doc:"Address on the bus."`
	Channels []int   `config:"channels" each_min:"1" each_max:"3" doc:"Which of the channels 1, 2 and 3 are connected; all when not given."`
	Shunt    float64 `config:"shunt_ohms" default:"0.1" min:"0.0001" max:"10" doc:"Resistance that the current of each channel flows through; R100 on a board is 0.1."`
}

func (o *ina3221Options) Place() sensors.Place { return o.at(o.Address) }

// Manufacturer "TI" and die 0x3220 (SBOS576, registers 0xfe and 0xff).
var ina3221 = sensors.Driver{
	Name:       "ina3221",
	Summary:    "Texas Instruments INA3221: voltage, current and power of three channels on I2C, up to 26 V",
	Options:    func() any { return &ina3221Options{bus: bus{"i2c-1"}, Address: 0x40, Shunt: 0.1} },
	Quantities: append(append(power("1", 32.8, 1640), power("2", 32.8, 1640)...), power("3", 32.8, 1640)...),
	Example:    "{name: rails, driver: ina3221, bus: i2c-1, address: 0x42, channels: [1, 3], shunt_ohms: 0.1, every: 10s}",
	Addresses:  addresses(0x40, 0x43),
	IDs:        []sensors.ID{{Write: []byte{0xfe}, Value: []byte("TI")}, {Write: []byte{0xff}, Value: []byte{0x32, 0x20}}},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		o := opts.(*ina3221Options)
		d, err := dev(b, o)
		channels := o.Channels
		if len(channels) == 0 {
			channels = []int{1, 2, 3}
		}
		return ina3221Sensor{d, channels, o.Shunt}, err
	},
}

type ina3221Sensor struct {
	dev      i2c.Dev
	channels []int
	shunt    float64
}

// Read measures once: 0x7523 is all channels, the mean of 16 samples of 1.1 ms for each, shunt and bus, triggered: 106 ms. The end shows in bit 0 (CVRF) of register 0x0f.
// From bit 3 on the shunts (registers 1, 3, 5) count 40 µV and the buses (2, 4, 6) 8 mV (SBOS576, registers 0 to 6).
func (s ina3221Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	if err := triggered(ctx, s.dev, 0x7523, 110*time.Millisecond, 0x0f, 0x01); err != nil {
		return nil, err
	}
	var out []sensors.Value
	for _, c := range s.channels {
		shunt, err := word(s.dev, byte(2*c-1))
		if err != nil {
			return nil, err
		}
		volts, err := word(s.dev, byte(2*c))
		if err != nil {
			return nil, err
		}
		if raw := int16(shunt) >> 3; raw == 4095 || raw == -4096 {
			return nil, fmt.Errorf("channel %d: %w", c, errShunt)
		}
		out = append(out, powerValues(strconv.Itoa(c), float64(int16(volts)>>3)*8e-3, float64(int16(shunt)>>3)*40e-6, s.shunt)...)
	}
	return out, nil
}
