package drivers

import (
	"context"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type tmp102Options struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x48" min:"0x48" max:"0x4b" doc:"Address on the bus."`
}

func (o *tmp102Options) Place() sensors.Place { return o.at(o.Address) }

var tmp102 = sensors.Driver{
	Name:       "tmp102",
	Summary:    "Texas Instruments TMP102 and TMP112: temperature on I2C",
	Options:    func() any { return &tmp102Options{bus{"i2c-1"}, 0x48} },
	Quantities: []sensors.Quantity{celsius(-55, 150)},
	Example:    "{name: cabinet, driver: tmp102, bus: i2c-1, address: 0x48, every: 10s}",
	Addresses:  addresses(0x48, 0x4b),
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*tmp102Options))
		return tmp102Sensor{d}, err
	},
}

type tmp102Sensor struct{ dev i2c.Dev }

// Read reads register 0, 1/16 °C a bit: 12 bits, or 13 in extended mode, which the lowest bit shows (SBOS397, temperature register).
// A chip in shutdown (bit SD, the lowest of the first byte of register 1) would show an old value for ever: it is woken up.
func (s tmp102Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	config, err := word(s.dev, 1)
	if err != nil {
		return nil, err
	}
	if config&0x100 != 0 {
		if err := s.dev.Tx([]byte{1, byte(config>>8) &^ 1, byte(config)}, nil); err != nil {
			return nil, err
		}
		if err := pause(ctx, 35e6); err != nil { // a conversion takes 35 ms at most
			return nil, err
		}
	}
	raw, err := word(s.dev, 0)
	if err != nil {
		return nil, err
	}
	bits := int16(raw) >> 4
	if raw&1 != 0 {
		bits = int16(raw) >> 3
	}
	return []sensors.Value{temperature(float64(bits)/16, 4)}, nil
}
