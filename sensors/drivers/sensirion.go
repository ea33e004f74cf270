package drivers

import (
	"context"
	"errors"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

// errCRC is returned when what a chip said was changed on its way.
var errCRC = errors.New("checksum wrong: a bad wire, a cable too long, or a clock too fast")

// crc8 is that of Sensirion, ASAIR and TI's humidity chips: polynomial 0x31, start 0xff; of 0xbeef it is 0x92 (SHT3x-DIS data sheet, section 4.12).
func crc8(data []byte) byte {
	crc := byte(0xff)
	for _, b := range data {
		crc ^= b
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x31
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// words sends a command, waits as long as the chip needs, and reads n words, each with its checksum.
func words(ctx context.Context, d i2c.Dev, command []byte, wait time.Duration, n int) ([]uint16, error) {
	if err := d.Tx(command, nil); err != nil {
		return nil, err
	}
	if err := pause(ctx, wait); err != nil {
		return nil, err
	}
	b := make([]byte, 3*n)
	if err := d.Tx(nil, b); err != nil {
		return nil, err
	}
	var out []uint16
	for ; len(b) > 0; b = b[3:] {
		if crc8(b[:2]) != b[2] {
			return nil, errCRC
		}
		out = append(out, uint16(b[0])<<8|uint16(b[1]))
	}
	return out, nil
}

// withWords is a command with arguments, each with its checksum.
func withWords(command uint16, args ...uint16) []byte {
	b := []byte{byte(command >> 8), byte(command)}
	for _, a := range args {
		w := []byte{byte(a >> 8), byte(a)}
		b = append(b, w[0], w[1], crc8(w))
	}
	return b
}

// air is a chip that measures temperature and humidity with one command, by a straight line.
type air struct {
	dev     i2c.Dev
	command []byte
	wait    time.Duration
	h0, h1  float64 // relative humidity at 0 and at 65535
}

// Read measures once: temperature is −45 + 175 × raw/65535 in all of them.
func (a air) Read(ctx context.Context) ([]sensors.Value, error) {
	w, err := words(ctx, a.dev, a.command, a.wait, 2)
	if err != nil {
		return nil, err
	}
	return []sensors.Value{temperature(-45+175*float64(w[0])/65535, 2), relativeHumidity(a.h0+(a.h1-a.h0)*float64(w[1])/65535, 2)}, nil
}
