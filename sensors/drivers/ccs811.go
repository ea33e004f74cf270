package drivers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
)

type ccs811Options struct {
	bus     `config:",inline"`
	Address uint16 `config:"address" default:"0x5a" min:"0x5a" max:"0x5b" doc:"Address on the bus. The chip stretches the clock: on a Pi slow the bus down, dtparam=i2c_arm_baudrate=10000."`
}

func (o *ccs811Options) Place() sensors.Place { return o.at(o.Address) }

// HW_ID is 0x81 (CCS811 data sheet, register 0x20).
var ccs811 = sensors.Driver{
	Name:       "ccs811",
	Summary:    "ams CCS811: volatile organic compounds and the CO2 they stand for, on I2C",
	Options:    func() any { return &ccs811Options{bus{"i2c-1"}, 0x5a} },
	Quantities: []sensors.Quantity{co2, tvoc},
	Example:    "{name: workshop, driver: ccs811, bus: i2c-1, address: 0x5a, every: 30s}",
	MinEvery:   time.Second,
	Takes:      8 * time.Second,
	Addresses:  []uint16{0x5a, 0x5b},
	IDs:        []sensors.ID{{Write: []byte{0x20}, Value: []byte{0x81}}},
	Open:       openCCS811,
}

// Bits of STATUS, register 0.
const (
	ccs811Running = 0x80
	ccs811Valid   = 0x10
	ccs811Ready   = 0x08
	ccs811Error   = 0x01
)

type ccs811Sensor struct{ dev i2c.Dev }

// openCCS811 resets the chip, starts its program and has it measure each second (mode 1).
func openCCS811(ctx context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
	d, err := dev(b, opts.(*ccs811Options))
	if err != nil {
		return nil, err
	}
	s := ccs811Sensor{d}
	if err := s.write(ctx, 20*time.Millisecond, 0xff, 0x11, 0xe5, 0x72, 0x8a); err != nil {
		return nil, err
	}
	status, err := s.status()
	if err != nil {
		return nil, err
	}
	if status&ccs811Valid == 0 {
		return nil, fmt.Errorf("status %#x: the chip has no valid program; flash its firmware anew", status)
	}
	if err := s.write(ctx, 2*time.Millisecond, 0xf4); err != nil {
		return nil, err
	}
	return s, s.write(ctx, 0, 0x01, 0x10)
}

func (s ccs811Sensor) write(ctx context.Context, wait time.Duration, b ...byte) error {
	if err := s.dev.Tx(b, nil); err != nil {
		return err
	}
	return pause(ctx, wait)
}

func (s ccs811Sensor) status() (byte, error) {
	var b [1]byte
	err := s.dev.Tx([]byte{0}, b[:])
	return b[0], err
}

// Read waits for the next measurement, at most a second, off the bus. The first ones after the start have no CO2 value and are passed over. The chip needs 20 minutes until its values mean something.
func (s ccs811Sensor) Read(ctx context.Context) ([]sensors.Value, error) {
	for {
		status, err := s.status()
		switch {
		case err != nil:
			return nil, err
		case status&ccs811Running == 0:
			return nil, fmt.Errorf("status %#x: %w", status, sensors.ErrReset)
		case status&ccs811Error != 0:
			return nil, s.fault()
		case status&ccs811Ready != 0:
			var b [8]byte
			if err := s.dev.Tx([]byte{0x02}, b[:]); err != nil {
				return nil, err
			}
			if ppm := binary.BigEndian.Uint16(b[:]); ppm >= 400 {
				return []sensors.Value{{Name: "co2_ppm", Number: float64(ppm)}, {Name: "tvoc_ppb", Number: float64(binary.BigEndian.Uint16(b[2:]))}}, nil
			}
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, errors.New("the chip has no new measurement")
		}
	}
}

// fault names the lowest bit of ERROR_ID, register 0xe0.
func (s ccs811Sensor) fault() error {
	var b [1]byte
	if err := s.dev.Tx([]byte{0xe0}, b[:]); err != nil {
		return err
	}
	for bit, text := range []string{"a register was written that is not there", "a register was read that is not there", "its measuring mode is not allowed", "the sensor's resistance is at its limit", "the heater's current is out of range", "the heater has no voltage"} {
		if b[0]&(1<<bit) != 0 {
			return fmt.Errorf("the chip reports an error: %s", text)
		}
	}
	return fmt.Errorf("the chip reports an error without saying which (%#x)", b[0])
}

// Close puts the chip to idle: it heats while it measures.
func (s ccs811Sensor) Close() error { return s.dev.Tx([]byte{0x01, 0x00}, nil) }
