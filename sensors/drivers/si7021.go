package drivers

import (
	"context"
	"encoding/binary"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type si7021Options struct {
	bus `config:",inline"`
}

func (o *si7021Options) Place() sensors.Place { return o.at(0x40) }

// One set of commands and formulas for all makers (SHT21 data sheet, sections 5.4 and 6; Si7021-A20, 5.1; HTU21D(F), "Conversion of signal outputs").
// They are not told apart by an id: the old ones have none.
var si7021 = sensors.Driver{
	Name:       "si7021",
	Summary:    "Silicon Labs Si7021, TE HTU21D and Sensirion SHT20, SHT21 and SHT25: temperature and humidity on I2C, always at 0x40",
	Options:    func() any { return &si7021Options{bus{"i2c-1"}} },
	Quantities: []sensors.Quantity{celsius(-40, 125), humidity},
	Example:    "{name: loft, driver: si7021, bus: i2c-1, every: 30s}",
	Addresses:  []uint16{0x40},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*si7021Options))
		return si7021Sensor{d}, err
	},
}

type si7021Sensor struct{ dev i2c.Dev }

// Read measures both with the commands that leave the clock alone; the waits are those of the slowest, the SHT21.
func (s si7021Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	t, err := s.measure(ctx, 0xf3, 85*time.Millisecond)
	if err != nil {
		return nil, err
	}
	h, err := s.measure(ctx, 0xf5, 29*time.Millisecond)
	if err != nil {
		return nil, err
	}
	return []sensors.Value{temperature(-46.85+175.72*t, 2), relativeHumidity(-6+125*h, 2)}, nil
}

// measure returns a part of the full scale.
func (s si7021Sensor) measure(ctx context.Context, command byte, wait time.Duration) (float64, error) {
	if err := s.dev.Tx([]byte{command}, nil); err != nil {
		return 0, err
	}
	if err := pause(ctx, wait); err != nil {
		return 0, err
	}
	var b [3]byte
	if err := s.dev.Tx(nil, b[:]); err != nil {
		return 0, err
	}
	if crc8(b[:2])^crc8([]byte{0, 0}) != b[2] { // theirs starts at 0, not at 0xff; what the start adds to two bytes is the same for all
		return 0, errCRC
	}
	return float64(binary.BigEndian.Uint16(b[:])&^3) / 65536, nil // the lowest two bits are a status
}
