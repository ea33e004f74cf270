package board

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// busOf is a bus on which some addresses answer.
type busOf struct {
	there       []uint16
	none        unix.Errno
	noQuick     bool
	quicks, got []uint16
}

func (b *busOf) canQuick() bool { return !b.noQuick }

func (b *busOf) answer(addr uint16) error {
	if slices.Contains(b.there, addr) {
		return nil
	}
	return b.none
}

func (b *busOf) quick(addr uint16) error {
	b.quicks = append(b.quicks, addr)
	return b.answer(addr)
}

func (b *busOf) read(addr uint16) error {
	b.got = append(b.got, addr)
	return b.answer(addr)
}

func TestProbe(t *testing.T) {
	files := fstest.MapFS{
		"sys/bus/i2c/devices/1-0068/name":          {Data: []byte("ds3231\n")},
		"sys/bus/i2c/devices/1-0068/driver/module": {},
		"sys/bus/i2c/devices/1-0020/name":          {Data: []byte("unbound\n")},
		"sys/bus/i2c/devices/i2c-1/name":           {Data: []byte("bcm2835 (i2c@7e804000)\n")},
		"dev/i2c-10":                               {}, "dev/i2c-1": {},
	}
	b := &busOf{there: []uint16{0x20, 0x48, 0x50, 0x69}, none: unix.EREMOTEIO}
	found, err := probe(files, "i2c-1", b)
	if want := []Found{{0x20, ""}, {0x48, ""}, {0x50, ""}, {0x68, "ds3231"}, {0x69, ""}}; err != nil || !slices.Equal(found, want) {
		t.Errorf("found %v, %v; want %v", found, err, want)
	}
	for addr := uint16(0x50); addr <= 0x57; addr++ {
		if slices.Contains(b.quicks, addr) {
			t.Errorf("a write was begun at %#x, where EEPROMs live", addr)
		}
	}
	if slices.Contains(b.quicks, 0x68) || slices.Contains(b.got, 0x68) || slices.Contains(b.got, 0x69) {
		t.Error("a chip of the kernel's was asked, or a clock chip read")
	}

	slow := &busOf{noQuick: true, there: []uint16{0x69}, none: unix.ETIMEDOUT}
	if found, err := probe(fstest.MapFS{}, "i2c-1", slow); err == nil || len(found) > 0 || len(slow.quicks) > 0 {
		t.Errorf("stuck bus: %v, %v, %d quick writes", found, err, len(slow.quicks))
	}

	buses, adapters := I2CBuses(files)
	if !slices.Equal(buses, []string{"i2c-1", "i2c-10"}) || adapters[0] != "bcm2835 (i2c@7e804000)" {
		t.Errorf("buses %v %v", buses, adapters)
	}
}

func TestFindLine(t *testing.T) {
	chips := []Chip{
		{Path: "/dev/gpiochip0", Label: "pinctrl-bcm2711", Lines: []Line{{Offset: 0, Name: "ID_SDA"}, {Offset: 17, Name: "GPIO17"}}},
		{Path: "/dev/gpiochip1", Label: "raspberrypi-exp-gpio", Lines: []Line{{Offset: 0, Name: "BT_ON"}, {Offset: 1, Name: ""}}},
		{Path: "/dev/gpiochip2", Label: "mcp", Lines: []Line{{Offset: 0, Name: "GPIO17"}}},
	}
	for _, c := range []struct{ name, chip, fault string }{
		{"BT_ON", "raspberrypi-exp-gpio", ""},
		{"raspberrypi-exp-gpio:1", "raspberrypi-exp-gpio", ""},
		{"mcp:GPIO17", "mcp", ""},
		{"GPIO17", "", "2 lines have that name; write chip label and offset, such as pinctrl-bcm2711:17"},
		{"17", "", "no such line"},
		{"mcp:17", "", "no such line"},
		{"", "", "no such line"},
	} {
		chip, _, err := find(chips, c.name)
		if (err == nil) != (c.fault == "") || err == nil && chip.Label != c.chip || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q: %s, %v", c.name, chip.Label, err)
		}
	}
	if _, _, err := find(nil, "GPIO17"); err == nil || !strings.Contains(err.Error(), "may this user open them") {
		t.Errorf("no chips: %v", err)
	}
}
