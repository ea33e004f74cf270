package main

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"fieldagent/sensors"
	"fieldagent/sensors/board"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

func (p *program) scanCommand() *cobra.Command {
	return &cobra.Command{
		Use: "scan", Short: "show buses, chips, lines and sensors of this board, and a configuration for them", Args: cobra.NoArgs,
		Long: "Shows what is connected. Nothing is written to any chip but the question what it is, and not even that where a byte could switch something.",
		RunE: func(*cobra.Command, []string) error {
			b := &board.Board{}
			defer b.Close()
			found := scanBuses(b)
			p.showBuses(found)
			chips, err := board.Chips("/dev")
			p.showChips(b.Files(), chips, err)
			kernel := kernelSensors(b.Files())
			p.showKernel(kernel)
			p.printf("\nTo paste into %s:\n\n%s", p.config, suggest(found, kernel, chips))
			return nil
		},
	}
}

// busFound is a bus and who answers on it.
type busFound struct {
	name, adapter string
	chips         []chipFound
	err           error
}

// chipFound is an address with what is likely to be there.
type chipFound struct {
	board.Found
	drivers []sensors.Driver
	sure    bool // the chip has said so
}

// scanBuses asks all buses at once: an emulated or stuck one takes its time for every address.
func scanBuses(b *board.Board) []busFound {
	buses, adapters := board.I2CBuses(b.Files())
	out := make([]busFound, len(buses))
	var wg sync.WaitGroup
	for i, name := range buses {
		wg.Go(func() {
			f := busFound{name: name, adapter: adapters[i]}
			var there []board.Found
			there, f.err = board.Probe(b.Files(), name)
			bus, err := b.I2C(name)
			if err != nil && f.err == nil {
				f.err = err
			}
			for _, x := range there {
				c := chipFound{Found: x}
				if x.Kernel == "" {
					c.drivers, c.sure = sensors.Likely(x.Address, drivers.All, bus)
				}
				f.chips = append(f.chips, c)
			}
			out[i] = f
		})
	}
	wg.Wait()
	return out
}

func (p *program) showBuses(found []busFound) {
	p.printf("I2C buses:\n")
	for _, f := range found {
		p.printf("  %s  %s\n", f.name, f.adapter)
		for _, c := range f.chips {
			p.printf("    %#02x  %s\n", c.Address, c.what())
		}
		if f.err != nil {
			p.printf("    %v\n", f.err)
		}
	}
	p.none(len(found), "switch I2C on (dtparam=i2c_arm=on in config.txt) and load its module: sudo modprobe i2c-dev")
}

// what says in words what is at an address.
func (c chipFound) what() string {
	if c.Kernel != "" {
		return c.Kernel + ", held by its kernel driver; read it with driver: kernel if that is a sensor"
	}
	var names []string
	for _, d := range c.drivers {
		names = append(names, d.Name)
	}
	switch {
	case c.sure:
		return names[0] + ", by its id"
	case len(names) > 0:
		names[0] = "likely " + names[0]
	}
	for _, o := range others {
		if c.Address >= o.first && c.Address <= o.last {
			names = append(names, o.chips)
		}
	}
	if len(names) == 0 {
		return "unknown"
	}
	return strings.Join(names, ", or ")
}

// others are chips that are no sensors of ours and often met, by their usual addresses.
var others = []struct {
	first, last uint16
	chips       string
}{
	{0x20, 0x27, "a port expander (mcp23017, pcf8574: dtoverlay=mcp23017 or pcf857x makes lines of it)"},
	{0x38, 0x3f, "a port expander (pcf8574a)"},
	{0x3c, 0x3d, "a display (ssd1306)"},
	{0x50, 0x57, "an EEPROM (at24c)"},
	{0x68, 0x68, "a clock (ds1307, ds1338, ds3231: dtoverlay=i2c-rtc)"},
	{0x69, 0x69, "a clock generator"},
	{0x70, 0x77, "a multiplexer (pca954x: dtoverlay=i2c-mux)"},
}

func (p *program) showChips(files fs.FS, chips []board.Chip, err error) {
	p.printf("GPIO chips:\n")
	for _, c := range chips {
		edges := map[string]string{"yes": "edges by interrupt", "no": "no interrupts: inputs are polled every 5 ms, shorter pulses are missed", "unknown": "whether edges have interrupts is not known before a line is used"}
		p.printf("  %s (%s), %d lines; %s\n", c.Label, c.Name, len(c.Lines), edges[c.Interrupts(files)])
		free := 0
		for _, l := range c.Lines {
			if l.Name == "" && !l.Used {
				free++
				continue
			}
			user := "free"
			if l.Used {
				user = "held by " + l.Consumer
				if l.Consumer == "" {
					user = "held by the kernel"
				}
			}
			direction := "in"
			if l.Output {
				direction = "out"
			}
			p.printf("    %s:%d  %s  %s, %s\n", c.Label, l.Offset, l.Name, direction, user)
		}
		if free > 0 {
			p.printf("    %d more without a name, free; write them as %s:OFFSET\n", free, c.Label)
		}
	}
	if err != nil {
		p.printf("  %v\n", err)
	} else {
		p.none(len(chips), "this machine has no GPIO lines, or its kernel no driver for them")
	}
}

// kernelSensor is one that the kernel reads.
type kernelSensor struct{ chip, dir string }

func kernelSensors(files fs.FS) (out []kernelSensor) {
	for _, kind := range []struct{ pattern, file string }{{"sys/bus/iio/devices/iio:device*", "name"}, {"sys/class/hwmon/hwmon*", "name"}, {"sys/class/thermal/thermal_zone*", "type"}, {"sys/bus/w1/devices/[0-9a-f][0-9a-f]-*", ""}} {
		dirs, _ := fs.Glob(files, kind.pattern)
		for _, d := range dirs {
			chip := path.Base(d)
			if kind.file != "" {
				b, err := fs.ReadFile(files, d+"/"+kind.file)
				if err != nil {
					continue
				}
				chip = strings.TrimSpace(string(b))
			}
			out = append(out, kernelSensor{chip, d})
		}
	}
	return out
}

func (p *program) showKernel(found []kernelSensor) {
	oneWire := 0
	p.printf("1-wire:\n")
	for _, k := range found {
		if strings.Contains(k.dir, "/w1/") {
			oneWire++
			p.printf("  %s  /%s\n", k.chip, k.dir)
		}
	}
	p.none(oneWire, "with a sensor on GPIO4, switch 1-wire on: dtoverlay=w1-gpio in config.txt")
	p.printf("Kernel sensors:\n")
	for _, k := range found {
		if !strings.Contains(k.dir, "/w1/") {
			p.printf("  %s  /%s\n", k.chip, k.dir)
		}
	}
	p.none(len(found)-oneWire, "the kernel has no sensor drivers loaded")
}

func (p *program) none(n int, why string) {
	if n == 0 {
		p.printf("  none: %s\n", why)
	}
}

// suggest writes a configuration for what was found. What is not sure stands in comments.
func suggest(found []busFound, kernel []kernelSensor, chips []board.Chip) string {
	var b strings.Builder
	taken := map[string]int{}
	name := func(base string) string {
		base = strings.Trim(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
				return r
			}
			return '-'
		}, strings.ToLower(base)), "-")
		if base == "" {
			base = "sensor"
		}
		if taken[base]++; taken[base] > 1 {
			base = fmt.Sprintf("%s-%d", base, taken[base])
			taken[base]++
		}
		return base
	}
	b.WriteString("sensors:\n  - {name: " + name("board") + ", driver: host, every: 30s}\n")
	for _, f := range found {
		for _, c := range f.chips {
			for _, d := range c.drivers {
				comment := "# "
				if c.sure || len(c.drivers) == 1 {
					comment = ""
				}
				fmt.Fprintf(&b, "  %s- {name: %s, driver: %s, bus: %s%s, every: 30s}\n", comment, name(d.Name), d.Name, f.name, addressOf(d, c.Address))
			}
		}
	}
	for _, k := range kernel {
		fmt.Fprintf(&b, "  - {name: %s, driver: kernel, chip: %q, every: 30s}   # /%s\n", name(k.chip), k.chip, k.dir)
	}
	var free []string
	for _, c := range chips {
		for _, l := range c.Lines {
			if !l.Used && l.Name != "" && len(free) < 3 {
				free = append(free, l.Name)
			}
		}
	}
	for i, s := range []string{"inputs:\n#   - {name: door, line: %q, pull: up, active_low: true, event: {type: door, qos: 2}}\n", "meters:\n#   - {name: energy, line: %q, pull: up, unit: kwh, pulses_per_unit: 1000}\n", "outputs:\n#   - {name: relay1, line: %q}\n"} {
		if i < len(free) {
			fmt.Fprintf(&b, "# "+s, free[i])
		}
	}
	return b.String()
}

// addressOf is the address where the driver takes one.
func addressOf(d sensors.Driver, addr uint16) string {
	if len(d.Addresses) < 2 {
		return ""
	}
	return fmt.Sprintf(", address: %#02x", addr)
}
