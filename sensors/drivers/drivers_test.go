package drivers

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"

	"periph.io/x/conn/v3/i2c/i2ctest"
)

// TestContract holds for every driver in the list.
func TestContract(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range All {
		if seen[d.Name] {
			t.Errorf("two drivers are called %s", d.Name)
		}
		seen[d.Name] = true
		t.Run(d.Name, func(t *testing.T) { sensortest.Contract(t, d) })
	}
}

// read opens a driver on a board and reads it once.
func read(t *testing.T, d sensors.Driver, opts any, b sensors.Board) map[string]float64 {
	t.Helper()
	v, err := sensors.ReadOnce(t.Context(), sensors.Config{Name: "x", Driver: d.Name, Timeout: 5 * time.Second, Options: opts}, All, b)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, q := range d.Quantities {
		known[q.Name] = true
	}
	m := map[string]float64{}
	for _, x := range v {
		m[x.Name] = x.Number
		if !known[x.Name] && !d.AnyValue {
			t.Errorf("%s returns %s, which is none of its quantities", d.Name, x.Name)
		}
	}
	return m
}

// virtual opens a driver on a recorded bus i2c-1 and reads it once, in virtual time: chips that take long cost nothing.
func virtual(t *testing.T, d sensors.Driver, opts any, ops ...i2ctest.IO) (got map[string]float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { got = read(t, d, opts, sensortest.Recorded(t, ops...)) })
	return got
}

// refused is virtual for traffic that must not become a reading; the error must have these words.
func refused(t *testing.T, d sensors.Driver, opts any, words string, ops ...i2ctest.IO) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v, err := sensors.ReadOnce(t.Context(), sensors.Config{Name: "x", Driver: d.Name, Timeout: 10 * time.Second, Options: opts}, All, sensortest.Recorded(t, ops...))
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, %v: want an error with %q", v, err, words)
		}
	})
}

func want(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok || g < w-1e-6 || g > w+1e-6 {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d values, want %d: %v", len(got), len(want), got)
	}
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }

// A Raspberry Pi 4 on Wi-Fi with a bad power supply.
var pi4 = fstest.MapFS{
	"sys/class/thermal/thermal_zone0/type": file("cpu-thermal"),
	"sys/class/thermal/thermal_zone0/temp": file("48312"),
	"proc/loadavg":                         file("0.52 0.58 0.59 1/173 1234"),
	"proc/meminfo":                         file("MemTotal:        3884384 kB\nMemFree:         2300000 kB\nMemAvailable:    2913288 kB"),
	"proc/uptime":                          file("350735.47 1363203.77"),
	"sys/devices/platform/soc/soc:firmware/get_throttled": file("50005"),
	"proc/net/route":                                            file("Iface\tDestination\tGateway\nwlan0\t00000000\t0101A8C0\t0003\nwlan0\t0001A8C0\t00000000\t0001"),
	"proc/net/wireless":                                         file("Inter-| sta-|   Quality        |\n face | tus | link level noise |\n wlan0: 0000   58.  -52.  -256        0"),
	"sys/class/net/wlan0/operstate":                             file("up"),
	"sys/class/hwmon/hwmon0/name":                               file("cpu_thermal"),
	"sys/class/hwmon/hwmon0/temp1_input":                        file("48312"),
	"sys/class/hwmon/hwmon1/name":                               file("rpi_volt"),
	"sys/bus/w1/devices/28-0316a2795abc/temperature":            file("21687"),
	"sys/bus/iio/devices/iio:device0/name":                      file("bme280"),
	"sys/bus/iio/devices/iio:device0/in_temp_input":             file("21530"),
	"sys/bus/iio/devices/iio:device0/in_pressure_input":         file("101.325000000"),
	"sys/bus/iio/devices/iio:device0/in_humidityrelative_input": file("40100"),
	"sys/bus/iio/devices/iio:device1/name":                      file("ads1015"),
	"sys/bus/iio/devices/iio:device1/in_voltage0_raw":           file("1000"),
	"sys/bus/iio/devices/iio:device1/in_voltage0_scale":         file("3.000000000"),
	"sys/bus/iio/devices/iio:device1/in_voltage1_raw":           file("-5"),
	"sys/bus/iio/devices/iio:device1/in_voltage1_scale":         file("2.000000000"),
	"sys/bus/iio/devices/iio:device2/name":                      file("mcp9600"),
	"sys/bus/iio/devices/iio:device2/in_temp_raw":               file("300"),
	"sys/bus/iio/devices/iio:device2/in_temp_offset":            file("20"),
	"sys/bus/iio/devices/iio:device2/in_temp_scale":             file("62.5"),
}

func TestHostOnPi(t *testing.T) {
	got := read(t, host, &hostOptions{Disk: "/"}, sensortest.Board{Tree: pi4})
	delete(got, "disk_used_percent") // of the machine that runs the test
	delete(got, "disk_free_bytes")
	want(t, got, map[string]float64{"cpu_temperature_celsius": 48.312, "load_1m": 0.52, "memory_used_percent": 100 * (3884384.0 - 2913288) / 3884384, "uptime_seconds": 350735.47,
		"throttled": 1, "under_voltage": 1, "link_up": 1, "wifi_signal_dbm": -52})
}

func TestHostHere(t *testing.T) {
	got := read(t, host, &hostOptions{Disk: "/"}, sensortest.Golden("/"))
	for _, name := range []string{"load_1m", "memory_used_percent", "disk_used_percent", "uptime_seconds"} {
		if v, ok := got[name]; !ok || v < 0 {
			t.Errorf("%s: %v %v", name, v, ok)
		}
	}
}

func TestKernel(t *testing.T) {
	b := sensortest.Board{Tree: pi4}
	want(t, read(t, kernel, &kernelOptions{Chip: "bme280"}, b), map[string]float64{"temperature_celsius": 21.53, "relative_humidity_percent": 40.1, "pressure_hectopascal": 1013.25})
	want(t, read(t, kernel, &kernelOptions{Chip: "ads1015"}, b), map[string]float64{"voltage0_volts": 3, "voltage1_volts": -0.01})
	want(t, read(t, kernel, &kernelOptions{Chip: "ads1015", Channels: []string{"in_voltage1"}}, b), map[string]float64{"voltage1_volts": -0.01})
	want(t, read(t, kernel, &kernelOptions{Chip: "mcp9600"}, b), map[string]float64{"temperature_celsius": 20})
	want(t, read(t, kernel, &kernelOptions{Chip: "28-0316a2795abc"}, b), map[string]float64{"temperature_celsius": 21.687})
	want(t, read(t, kernel, &kernelOptions{Chip: "cpu-thermal"}, b), map[string]float64{"temperature_celsius": 48.312})
	want(t, read(t, kernel, &kernelOptions{Chip: "cpu_thermal"}, b), map[string]float64{"temperature_celsius": 48.312})
	for _, c := range []struct {
		o    kernelOptions
		want string
	}{{kernelOptions{Chip: "bmp999"}, "the kernel has: 28-0316a2795abc, ads1015"}, {kernelOptions{Chip: "bme280", Index: 1}, "not found"}, {kernelOptions{Chip: "bme280", Channels: []string{"in_co2"}}, "in_temp"}} {
		if _, err := kernel.Open(t.Context(), &c.o, b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

func TestSimulated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &simulatedOptions{Value: "temperature_celsius", Wave: "sine", Mean: 20, Amplitude: 5, Period: 40 * time.Second, FailEvery: 4}
		s, err := simulated.Open(t.Context(), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range []float64{20, 25, 20} {
			v, err := s.Read(t.Context())
			if err != nil || v[0].Number < x-1e-6 || v[0].Number > x+1e-6 {
				t.Errorf("reading %d: %v %v, want %v", i, v, err, x)
			}
			<-time.After(10 * time.Second)
		}
		if _, err := s.Read(t.Context()); err == nil {
			t.Error("fail_every does not fail")
		}
		o.Delay = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Read(ctx); err == nil {
			t.Error("delay is not ended by its context")
		}
	})
}
