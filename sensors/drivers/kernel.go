package drivers

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"

	"fieldagent/sensors"
)

type kernelOptions struct {
	Chip     string   `config:"chip,required" doc:"Name of the chip: an IIO or hwmon name (bme280, k10temp), a thermal zone's type (cpu-thermal), or a 1-wire id (28-0316a2795abc)."`
	Channels []string `config:"channels" doc:"Which channels, such as temp or in_temp; all that are known when not given."`
	Index    int      `config:"index" default:"0" min:"0" max:"63" doc:"Which one, when several chips have that name."`
}

// kernelQuantity maps the kernel's channel types to names and units. Sources: Documentation/ABI/testing/sysfs-bus-iio and Documentation/hwmon/sysfs-interface.rst.
type kernelQuantity struct {
	iio, hwmon        string
	name              string
	iioBy, hwmonBy    float64 // factor from the kernel's unit to ours
	precision         int
	unit, class       string
	smallest, largest float64
}

var kernelQuantities = []kernelQuantity{
	{"temp", "temp", "temperature_celsius", 1e-3, 1e-3, 3, "°C", "temperature", -273.15, 1500},
	{"humidityrelative", "humidity", "relative_humidity_percent", 1e-3, 1e-3, 2, "%", "humidity", 0, 100},
	{"pressure", "", "pressure_hectopascal", 10, 0, 2, "hPa", "atmospheric_pressure", 0, 20000},
	{"illuminance", "", "illuminance_lux", 1, 0, 2, "lx", "illuminance", 0, 0},
	{"concentration_co2", "", "co2_ppm", 1e4, 0, 0, "ppm", "carbon_dioxide", 0, 0},
	{"voltage", "in", "voltage_volts", 1e-3, 1e-3, 3, "V", "voltage", 0, 0},
	{"current", "curr", "current_amperes", 1e-3, 1e-3, 3, "A", "current", 0, 0},
	{"power", "power", "power_watts", 1e-3, 1e-6, 3, "W", "power", 0, 0},
	{"", "fan", "fan_rpm", 0, 1, 0, "rpm", "", 0, 0},
	{"distance", "", "distance_metres", 1, 0, 3, "m", "distance", 0, 0},
}

var kernel = sensors.Driver{
	Name:       "kernel",
	Summary:    "anything the kernel has a driver for: IIO, hwmon, thermal zones, 1-wire thermometers; by chip name",
	Options:    func() any { return &kernelOptions{} },
	Quantities: kernelList(),
	AnyValue:   true, // numbered: voltage2_volts
	Example:    "{name: cpu, driver: kernel, chip: cpu-thermal, every: 30s}",
	Open: func(_ context.Context, opts any, b sensors.Board) (sensors.Sensor, error) {
		k := &kernelSensor{opts: opts.(*kernelOptions), files: b.Files()}
		return k, k.find()
	},
}

func kernelList() []sensors.Quantity {
	var out []sensors.Quantity
	for _, q := range kernelQuantities {
		out = append(out, sensors.Quantity{Name: q.name, Unit: q.unit, DeviceClass: q.class, StateClass: "measurement", Min: q.smallest, Max: q.largest})
	}
	return out
}

type kernelSensor struct {
	opts     *kernelOptions
	files    fs.FS
	channels []kernelChannel
}

type kernelChannel struct {
	label     string // as the kernel names it: in_temp, temp1
	value     string // file
	scale     string // files, "" none
	offset    string
	by        float64
	name      string
	precision int
}

// find looks the chip up by its name; numbers change from boot to boot.
func (k *kernelSensor) find() error {
	var seen []string
	matches := func(name, dir string) bool {
		seen = append(seen, name)
		return name == k.opts.Chip
	}
	var dirs []string
	for _, pattern := range []string{"sys/bus/iio/devices/iio:device*", "sys/class/hwmon/hwmon*"} {
		found, _ := fs.Glob(k.files, pattern)
		for _, d := range found {
			if name, err := readString(k.files, d+"/name"); err == nil && matches(name, d) {
				dirs = append(dirs, d)
			}
		}
	}
	zones, _ := fs.Glob(k.files, "sys/class/thermal/thermal_zone*")
	for _, z := range zones {
		if kind, err := readString(k.files, z+"/type"); err == nil && matches(kind, z) {
			dirs = append(dirs, z)
		}
	}
	wires, _ := fs.Glob(k.files, "sys/bus/w1/devices/*-*")
	for _, w := range wires {
		if matches(path.Base(w), w) {
			dirs = append(dirs, w)
		}
	}
	if k.opts.Index >= len(dirs) {
		sort.Strings(seen)
		return fmt.Errorf("chip %q (index %d): not found; the kernel has: %s. Is its overlay in config.txt, and its module loaded?", k.opts.Chip, k.opts.Index, strings.Join(seen, ", "))
	}
	dir := dirs[k.opts.Index]
	switch {
	case strings.Contains(dir, "/thermal/"):
		k.channels = []kernelChannel{{label: "temp", value: dir + "/temp", by: 1e-3, name: "temperature_celsius", precision: 1}}
	case strings.Contains(dir, "/w1/"):
		k.channels = []kernelChannel{{label: "temperature", value: dir + "/temperature", by: 1e-3, name: "temperature_celsius", precision: 3}}
	case strings.Contains(dir, "/iio/"):
		k.iio(dir)
	default:
		k.hwmon(dir)
	}
	return k.choose(dir)
}

func (k *kernelSensor) iio(dir string) {
	for _, q := range kernelQuantities {
		if q.iio == "" {
			continue
		}
		for _, kind := range []string{"_input", "_raw"} {
			files, _ := fs.Glob(k.files, dir+"/in_"+q.iio+"*"+kind)
			for _, f := range files {
				label := strings.TrimSuffix(path.Base(f), kind)
				index := strings.TrimPrefix(label, "in_"+q.iio)
				c := kernelChannel{label: label, value: f, by: q.iioBy, name: numbered(q.name, index), precision: q.precision}
				if kind == "_raw" {
					c.scale = k.first(dir+"/"+label+"_scale", dir+"/in_"+q.iio+"_scale")
					c.offset = k.first(dir+"/"+label+"_offset", dir+"/in_"+q.iio+"_offset")
				}
				if !k.has(label) {
					k.channels = append(k.channels, c)
				}
			}
		}
	}
}

func (k *kernelSensor) has(label string) bool {
	for _, c := range k.channels {
		if c.label == label {
			return true
		}
	}
	return false
}

func (k *kernelSensor) first(names ...string) string {
	for _, n := range names {
		if _, err := fs.Stat(k.files, n); err == nil {
			return n
		}
	}
	return ""
}

func (k *kernelSensor) hwmon(dir string) {
	for _, q := range kernelQuantities {
		if q.hwmon == "" {
			continue
		}
		files, _ := fs.Glob(k.files, dir+"/"+q.hwmon+"[0-9]*_input")
		for _, f := range files {
			label := strings.TrimSuffix(path.Base(f), "_input")
			index := strings.TrimPrefix(label, q.hwmon)
			if len(files) == 1 {
				index = ""
			}
			k.channels = append(k.channels, kernelChannel{label: label, value: f, by: q.hwmonBy, name: numbered(q.name, index), precision: q.precision})
		}
	}
}

// numbered puts a channel's number before the unit: voltage_volts and 2 give voltage2_volts.
func numbered(name, index string) string {
	if index == "" {
		return name
	}
	i := strings.LastIndexByte(name, '_')
	return name[:i] + strings.ReplaceAll(index, "-", "_") + name[i:]
}

func (k *kernelSensor) choose(dir string) error {
	all := k.channels
	if len(k.opts.Channels) > 0 {
		k.channels = nil
		var labels []string
		for _, c := range all {
			labels = append(labels, c.label)
		}
		for _, want := range k.opts.Channels {
			found := false
			for _, c := range all {
				if c.label == want {
					k.channels = append(k.channels, c)
					found = true
				}
			}
			if !found {
				return fmt.Errorf("channel %q: %s has %s", want, k.opts.Chip, strings.Join(labels, ", "))
			}
		}
	}
	if len(k.channels) == 0 {
		return fmt.Errorf("/%s: no channel that this driver knows", dir)
	}
	return nil
}

// Read reads every chosen channel: (raw + offset) × scale, in the units of our names.
func (k *kernelSensor) Read(context.Context) ([]sensors.Value, error) {
	var out []sensors.Value
	for _, c := range k.channels {
		v, err := readFloat(k.files, c.value)
		if err != nil {
			return nil, fmt.Errorf("channel %s: %w", c.label, err)
		}
		if c.offset != "" {
			o, err := readFloat(k.files, c.offset)
			if err != nil {
				return nil, fmt.Errorf("channel %s: %w", c.label, err)
			}
			v += o
		}
		if c.scale != "" {
			s, err := readFloat(k.files, c.scale)
			if err != nil {
				return nil, fmt.Errorf("channel %s: %w", c.label, err)
			}
			v *= s
		}
		out = append(out, sensors.Value{Name: c.name, Number: v * c.by, Precision: c.precision})
	}
	return out, nil
}
