package drivers

import (
	"testing"

	"fieldagent/sensors/sensortest"

	"periph.io/x/conn/v3/conntest"
	"periph.io/x/conn/v3/i2c/i2ctest"
	"periph.io/x/conn/v3/spi"
	"periph.io/x/conn/v3/spi/spitest"
)

// The technical note's example: 0x8390 is 28067 lx.
func TestBH1750(t *testing.T) {
	io := at(0x23)
	measure := func(b ...byte) []i2ctest.IO { return []i2ctest.IO{io([]byte{1}), io([]byte{0x20}), io(nil, b...)} }
	near(t, virtual(t, bh1750, nil, measure(0x83, 0x90)...), "illuminance_lux", 28066, 28068)
	want(t, virtual(t, bh1750, nil, measure(0, 0)...), map[string]float64{"illuminance_lux": 0})
	refused(t, bh1750, nil, "brighter", measure(0xff, 0xff)...)
}

func TestADXL345(t *testing.T) {
	io := at(0x53)
	open := []i2ctest.IO{io([]byte{0}, 0xe5), io([]byte{0x31, 0x08}), io([]byte{0x2d, 0x08})}
	stop := io([]byte{0x2d, 0x00})
	o := &adxl345Options{"i2c-1", 0x53, "2"}
	data := io([]byte{0x32}, 0x00, 0x00, 0x00, 0xff, 0x00, 0x01) // 0, −256, 256: 1 g is 256
	flat := map[string]float64{"acceleration_x_g": 0, "acceleration_y_g": -0.9984, "acceleration_z_g": 0.9984}
	want(t, virtual(t, adxl345, o, append(open[:3:3], io([]byte{0x2d}, 0x08), data, stop)...), flat)
	refused(t, adxl345, o, "a adxl345 has 0xe5", io([]byte{0}, 0xd1))
	// After a power cut it sleeps: opened anew at once.
	ops := append(open[:3:3], io([]byte{0x2d}, 0x00), stop)
	ops = append(append(ops, open...), io([]byte{0x2d}, 0x08), data, stop)
	want(t, virtual(t, adxl345, o, ops...), flat)
}

func TestADXL345OnSPI(t *testing.T) {
	p := &spitest.Playback{Playback: conntest.Playback{DontPanic: true, Ops: []conntest.IO{
		{W: []byte{0x80, 0}, R: []byte{0, 0xe5}},
		{W: []byte{0x31, 0x0b}, R: []byte{0, 0}}, {W: []byte{0x2d, 0x08}, R: []byte{0, 0}},
		{W: []byte{0xad, 0}, R: []byte{0, 0x08}},
		{W: []byte{0xf2, 0, 0, 0, 0, 0, 0}, R: []byte{0, 0x00, 0x00, 0x00, 0xff, 0x00, 0x01}},
		{W: []byte{0x2d, 0}, R: []byte{0, 0}},
	}}}
	b := sensortest.Board{Ports: map[string]spi.PortCloser{"spi0.0": p}}
	want(t, read(t, adxl345, &adxl345Options{"spi0.0", 0x53, "16"}, b), map[string]float64{"acceleration_x_g": 0, "acceleration_y_g": -0.9984, "acceleration_z_g": 0.9984})
	if _, err := adxl345.Open(t.Context(), &adxl345Options{"spi9.9", 0x53, "16"}, sensortest.Board{}); err == nil {
		t.Error("a port that is not there was opened")
	}
}
