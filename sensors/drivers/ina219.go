package drivers

import (
	"context"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type ina219Options struct {
	bus     `config:",inline"`
	Address uint16  `config:"address" default:"0x40" min:"0x40" max:"0x4f" doc:"Address on the bus."`
	Shunt   float64 `config:"shunt_ohms" default:"0.1" min:"0.0001" max:"10" doc:"Resistance that the current flows through; R100 on a board is 0.1."`
}

func (o *ina219Options) Place() sensors.Place { return o.at(o.Address) }

var ina219 = sensors.Driver{
	Name:       "ina219",
	Summary:    "Texas Instruments INA219: voltage, current and power on I2C, up to 26 V",
	Options:    func() any { return &ina219Options{bus{"i2c-1"}, 0x40, 0.1} },
	Quantities: power("", 32, 3200),
	Example:    "{name: battery, driver: ina219, bus: i2c-1, address: 0x40, shunt_ohms: 0.1, every: 10s}",
	Addresses:  addresses(0x40, 0x4f),
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		o := opts.(*ina219Options)
		d, err := dev(b, o)
		return ina219Sensor{d, o.Shunt}, err
	},
}

type ina219Sensor struct {
	dev   i2c.Dev
	shunt float64
}

// Read measures once: 0x3ffb is 32 V, ±320 mV, the mean of 128 samples for each (68 ms), shunt and bus, triggered. The end shows in bit 1 of the bus voltage,
// which counts 4 mV from bit 3 on; the shunt counts 10 µV (SBOS448, registers 0 to 2).
func (s ina219Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	if err := triggered(ctx, s.dev, 0x3ffb, 140*time.Millisecond, 2, 0x02); err != nil {
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
	if raw := int16(shunt); raw >= 32000 || raw <= -32000 {
		return nil, errShunt
	}
	return powerValues("", float64(volts>>3)*4e-3, float64(int16(shunt))*10e-6, s.shunt), nil
}
