package drivers

import (
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

// Counts and lux are those of the data sheet's table of resolutions.
func TestVEML7700(t *testing.T) {
	io := at(0x10)
	id := io([]byte{0x07}, 0x81, 0xc4)
	measure := func(config, n uint16) []i2ctest.IO {
		return []i2ctest.IO{io([]byte{0, byte(config), byte(config >> 8)}), io([]byte{4}, byte(n), byte(n>>8)), io([]byte{0, byte(config) | 1, byte(config >> 8)})}
	}
	with := func(more ...[]i2ctest.IO) []i2ctest.IO {
		ops := []i2ctest.IO{id}
		for _, m := range more {
			ops = append(ops, m...)
		}
		return ops
	}
	// Indoors, at the first gain: 537.6 lx before the bend is corrected, 561 after.
	near(t, virtual(t, veml7700, nil, with(measure(0x1000, 1000))...), "illuminance_lux", 560, 562)
	// Night: more and more sensitive. 0 counts are 0 lx.
	dark := with(measure(0x1000, 0), measure(0x1800, 1), measure(0x0000, 3), measure(0x0800, 8), measure(0x0880, 33), measure(0x08c0, 66))
	want(t, virtual(t, veml7700, nil, dark...), map[string]float64{"illuminance_lux": 66 * 0.0042})
	// The sun: less and less. 19354 lx before the correction; the application note's curve has 67 klx there.
	sun := with(measure(0x1000, 36000), measure(0x1200, 18000), measure(0x1300, 9000))
	near(t, virtual(t, veml7700, nil, sun...), "illuminance_lux", 66000, 68500)
	refused(t, veml7700, nil, "outside 0 to 150000", with(measure(0x1000, 50000), measure(0x1200, 30000), measure(0x1300, 15000))...)
	refused(t, veml7700, nil, "brighter", with(measure(0x1000, 0xffff), measure(0x1200, 0xffff), measure(0x1300, 0xffff))...)
	refused(t, veml7700, nil, "a veml7700 has 0x8100", io([]byte{0x07}, 0x00, 0x00))
}
