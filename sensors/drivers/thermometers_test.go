package drivers

import (
	"strings"
	"testing"
	"testing/fstest"

	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

func celsiusIs(t *testing.T, got map[string]float64, celsius float64) {
	t.Helper()
	want(t, got, map[string]float64{"temperature_celsius": celsius})
}

// SBOS397: 0x7ff is 127.9375 °C, 0x190 is 25, 0xffc is −0.25, 0xe70 −25; in extended mode 0x0960 is 150 and 0x1e70 −25.
func TestTMP102(t *testing.T) {
	io := at(0x48)
	for raw, celsius := range map[uint16]float64{0x7ff0: 127.9375, 0x1900: 25, 0x0040: 0.25, 0xffc0: -0.25, 0xe700: -25, 0xc900: -55, 0x0960<<3 | 1: 150, 0x1e70<<3&0xffff | 1: -25} {
		celsiusIs(t, virtual(t, tmp102, nil, io([]byte{1}, 0x60, 0xa0), io([]byte{0}, byte(raw>>8), byte(raw))), celsius)
	}
	// In shutdown: woken up, with the other bits as they are.
	celsiusIs(t, virtual(t, tmp102, nil, io([]byte{1}, 0x61, 0xa0), io([]byte{1, 0x60, 0xa0}), io([]byte{0}, 0x19, 0)), 25)
	refused(t, tmp102, nil, "outside -55 to 150", io([]byte{1}, 0x60, 0xa0), io([]byte{0}, 0x80, 0x00))
}

// DS25095A, section 5.1.3: bits 11 to 0 in 1/16 °C, bit 12 is the sign, above it flags of the alarm.
func TestMCP9808(t *testing.T) {
	io := at(0x18)
	open := []i2ctest.IO{io([]byte{6}, 0x00, 0x54), io([]byte{7}, 0x04, 0x01), io([]byte{8, 3}), io([]byte{1, 0, 0})}
	for raw, celsius := range map[uint16]float64{0xc194: 25.25, 0x1ff0 | 0xc: -0.25, 0x1e70: -25, 0x0000: 0} {
		celsiusIs(t, virtual(t, mcp9808Driver, nil, append(open[:4:4], io([]byte{5}, byte(raw>>8), byte(raw)))...), celsius)
	}
	refused(t, mcp9808Driver, nil, "answers with id 0x0000", io([]byte{6}, 0, 0))
	refused(t, mcp9808Driver, nil, "answers with id 0x0201, a mcp9808 has 0x0400", open[0], io([]byte{7}, 0x02, 0x01))
	refused(t, mcp9808Driver, nil, "outside -40 to 125", append(open[:4:4], io([]byte{5}, 0x0f, 0xff))...)
}

func TestDS18B20(t *testing.T) {
	w1 := func(text string) sensors.Board {
		return sensortest.Board{Tree: fstest.MapFS{"sys/bus/w1/devices/28-0316a2795abc/w1_slave": file(text)}}
	}
	o := &ds18b20Options{"28-0316a2795abc"}
	for text, celsius := range map[string]float64{
		"5b 01 55 05 7f a5 a5 66 d3 : crc=d3 YES\n5b 01 55 05 7f a5 a5 66 d3 t=21687":  21.687,
		"5e ff 4b 46 7f ff 02 10 d3 : crc=d3 YES\n5e ff 4b 46 7f ff 02 10 d3 t=-10125": -10.125,
		"50 05 4b 46 7f ff 10 10 1c : crc=1c YES\n50 05 4b 46 7f ff 10 10 1c t=85000":  85, // really measured
	} {
		celsiusIs(t, read(t, ds18b20, o, w1(text)), celsius)
	}
	for text, words := range map[string]string{
		"5b 01 55 05 7f a5 a5 66 d4 : crc=d3 NO\n5b 01 55 05 7f a5 a5 66 d4 t=21687":   "checksum",
		"00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0":      "shorted",
		"50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000":  "power-on",
		"ff 07 4b 46 7f ff 0c 10 1c : crc=1c YES\nff 07 4b 46 7f ff 0c 10 1c t=127937": "outside -55 to 125",
		"rubbish": "not understood",
	} {
		_, err := sensors.ReadOnce(t.Context(), sensors.Config{Driver: "ds18b20", Timeout: 1e9, Options: o}, All, w1(text))
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
	if _, err := ds18b20.Open(t.Context(), &ds18b20Options{"28-000000000000"}, w1("")); err == nil || !strings.Contains(err.Error(), "there are 28-0316a2795abc") {
		t.Error(err)
	}
	if _, err := ds18b20.Open(t.Context(), o, sensortest.Board{}); err == nil || !strings.Contains(err.Error(), "dtoverlay=w1-gpio") {
		t.Error(err)
	}
}
