package drivers

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type bh1750Options struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x23" min:"0x23" max:"0x5c" doc:"Address on the bus: 0x23, or 0x5c with ADDR high."`
}

func (o *bh1750Options) Place() sensors.Place { return o.at(o.Address) }

// Check refuses addresses that no BH1750 has.
func (o *bh1750Options) Check(report func(path, message, hint string)) {
	if o.Address != 0x23 && o.Address != 0x5c {
		report("address", "a BH1750 is at 0x23 or 0x5c", "see the ADDR pin of the board")
	}
}

var illuminance = sensors.Quantity{Name: "illuminance_lux", Unit: "lx", DeviceClass: "illuminance", StateClass: "measurement", Min: 0, Max: 150000}

var bh1750 = sensors.Driver{
	Name:       "bh1750",
	Summary:    "Rohm BH1750FVI: light on I2C, up to 54600 lx",
	Options:    func() any { return &bh1750Options{bus{"i2c-1"}, 0x23} },
	Quantities: []sensors.Quantity{illuminance},
	Example:    "{name: daylight, driver: bh1750, bus: i2c-1, address: 0x23, every: 30s}",
	Addresses:  []uint16{0x23, 0x5c},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*bh1750Options))
		return bh1750Sensor{d}, err
	},
}

type bh1750Sensor struct{ dev i2c.Dev }

// Read switches the chip on, measures once at high resolution (0x20, 180 ms at most) and lets it sleep; the number is 1.2 × lux (BH1750FVI technical note, instruction set and measurement sequence).
func (s bh1750Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	for _, command := range []byte{0x01, 0x20} {
		if err := s.dev.Tx([]byte{command}, nil); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, 180*time.Millisecond); err != nil {
		return nil, err
	}
	var b [2]byte
	if err := s.dev.Tx(nil, b[:]); err != nil {
		return nil, err
	}
	raw := binary.BigEndian.Uint16(b[:])
	if raw == 0xffff {
		return nil, errors.New("brighter than the chip can measure (54612 lx), or no chip")
	}
	return []sensors.Value{{Name: "illuminance_lux", Number: float64(raw) / 1.2, Precision: 1}}, nil
}
