package drivers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"fieldagent/sensors"

	"golang.org/x/sys/unix"
)

type hostOptions struct {
	Disk      string `config:"disk" default:"/" local:"true" doc:"A path on the file system whose use is shown."`
	Interface string `config:"interface" doc:"Network interface whose link is shown; the one with the default route when not given."`
}

var host = sensors.Driver{
	Name:    "host",
	Summary: "the board itself: CPU temperature, load, memory, disk, uptime, throttling and under-voltage of a Pi, network link and Wi-Fi signal",
	Options: func() any { return &hostOptions{} },
	Quantities: []sensors.Quantity{
		{Name: "cpu_temperature_celsius", Unit: "°C", DeviceClass: "temperature", StateClass: "measurement", Min: -60, Max: 150},
		{Name: "load_1m", StateClass: "measurement"},
		{Name: "memory_used_percent", Unit: "%", StateClass: "measurement", Min: 0, Max: 100},
		{Name: "disk_used_percent", Unit: "%", StateClass: "measurement", Min: 0, Max: 100},
		{Name: "disk_free_bytes", Unit: "B", DeviceClass: "data_size", StateClass: "measurement"},
		{Name: "uptime_seconds", Unit: "s", DeviceClass: "duration", StateClass: "total_increasing"},
		{Name: "throttled", StateClass: "measurement", Min: 0, Max: 1},
		{Name: "under_voltage", StateClass: "measurement", Min: 0, Max: 1},
		{Name: "link_up", StateClass: "measurement", Min: 0, Max: 1},
		{Name: "wifi_signal_dbm", Unit: "dBm", DeviceClass: "signal_strength", StateClass: "measurement", Min: -120, Max: 0},
	},
	Example: "{name: board, driver: host, every: 30s}",
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		return hostSensor{opts.(*hostOptions), b.Files()}, nil
	},
}

type hostSensor struct {
	opts  *hostOptions
	files fs.FS
}

// Read returns what this machine has; what it lacks is left out.
func (h hostSensor) Read(context.Context) ([]sensors.Value, error) {
	var out []sensors.Value
	add := func(name string, v float64, precision int) {
		out = append(out, sensors.Value{Name: name, Number: v, Precision: precision})
	}
	if t, ok := h.temperature(); ok {
		add("cpu_temperature_celsius", t, 1)
	}
	load, err := readString(h.files, "proc/loadavg")
	if err != nil {
		return nil, err
	}
	one, _, _ := strings.Cut(load, " ")
	if v, err := strconv.ParseFloat(one, 64); err == nil {
		add("load_1m", v, 2)
	}
	used, err := h.memory()
	if err != nil {
		return nil, err
	}
	add("memory_used_percent", used, 1)
	var st unix.Statfs_t
	if err := unix.Statfs(h.opts.Disk, &st); err != nil {
		return nil, fmt.Errorf("disk %s: %w; set disk to another path", h.opts.Disk, err)
	}
	if st.Blocks > 0 {
		usable := st.Blocks - st.Bfree + st.Bavail
		add("disk_used_percent", 100*float64(st.Blocks-st.Bfree)/float64(max(usable, 1)), 1)
		add("disk_free_bytes", float64(st.Bavail)*float64(st.Bsize), 0)
	}
	up, err := readString(h.files, "proc/uptime")
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(up, " ")
	if v, err := strconv.ParseFloat(first, 64); err == nil {
		add("uptime_seconds", v, 0)
	}
	// Raspberry Pi firmware: bit 0 under-voltage now, bit 2 throttled now.
	if s, err := readString(h.files, "sys/devices/platform/soc/soc:firmware/get_throttled"); err == nil {
		if bits, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 32); err == nil {
			add("throttled", float64(bits>>2&1), 0)
			add("under_voltage", float64(bits&1), 0)
		}
	}
	if dev := h.device(); dev != "" {
		if s, err := readString(h.files, "sys/class/net/"+dev+"/operstate"); err == nil {
			up := 0.0
			if s == "up" || s == "unknown" {
				up = 1
			}
			add("link_up", up, 0)
		}
		if v, ok := h.wifi(dev); ok {
			add("wifi_signal_dbm", v, 0)
		}
	}
	return out, nil
}

// temperature finds the CPU's: a thermal zone of a known type, else hwmon's k10temp or coretemp.
func (h hostSensor) temperature() (float64, bool) {
	zones, _ := fs.Glob(h.files, "sys/class/thermal/thermal_zone*")
	for _, want := range []string{"cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc_thermal", "soc-thermal", "cpu0-thermal", "acpitz", ""} {
		for _, z := range zones {
			kind, _ := readString(h.files, z+"/type")
			if want != "" && kind != want {
				continue
			}
			if v, err := readFloat(h.files, z+"/temp"); err == nil {
				return v / 1000, true
			}
		}
	}
	mons, _ := fs.Glob(h.files, "sys/class/hwmon/hwmon*")
	for _, m := range mons {
		if name, _ := readString(h.files, m+"/name"); name == "k10temp" || name == "coretemp" || name == "cpu_thermal" {
			if v, err := readFloat(h.files, m+"/temp1_input"); err == nil {
				return v / 1000, true
			}
		}
	}
	return 0, false
}

func (h hostSensor) memory() (float64, error) {
	f, err := h.files.Open("proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total, available float64
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		v, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "MemTotal:":
			total = v
		case "MemAvailable:":
			available = v
		}
	}
	if total == 0 {
		return 0, errors.New("/proc/meminfo has no MemTotal")
	}
	return 100 * (total - available) / total, s.Err()
}

// device is the interface of the default route.
func (h hostSensor) device() string {
	if h.opts.Interface != "" {
		return h.opts.Interface
	}
	routes, _ := readString(h.files, "proc/net/route")
	for _, line := range strings.Split(routes, "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}

// wifi is the signal level column of /proc/net/wireless, in dBm.
func (h hostSensor) wifi(dev string) (float64, bool) {
	text, _ := readString(h.files, "proc/net/wireless")
	for _, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[0] == dev+":" {
			v, err := strconv.ParseFloat(strings.TrimSuffix(f[3], "."), 64)
			return v, err == nil
		}
	}
	return 0, false
}
