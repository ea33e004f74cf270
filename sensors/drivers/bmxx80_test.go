package drivers

import (
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

func io76(w []byte, r ...byte) i2ctest.IO { return i2ctest.IO{Addr: 0x76, W: w, R: r} }

// The calibration and raw values are those of periph's recording of a real BME280.
var (
	bmCalibration = []byte{0x10, 0x6e, 0x6c, 0x66, 0x32, 0x00, 0x5d, 0x95, 0xb8, 0xd5, 0xd0, 0x0b, 0x77, 0x1e, 0x9d, 0xff, 0xf9, 0xff, 0xac, 0x26, 0x0a, 0xd8, 0xbd, 0x10, 0x00, 0x4b}
	bmeOpen       = []i2ctest.IO{
		io76([]byte{0xd0}, 0x60), io76([]byte{0xd0}, 0x60),
		io76([]byte{0x88}, bmCalibration...),
		io76([]byte{0xe1}, 0x6e, 0x01, 0x00, 0x13, 0x05, 0x00, 0x1e),
		io76([]byte{0xf4, 0x4c, 0xf2, 0x02, 0xf5, 0xa0, 0xf4, 0x4c}),
	}
)

func near(t *testing.T, got map[string]float64, name string, low, high float64) {
	t.Helper()
	if x, ok := got[name]; !ok || x < low || x > high {
		t.Errorf("%s is %v, want %v to %v", name, x, low, high)
	}
}

func TestBME280(t *testing.T) {
	measure := []i2ctest.IO{io76([]byte{0xf2}, 2), io76([]byte{0xf4, 0x4d}), io76([]byte{0xf3}, 0), io76([]byte{0xf7}, 0x4a, 0x52, 0xc0, 0x80, 0x96, 0xc0, 0x7a, 0x76)}
	got := virtual(t, bme280, bme280.Options(), append(bmeOpen[:5:5], measure...)...)
	near(t, got, "temperature_celsius", 23.71, 23.73)
	near(t, got, "pressure_hectopascal", 1009, 1011)
	near(t, got, "relative_humidity_percent", 60, 70)
	// Below zero: a smaller raw temperature; the same calibration.
	measure[3] = io76([]byte{0xf7}, 0x4a, 0x52, 0xc0, 0x68, 0x00, 0x00, 0x7a, 0x76)
	near(t, virtual(t, bme280, bme280.Options(), append(bmeOpen[:5:5], measure...)...), "temperature_celsius", -30, -1)
	// After a power cut in between: ctrl_hum is 0 again, the chip is set up anew and measured.
	measure[3] = io76([]byte{0xf7}, 0x4a, 0x52, 0xc0, 0x80, 0x96, 0xc0, 0x7a, 0x76)
	ops := append(bmeOpen[:5:5], io76([]byte{0xf2}, 0))
	ops = append(append(ops, bmeOpen...), measure...)
	near(t, virtual(t, bme280, bme280.Options(), ops...), "relative_humidity_percent", 60, 70)
}

func TestBMP280(t *testing.T) {
	got := virtual(t, bmp280, bmp280.Options(), io76([]byte{0xd0}, 0x58), io76([]byte{0xd0}, 0x58), io76([]byte{0x88}, bmCalibration...), io76([]byte{0xf4, 0x4c, 0xf5, 0xa0, 0xf4, 0x4c}),
		io76([]byte{0xf4, 0x4d}), io76([]byte{0xf3}, 0), io76([]byte{0xf7}, 0x4a, 0x52, 0xc0, 0x80, 0x96, 0xc0))
	near(t, got, "temperature_celsius", 23.71, 23.73)
	near(t, got, "pressure_hectopascal", 1009, 1011)
	if len(got) != 2 {
		t.Errorf("%v", got)
	}
	refused(t, bme280, bme280.Options(), "0x76 on i2c-1 answers with id 0x58: that is a bmp280; write driver: bmp280", io76([]byte{0xd0}, 0x58))
	// A wire that came loose: all ones.
	refused(t, bmp280, bmp280.Options(), "answers with id 0xff", io76([]byte{0xd0}, 0xff))
}

// BST-BMP180-DS000, figure 4: the example with its calibration gives 15.0 °C and 69964 Pa at oversampling 0; here it is measured at the driver's 4×.
func TestBMP180(t *testing.T) {
	io := func(w []byte, r ...byte) i2ctest.IO { return i2ctest.IO{Addr: 0x77, W: w, R: r} }
	calibration := []byte{0x01, 0x98, 0xff, 0xb8, 0xc7, 0xd1, 0x7f, 0xe5, 0x7f, 0xf5, 0x5a, 0x71, 0x18, 0x2e, 0x00, 0x04, 0x80, 0x00, 0xdd, 0xf9, 0x0b, 0x34}
	up := 23843 << 8 // the example's 16 bits, with the bits that oversampling adds at 0
	got := virtual(t, bmp180, bmp180.Options(), io([]byte{0xd0}, 0x55), io([]byte{0xd0}, 0x55), io([]byte{0xaa}, calibration...), io([]byte{0xf4, 0x2e}), io([]byte{0xf6}, 0x6c, 0xfa),
		io([]byte{0xf4, 0xb4}), io([]byte{0xf6}, byte(up>>16), byte(up>>8), byte(up)))
	near(t, got, "temperature_celsius", 14.99, 15.01)
	near(t, got, "pressure_hectopascal", 699.5, 699.8)
}
