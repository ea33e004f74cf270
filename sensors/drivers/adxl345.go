package drivers

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"
)

type adxl345Options struct {
	Bus     string `config:"bus" default:"i2c-1" pattern:"^[A-Za-z0-9]" doc:"I2C bus as for other chips, or an SPI port such as spi0.0."`
	Address uint16 `config:"address" default:"0x53" doc:"Address on I2C: 0x53, or 0x1d with SDO high."`
	Range   string `config:"range" default:"16" enum:"2,4,8,16" doc:"Largest acceleration in g."`
}

func (o *adxl345Options) Place() sensors.Place {
	if o.spi() {
		return sensors.Place{Bus: o.Bus}
	}
	return sensors.Place{Bus: o.Bus, Address: o.Address}
}

func (o *adxl345Options) spi() bool { return strings.HasPrefix(o.Bus, "spi") }

// Check refuses addresses that no ADXL345 has.
func (o *adxl345Options) Check(report func(path, message, hint string)) {
	if o.Address != 0x53 && o.Address != 0x1d {
		report("address", "an ADXL345 is at 0x53 or 0x1d", "see the SDO pin of the board")
	}
}

var adxl345 = sensors.Driver{
	Name:       "adxl345",
	Summary:    "Analog Devices ADXL345: acceleration of three axes, on I2C or SPI",
	Options:    func() any { return &adxl345Options{"i2c-1", 0x53, "16"} },
	Quantities: []sensors.Quantity{acceleration("x"), acceleration("y"), acceleration("z")},
	Example:    "{name: tilt, driver: adxl345, bus: i2c-1, address: 0x53, range: 2, every: 5s}",
	Addresses:  []uint16{0x53, 0x1d},
	IDs:        []sensors.ID{{Write: []byte{0x00}, Value: []byte{0xe5}}},
	Open:       openADXL345,
}

func acceleration(axis string) sensors.Quantity {
	return sensors.Quantity{Name: "acceleration_" + axis + "_g", Unit: "g", StateClass: "measurement", Min: -16, Max: 16}
}

// registers are read and written on either bus.
type registers interface {
	read(register byte, b []byte) error
	write(register, v byte) error
}

type adxl345Sensor struct {
	registers
	format byte
	port   io.Closer // of SPI; nil
}

// Registers of the data sheet, table 19.
const (
	adxl345Power  = 0x2d // bit 3: measure
	adxl345Format = 0x31 // bit 3: full resolution; bits 1 and 0: range
	adxl345Data   = 0x32
)

func openADXL345(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
	o := opts.(*adxl345Options)
	s := &adxl345Sensor{format: 0x08 | map[string]byte{"2": 0, "4": 1, "8": 2, "16": 3}[o.Range]}
	if o.spi() {
		port, err := b.SPI(o.Bus)
		if err != nil {
			return nil, err
		}
		c, err := port.Connect(2*physic.MegaHertz, spi.Mode3, 8)
		if err != nil {
			port.Close()
			return nil, err
		}
		s.registers, s.port = spiRegisters{c}, port
		var id [1]byte
		if err := s.read(0, id[:]); err != nil || id[0] != 0xe5 {
			port.Close()
			return nil, fmt.Errorf("%s answers with id %#x, an ADXL345 has 0xe5: check the wiring (%v)", o.Bus, id, err)
		}
	} else {
		d, err := dev(b, o)
		if err != nil {
			return nil, err
		}
		s.registers = i2cRegisters{d}
	}
	if err := s.write(adxl345Format, s.format); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.write(adxl345Power, 0x08); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Read reads the three axes at once, 3.9 mg a bit whatever the range (full resolution; data sheet, table 1). A chip that lost its power does not measure: that is looked at first.
func (s *adxl345Sensor) Read(context.Context) ([]sensors.Value, error) {
	var state [1]byte
	if err := s.read(adxl345Power, state[:]); err != nil {
		return nil, err
	}
	if state[0] != 0x08 {
		return nil, fmt.Errorf("POWER_CTL is %#x: %w", state[0], sensors.ErrReset)
	}
	var b [6]byte
	if err := s.read(adxl345Data, b[:]); err != nil {
		return nil, err
	}
	var out []sensors.Value
	for i, axis := range []string{"x", "y", "z"} {
		out = append(out, sensors.Value{Name: "acceleration_" + axis + "_g", Number: float64(int16(binary.LittleEndian.Uint16(b[2*i:]))) * 0.0039, Precision: 3})
	}
	return out, nil
}

// Close stops measuring and lets an SPI port go.
func (s *adxl345Sensor) Close() error {
	err := s.write(adxl345Power, 0)
	if s.port != nil {
		return s.port.Close()
	}
	return err
}

type i2cRegisters struct{ d i2c.Dev }

func (r i2cRegisters) read(register byte, b []byte) error { return r.d.Tx([]byte{register}, b) }
func (r i2cRegisters) write(register, v byte) error       { return r.d.Tx([]byte{register, v}, nil) }

type spiRegisters struct{ c spi.Conn }

// read sets bit 7 for reading and bit 6 for several bytes (data sheet, SPI).
func (r spiRegisters) read(register byte, b []byte) error {
	w, in := make([]byte, len(b)+1), make([]byte, len(b)+1)
	w[0] = register | 0x80
	if len(b) > 1 {
		w[0] |= 0x40
	}
	err := r.c.Tx(w, in)
	copy(b, in[1:])
	return err
}

func (r spiRegisters) write(register, v byte) error {
	return r.c.Tx([]byte{register, v}, make([]byte, 2))
}
