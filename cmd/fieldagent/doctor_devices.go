package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"fieldagent/agent"
	"fieldagent/sensors"
	"fieldagent/sensors/board"
)

// account is the user whose rights count: the service's, where there is one.
type account struct {
	name   string
	uid    uint32
	groups []uint32
	names  []string // of the groups
	err    error    // why it could not be looked up
}

// serviceAccount looks fieldagent up, and takes whoever runs this where there is no such user.
func serviceAccount() account {
	u, err := user.Lookup("fieldagent")
	if err != nil {
		a := account{name: "fieldagent", err: err}
		if u, err = user.Current(); err != nil {
			return a
		}
		a.fill(u)
		return a
	}
	a := account{}
	a.fill(u)
	return a
}

func (a *account) fill(u *user.User) {
	a.name = u.Username
	n, _ := strconv.ParseUint(u.Uid, 10, 32)
	a.uid = uint32(n)
	ids, _ := u.GroupIds()
	for _, id := range ids {
		n, _ := strconv.ParseUint(id, 10, 32)
		a.groups = append(a.groups, uint32(n))
		if g, err := user.LookupGroupId(id); err == nil {
			a.names = append(a.names, g.Name)
		}
	}
}

// may says whether the mode bits let the account do what want says (4 read, 2 write, 6 both).
func (a account) may(info fs.FileInfo, want fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case a.uid == 0 || !ok:
		return true
	case st.Uid == a.uid:
		return mode>>6&want == want
	case slices.Contains(a.groups, st.Gid):
		return mode>>3&want == want
	}
	return mode&want == want
}

// account checks that the service's user exists and is in the groups that this configuration needs.
func (d *doctor) account(cfg agent.Config) {
	if d.who.err != nil {
		if d.info == nil {
			return // not installed as a service
		}
		d.check("user fieldagent", errors.New("does not exist: sudo systemd-sysusers, then sudo systemctl restart fieldagent"))
		return
	}
	need := []string{}
	i2c, spi := buses(cfg)
	if len(i2c) > 0 {
		need = append(need, "i2c")
	}
	if len(spi) > 0 {
		need = append(need, "spi")
	}
	if usesLines(cfg) {
		need = append(need, "gpio")
	}
	for _, g := range need {
		if d.who.uid == 0 || slices.Contains(d.who.names, g) {
			d.check("group "+g, nil)
			continue
		}
		d.check("group "+g, fmt.Errorf("%s is not in it: sudo groupadd -rf %s && sudo usermod -aG %s %s && sudo systemctl restart fieldagent", d.who.name, g, g, d.who.name))
	}
}

// buses are those that sensors name.
func buses(cfg agent.Config) (i2c, spi []string) {
	for _, c := range cfg.Sensors {
		p, ok := sensors.PlaceOf(c)
		switch {
		case !ok:
		case strings.HasPrefix(p.Bus, "spi"):
			spi = append(spi, p.Bus)
		default:
			i2c = append(i2c, p.Bus)
		}
	}
	slices.Sort(i2c)
	slices.Sort(spi)
	return slices.Compact(i2c), slices.Compact(spi)
}

func usesLines(cfg agent.Config) bool { return len(cfg.Inputs)+len(cfg.Meters)+len(cfg.Outputs) > 0 }

// devices checks what the configuration names: is it there, is its module loaded, may the service open it.
func (d *doctor) devices(cfg agent.Config) {
	i2c, spi := buses(cfg)
	for _, name := range i2c {
		d.check("bus "+name, d.bus(name))
	}
	for _, name := range spi {
		port := "dev/spidev" + strings.TrimPrefix(name, "spi")
		d.check("bus "+name, d.device(port, func() error {
			return fmt.Errorf("there is no /%s: is SPI on (dtparam=spi=on in config.txt, then sudo reboot), is the name right?", port)
		}, "spi"))
	}
	if !usesLines(cfg) {
		return
	}
	chips, _ := fs.Glob(os.DirFS(d.root), "dev/gpiochip*")
	if len(chips) == 0 {
		d.check("GPIO", errors.New("no /dev/gpiochip*: this board or kernel has no GPIO; fieldagent scan shows what there is"))
	}
	for _, c := range chips {
		d.check("GPIO /"+c, d.device(c, nil, "gpio"))
	}
	if len(chips) > 0 && d.root == "/" {
		d.lines(cfg)
	}
}

// bus checks an I2C bus by its number, by its adapter's name, or as a channel of a multiplexer.
func (d *doctor) bus(name string) error {
	base, _, channel := strings.Cut(name, "/")
	if strings.HasPrefix(base, "i2c-") {
		if err := d.device("dev/"+base, func() error { return d.noBus(base) }, "i2c"); err != nil || !channel {
			return err
		}
	}
	n, err := board.BusNumber(os.DirFS(d.root), name)
	if err != nil {
		return err
	}
	name = fmt.Sprintf("i2c-%d", n)
	return d.device("dev/"+name, func() error { return d.noBus(name) }, "i2c")
}

func (d *doctor) device(name string, missing func() error, group string) error {
	info, err := os.Stat(filepath.Join(d.root, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing()
	case err != nil:
		return err
	case d.who.may(info, 6):
		return nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if g, err := user.LookupGroupId(strconv.Itoa(int(st.Gid))); err == nil && g.Name == group {
			return fmt.Errorf("%s may not open it: sudo usermod -aG %s %s && sudo systemctl restart fieldagent", d.who.name, group, d.who.name)
		}
	}
	return fmt.Errorf("/%s does not belong to group %s: sudo udevadm control --reload && sudo udevadm trigger (rules: /usr/lib/udev/rules.d/70-fieldagent.rules)", name, group)
}

// noBus says why there is no /dev/i2c-N: the module, the overlay, or the number.
func (d *doctor) noBus(name string) error {
	if !d.exists("sys/module/i2c_dev") && !d.exists("sys/class/i2c-dev") {
		return errors.New("the module i2c-dev is not loaded: sudo modprobe i2c-dev (at boot: /usr/lib/modules-load.d/fieldagent.conf)")
	}
	if others, _ := fs.Glob(os.DirFS(d.root), "dev/i2c-*"); len(others) > 0 {
		return fmt.Errorf("there is no /dev/%s, only /%s: correct bus in the configuration, or switch that bus on", name, strings.Join(others, ", /"))
	}
	for _, file := range []string{"boot/firmware/config.txt", "boot/config.txt"} {
		if text := d.read(file); text != "" {
			if slices.Contains(strings.Fields(text), "dtparam=i2c_arm=on") {
				return fmt.Errorf("/%s switches I2C on, but there is no /dev/%s: sudo reboot", file, name)
			}
			return fmt.Errorf("I2C is off: echo dtparam=i2c_arm=on | sudo tee -a /%s && sudo reboot", file)
		}
	}
	return fmt.Errorf("there is no /dev/%s and no I2C bus at all: switch I2C on in the device tree of this board", name)
}
