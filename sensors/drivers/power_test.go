package drivers

import (
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

func TestINA219(t *testing.T) {
	io := at(0x40)
	measure := func(shunt, bus uint16) []i2ctest.IO {
		return []i2ctest.IO{io([]byte{0, 0x3f, 0xfb}), io([]byte{2}, byte(bus>>8), byte(bus)&^2), io([]byte{2}, byte(bus>>8), byte(bus)|2), io([]byte{1}, byte(shunt>>8), byte(shunt)), io([]byte{2}, byte(bus>>8), byte(bus)|2)}
	}
	// SBOS448, example of section 8.5: 11.98 V at the load, 20 mV at the shunt; of 0.002 ohms, 10 A.
	o := &ina219Options{bus{"i2c-1"}, 0x40, 0.002}
	want(t, virtual(t, ina219, o, measure(2000, 2995<<3)...), map[string]float64{"voltage_volts": 11.98, "current_amperes": 10, "power_watts": 119.8})
	// A battery that is charged: negative. −320 mV is 0x8300, the end of the range.
	charged := int16(-2000)
	want(t, virtual(t, ina219, o, measure(uint16(charged), 2995<<3)...), map[string]float64{"voltage_volts": 11.98, "current_amperes": -10, "power_watts": -119.8})
	refused(t, ina219, o, "more current than the chip can measure", measure(32000, 2995<<3)...)
	refused(t, ina219, o, "more current than the chip can measure", measure(0x8300, 2995<<3)...)
	refused(t, ina219, o, "voltage_volts is 32.76", measure(0, 8190<<3)...)
}

func TestINA226(t *testing.T) {
	io := at(0x40)
	id := []i2ctest.IO{io([]byte{0xfe}, 'T', 'I'), io([]byte{0xff}, 0x22, 0x60)}
	measure := func(shunt, bus uint16) []i2ctest.IO {
		return append(id[:2:2], io([]byte{0, 0x47, 0x23}), io([]byte{6}, 0, 0), io([]byte{6}, 0, 8), io([]byte{1}, byte(shunt>>8), byte(shunt)), io([]byte{2}, byte(bus>>8), byte(bus)))
	}
	// SBOS547, table 1: 11.98 V is 9584, 20 mV is 8000; at 2 mΩ 10 A.
	o := &ina226Options{bus{"i2c-1"}, 0x40, 0.002}
	want(t, virtual(t, ina226, o, measure(8000, 9584)...), map[string]float64{"voltage_volts": 11.98, "current_amperes": 10, "power_watts": 119.8})
	back := int16(-8000)
	want(t, virtual(t, ina226, o, measure(uint16(back), 9584)...), map[string]float64{"voltage_volts": 11.98, "current_amperes": -10, "power_watts": -119.8})
	refused(t, ina226, o, "more current than the chip can measure", measure(0x7fff, 9584)...)
	refused(t, ina226, o, "that is a ina3221; write driver: ina3221", id[0], io([]byte{0xff}, 0x32, 0x20))
	refused(t, ina226, o, "answers with id 0x399f", io([]byte{0xfe}, 0x39, 0x9f)) // an INA219 has no such register
	never := append(id[:2:2], io([]byte{0, 0x47, 0x23}))
	for range 10 {
		never = append(never, io([]byte{6}, 0, 0))
	}
	refused(t, ina226, o, "does not end", never...)
}

func TestINA3221(t *testing.T) {
	io := at(0x40)
	ops := []i2ctest.IO{io([]byte{0xfe}, 'T', 'I'), io([]byte{0xff}, 0x32, 0x20), io([]byte{0, 0x75, 0x23}), io([]byte{0x0f}, 0, 0), io([]byte{0x0f}, 0, 1)}
	// Channel 1: 40 mV at 0.1 Ω and 12 V; channel 3: −4 mV and 3.304 V.
	back := int16(-100 << 3)
	ops = append(ops, io([]byte{1}, 1000<<3>>8, 1000<<3&0xff), io([]byte{2}, 1500<<3>>8, 1500<<3&0xff), io([]byte{5}, byte(uint16(back)>>8), byte(uint16(back)&0xff)), io([]byte{6}, 413<<3>>8, 413<<3&0xff))
	o := &ina3221Options{bus{"i2c-1"}, 0x40, []int{1, 3}, 0.1}
	want(t, virtual(t, ina3221, o, ops...), map[string]float64{"voltage1_volts": 12, "current1_amperes": 0.4, "power1_watts": 4.8, "voltage3_volts": 3.304, "current3_amperes": -0.04, "power3_watts": -0.13216})
	refused(t, ina3221, o, "channel 1: more current", append(ops[:5:5], io([]byte{1}, 0x7f, 0xf8), io([]byte{2}, 0, 0))...)
}

// SBAS444: bit 15 starts, inputs in bits 14:12, range in 11:9; 0x7fff is the end of the range.
func TestADS1x15(t *testing.T) {
	io := at(0x48)
	convert := func(config uint16, raw int16) []i2ctest.IO {
		return []i2ctest.IO{io([]byte{1, byte(config >> 8), byte(config)}), io([]byte{1}, byte(config>>8)&0x7f, byte(config)), io([]byte{1}, byte(config>>8), byte(config)), io([]byte{0}, byte(uint16(raw)>>8), byte(raw))}
	}
	o := func(c ...ads1x15Channel) *ads1x15Options { return &ads1x15Options{bus{"i2c-1"}, 0x48, c} }
	plain := ads1x15Channel{Input: "0", Range: "4.096", Scale: 1}
	pressure := ads1x15Channel{Input: "1", Range: "6.144", Scale: 2.5, Offset: -1.25, Value: "pressure_bar", Min: -0.1, Max: 10}
	diff := ads1x15Channel{Input: "2-3", Range: "0.256", Scale: 1}
	want(t, virtual(t, ads1x15, o(plain, pressure, diff), append(append(convert(0xc383, 16384), convert(0xd183, 16384)...), convert(0xbb83, -16384)...)...),
		map[string]float64{"voltage0_volts": 2.048, "pressure_bar": 3.072*2.5 - 1.25, "voltage2_3_volts": -0.128})
	refused(t, ads1x15, o(plain), "at the end of its range of ±4.096 V", convert(0xc383, 0x7fff)...)
	refused(t, ads1x15, o(plain), "at the end of its range", convert(0xc383, -0x8000)...)
	refused(t, ads1x15, o(pressure), "pressure_bar is -1.25, outside -0.1 to 10", convert(0xd183, 0)...)
	refused(t, ads1x15, o(plain), "the chip is set to 0x8583 instead of 0xc383", convert(0xc383, 0)[0], io([]byte{1}, 0x85, 0x83))
}
