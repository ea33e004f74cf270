package drivers

import (
	"context"
	"time"

	"fieldagent/sensors"
)

type sht4xOptions struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x44" min:"0x44" max:"0x46" doc:"Address on the bus; it is part of the chip's order number."`
}

func (o *sht4xOptions) Place() sensors.Place { return o.at(o.Address) }

// The command is "measure with high precision", 8.3 ms at most (SHT4x data sheet, sections 3.1 and 4.5; formulas in 4.6: humidity is −6 + 125 × raw/65535).
var sht4x = sensors.Driver{
	Name:       "sht4x",
	Summary:    "Sensirion SHT40, SHT41 and SHT45: temperature and humidity on I2C",
	Options:    func() any { return &sht4xOptions{bus{"i2c-1"}, 0x44} },
	Quantities: []sensors.Quantity{celsius(-40, 125), humidity},
	Example:    "{name: office, driver: sht4x, bus: i2c-1, address: 0x44, every: 30s}",
	Addresses:  []uint16{0x44, 0x45, 0x46},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*sht4xOptions))
		return air{dev: d, command: []byte{0xfd}, wait: 10 * time.Millisecond, h0: -6, h1: 119}, err
	},
}
