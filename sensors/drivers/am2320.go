package drivers

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type am2320Options struct {
	bus `config:",inline"`
}

func (o *am2320Options) Place() sensors.Place { return o.at(0x5c) }

var am2320 = sensors.Driver{
	Name:       "am2320",
	Summary:    "ASAIR AM2320, AM2321 and AM2322: temperature and humidity on I2C, always at 0x5c",
	Options:    func() any { return &am2320Options{bus{"i2c-1"}} },
	Quantities: []sensors.Quantity{celsius(-40, 80), humidity},
	Example:    "{name: cellar, driver: am2320, bus: i2c-1, every: 30s}",
	MinEvery:   3 * time.Second,
	Addresses:  []uint16{0x5c},
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		d, err := dev(b, opts.(*am2320Options))
		return &am2320Sensor{dev: d}, err
	},
}

type am2320Sensor struct {
	dev  i2c.Dev
	last time.Time
}

// Read measures. The chip answers with what it measured at the reading before, and starts to measure anew: when that is long ago it is read twice, 2 s apart (AM2320 data sheet, I2C communication).
func (s *am2320Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	if time.Since(s.last) > 5*time.Second {
		if _, err := s.measured(ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return nil, err
		}
	}
	b, err := s.measured(ctx)
	if err != nil {
		return nil, err
	}
	s.last = time.Now()
	// Humidity and temperature in tenths; the highest bit of the temperature is its sign, the others its amount.
	t := float64(binary.BigEndian.Uint16(b[2:])&0x7fff) / 10
	if b[2]&0x80 != 0 {
		t = -t
	}
	return []sensors.Value{temperature(t, 1), relativeHumidity(float64(binary.BigEndian.Uint16(b))/10, 1)}, nil
}

// measured wakes the chip, which does not acknowledge that, and reads registers 0 to 3 with function 3 of Modbus.
func (s *am2320Sensor) measured(ctx context.Context) ([]byte, error) {
	_ = s.dev.Tx([]byte{0}, nil)
	if err := pause(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	if err := s.dev.Tx([]byte{0x03, 0x00, 0x04}, nil); err != nil {
		return nil, err
	}
	if err := pause(ctx, 2*time.Millisecond); err != nil {
		return nil, err
	}
	var b [8]byte
	if err := s.dev.Tx(nil, b[:]); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(b[6:]) != crcModbus(b[:6]) {
		return nil, errCRC
	}
	if b[0] != 0x03 || b[1] != 0x04 {
		return nil, errors.New("the answer is not one to reading four registers")
	}
	return b[2:6], nil
}

// crcModbus is polynomial 0xa001 reflected, start 0xffff.
func crcModbus(data []byte) uint16 {
	crc := uint16(0xffff)
	for _, b := range data {
		crc ^= uint16(b)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}
