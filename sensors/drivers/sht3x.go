package drivers

import (
	"context"
	"time"

	"fieldagent/sensors"
)

type sht3xOptions struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x44" min:"0x44" max:"0x45" doc:"Address on the bus."`
}

func (o *sht3xOptions) Place() sensors.Place { return o.at(o.Address) }

// The command is "single shot, high repeatability, no clock stretching", 15.5 ms at most (SHT3x-DIS data sheet, sections 2.2 and 4.3; formulas in 4.13).
var sht3x = sensors.Driver{
	Name:       "sht3x",
	Summary:    "Sensirion SHT30, SHT31 and SHT35: temperature and humidity on I2C",
	Options:    func() any { return &sht3xOptions{bus{"i2c-1"}, 0x44} },
	Quantities: []sensors.Quantity{celsius(-40, 125), humidity},
	Example:    "{name: store-room, driver: sht3x, bus: i2c-1, address: 0x44, every: 30s}",
	Addresses:  []uint16{0x44, 0x45},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*sht3xOptions))
		return air{dev: d, command: []byte{0x24, 0x00}, wait: 16 * time.Millisecond, h1: 100}, err
	},
}
