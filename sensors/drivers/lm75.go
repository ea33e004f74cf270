package drivers

import (
	"context"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type lm75Options struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x48" min:"0x48" max:"0x4f" doc:"Address on the bus."`
}

func (o *lm75Options) Place() sensors.Place { return o.at(o.Address) }

var lm75 = sensors.Driver{
	Name:       "lm75",
	Summary:    "LM75, TMP75, TMP105 and their kin: temperature on I2C",
	Options:    func() any { return &lm75Options{bus{"i2c-1"}, 0x48} },
	Quantities: []sensors.Quantity{celsius(-55, 127.99)},
	Example:    "{name: cabinet, driver: lm75, bus: i2c-1, address: 0x48, every: 10s}",
	Addresses:  addresses(0x48, 0x4f),
	Open: func(ctx context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*lm75Options))
		if err != nil {
			return nil, err
		}
		s := lm75Sensor{d}
		_, err = s.Read(ctx)
		return s, err
	},
}

type lm75Sensor struct{ dev i2c.Dev }

// Read reads register 0: two's complement, left-aligned, 1/256 °C a bit; chips with fewer bits have zeros at the end (TMP105 data sheet, SBOS295, table 6).
func (s lm75Sensor) Read(context.Context) ([]sensors.Value, error) {
	raw, err := word(s.dev, 0)
	if err != nil {
		return nil, err
	}
	return []sensors.Value{temperature(float64(int16(raw))/256, 3)}, nil
}
