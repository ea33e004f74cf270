package drivers

import (
	"context"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type ina226Options struct {
	bus     `config:",inline"`
	Address uint16  `config:"address" default:"0x40" min:"0x40" max:"0x4f" doc:"Address on the bus."`
	Shunt   float64 `config:"shunt_ohms" default:"0.1" min:"0.0001" max:"10" doc:"Resistance that the current flows through; R100 on a board is 0.1, R002 is 0.002."`
}

func (o *ina226Options) Place() sensors.Place { return o.at(o.Address) }

// Manufacturer "TI" and die 0x2260, its revision in the lowest four bits (SBOS547, registers 0xfe and 0xff).
var ina226 = sensors.Driver{
	Name:       "ina226",
	Summary:    "Texas Instruments INA226: voltage, current and power on I2C, up to 36 V",
	Options:    func() any { return &ina226Options{bus{"i2c-1"}, 0x40, 0.1} },
	Quantities: power("", 40.96, 819.2),
	Example:    "{name: solar, driver: ina226, bus: i2c-1, address: 0x41, shunt_ohms: 0.002, every: 10s}",
	Addresses:  addresses(0x40, 0x4f),
	IDs:        []sensors.ID{{Write: []byte{0xfe}, Value: []byte("TI")}, {Write: []byte{0xff}, Value: []byte{0x22, 0x60}, Mask: []byte{0xff, 0xf0}}},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		o := opts.(*ina226Options)
		d, err := dev(b, o)
		return ina226Sensor{d, o.Shunt}, err
	},
}

type ina226Sensor struct {
	dev   i2c.Dev
	shunt float64
}

// Read measures once: 0x4723 is the mean of 64 samples of 1.1 ms for each, shunt and bus, triggered: 141 ms. The end shows in bit 3 (CVRF) of register 6.
// The shunt counts 2.5 µV, the bus 1.25 mV (SBOS547, registers 0 to 2).
func (s ina226Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	if err := triggered(ctx, s.dev, 0x4723, 145*time.Millisecond, 6, 0x08); err != nil {
		return nil, err
	}
	shunt, err := word(s.dev, 1)
	if err != nil {
		return nil, err
	}
	volts, err := word(s.dev, 2)
	if err != nil {
		return nil, err
	}
	if raw := int16(shunt); raw == 0x7fff || raw == -0x8000 {
		return nil, errShunt
	}
	return powerValues("", float64(volts)*1.25e-3, float64(int16(shunt))*2.5e-6, s.shunt), nil
}
