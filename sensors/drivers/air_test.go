package drivers

import (
	"testing"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

// at makes transfers with one address: what is written, what is answered.
func at(addr uint16) func(w []byte, r ...byte) i2ctest.IO {
	return func(w []byte, r ...byte) i2ctest.IO { return i2ctest.IO{Addr: addr, W: w, R: r} }
}

// checked are words as a chip sends them, each with its checksum.
func checked(words ...uint16) (b []byte) {
	for _, w := range words {
		pair := []byte{byte(w >> 8), byte(w)}
		b = append(b, pair[0], pair[1], crc8(pair))
	}
	return b
}

func broken(b []byte) []byte {
	b[2] ^= 0x01
	return b
}

func TestCRC8(t *testing.T) {
	if got := crc8([]byte{0xbe, 0xef}); got != 0x92 { // the data sheets' example
		t.Errorf("%#x", got)
	}
}

// The three families share formulas and frames: raw 0x6666 is 25 °C, 0x1d42 is −25 °C; 0x8000 is half.
func TestAir(t *testing.T) {
	for _, c := range []struct {
		d       sensors.Driver
		command []byte
		percent float64 // of 0x8000
	}{{sht3x, []byte{0x24, 0x00}, 100 * 32768.0 / 65535}, {sht4x, []byte{0xfd}, -6 + 125*32768.0/65535}} {
		t.Run(c.d.Name, func(t *testing.T) {
			io := at(0x44)
			for raw, celsius := range map[uint16]float64{0x6666: 25, 0x1d42: -45 + 175*7490.0/65535, 0x0753: -45 + 175*1875.0/65535} {
				want(t, virtual(t, c.d, nil, io(c.command), io(nil, checked(raw, 0x8000)...)), map[string]float64{"temperature_celsius": celsius, "relative_humidity_percent": c.percent})
			}
			want(t, virtual(t, c.d, nil, io(c.command), io(nil, checked(0x6666, 0xffff)...)), map[string]float64{"temperature_celsius": 25, "relative_humidity_percent": 100})
			refused(t, c.d, nil, "checksum", io(c.command), io(nil, broken(checked(0x6666, 0x8000))...))
			refused(t, c.d, nil, "outside -40 to 125", io(c.command), io(nil, checked(0, 0x8000)...))
			refused(t, c.d, nil, "checksum", io(c.command), io(nil, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
		})
	}
}

func TestHDC302x(t *testing.T) {
	io := at(0x44)
	id := io([]byte{0x37, 0x81}, 0x30, 0x00)
	open := []i2ctest.IO{id, io([]byte{0x21, 0x30})}
	stop := io([]byte{0x30, 0x93})
	measure := func(r ...byte) []i2ctest.IO { return append(open[:2:2], io([]byte{0xe0, 0x00}, r...), stop) }
	got := virtual(t, hdc302xDriver, nil, measure(checked(0x1d42, 0x8000)...)...)
	near(t, got, "temperature_celsius", -25.01, -24.99)
	near(t, got, "relative_humidity_percent", 50, 50.01)
	refused(t, hdc302xDriver, nil, "crc", measure(broken(checked(0x6666, 0x8000))...)...)
	refused(t, hdc302xDriver, nil, "outside -40 to 125", measure(checked(0, 0x8000)...)...)
	refused(t, hdc302xDriver, nil, "a hdc302x has 0x3000", io([]byte{0x37, 0x81}, 0x00, 0x00))
}

// AHT20 data sheet, section 5.4 and 6: 20 bits each; humidity is of 100 %, temperature −50 + 200 × raw/2^20.
func TestAHT20(t *testing.T) {
	io := at(0x38)
	answer := func(status byte, h, temp uint32) []byte {
		b := []byte{status, byte(h >> 12), byte(h >> 4), byte(h<<4) | byte(temp>>16), byte(temp >> 8), byte(temp)}
		return append(b, crc8(b))
	}
	ready := io([]byte{0x71}, 0x18)
	measure := io([]byte{0xac, 0x33, 0x00})
	for celsius, raw := range map[float64]uint32{25: 75 << 20 / 200, -30: 20 << 20 / 200} {
		got := virtual(t, aht20Driver, nil, ready, measure, io(nil, answer(0x18, 1<<19, raw)...))
		near(t, got, "temperature_celsius", celsius-0.01, celsius+0.01)
		near(t, got, "relative_humidity_percent", 49.99, 50.01)
	}
	// Not calibrated yet: initialized first. Busy at first: asked again.
	virtual(t, aht20Driver, nil, io([]byte{0x71}, 0x10), io([]byte{0xbe, 0x08, 0x00}), measure, io(nil, answer(0x98, 0, 0)...), io(nil, answer(0x18, 1<<19, 1<<19)...))
	// It lost its power: opened anew at once.
	virtual(t, aht20Driver, nil, ready, measure, io(nil, answer(0x10, 1<<19, 1<<19)...), io([]byte{0x71}, 0x10), io([]byte{0xbe, 0x08, 0x00}), measure, io(nil, answer(0x18, 1<<19, 1<<19)...))
	bad := answer(0x18, 1<<19, 1<<19)
	bad[6] ^= 0x80
	refused(t, aht20Driver, nil, "corrupt", ready, measure, io(nil, bad...))
	refused(t, aht20Driver, nil, "outside -40 to 85", ready, measure, io(nil, answer(0x18, 1<<19, 1<<20-1)...))
}

// AM2320 data sheet, example: 03 04 01 F4 00 FA 31 A5 is 50.0 % and 25.0 °C.
func TestAM2320(t *testing.T) {
	io := at(0x5c)
	frame := func(b ...byte) []byte {
		b = append([]byte{0x03, 0x04}, b...)
		crc := crcModbus(b)
		return append(b, byte(crc), byte(crc>>8))
	}
	if got := frame(0x01, 0xf4, 0x00, 0xfa); got[6] != 0x31 || got[7] != 0xa5 {
		t.Errorf("checksum % x, the data sheet has 31 a5", got[6:])
	}
	measure := func(answer []byte) []i2ctest.IO {
		return []i2ctest.IO{io([]byte{0}), io([]byte{0x03, 0x00, 0x04}), io(nil, answer...)}
	}
	twice := func(b ...byte) []i2ctest.IO { // the first answer is old
		return append(measure(frame(0, 0, 0, 0)), measure(frame(b...))...)
	}
	want(t, virtual(t, am2320, nil, twice(0x01, 0xf4, 0x00, 0xfa)...), map[string]float64{"temperature_celsius": 25, "relative_humidity_percent": 50})
	want(t, virtual(t, am2320, nil, twice(0x01, 0xf4, 0x80, 0x65)...), map[string]float64{"temperature_celsius": -10.1, "relative_humidity_percent": 50})
	bad := frame(0x01, 0xf4, 0x00, 0xfa)
	bad[3] ^= 1
	refused(t, am2320, nil, "checksum", measure(bad)...)
	refused(t, am2320, nil, "outside 0 to 100", twice(0xff, 0xff, 0x00, 0xfa)...)
	refused(t, am2320, nil, "outside -40 to 80", twice(0x01, 0xf4, 0x03, 0xe8)...)
}
