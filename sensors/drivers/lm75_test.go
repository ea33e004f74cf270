package drivers

import (
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

func TestLM75(t *testing.T) {
	// TMP105 data sheet, SBOS295, table 7: 25 °C is 0x1900, −0.25 °C is 0xffc0, −55 °C is 0xc900.
	for raw, celsius := range map[[2]byte]float64{{0x19, 0x00}: 25, {0xff, 0xc0}: -0.25, {0xc9, 0x00}: -55, {0x7f, 0xf0}: 127.9375} {
		op := i2ctest.IO{Addr: 0x48, W: []byte{0}, R: raw[:]}
		want(t, virtual(t, lm75, lm75.Options(), op, op), map[string]float64{"temperature_celsius": celsius})
	}
}
