package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Found is an address at which something answers.
type Found struct {
	Address uint16
	Kernel  string // name under which a kernel driver holds it; "" when it is free
}

// Constants of <linux/i2c.h> and <linux/i2c-dev.h>.
const (
	i2cSlave     = 0x0703
	i2cFuncs     = 0x0705
	i2cSMBus     = 0x0720
	funcQuick    = 0x00010000
	funcReadByte = 0x00020000
	smbusQuick   = 0
	smbusByte    = 1
	smbusRead    = 1
	smbusWrite   = 0
)

type smbusCall struct {
	readWrite byte
	command   byte
	size      uint32
	data      *[34]byte
}

// prober asks one address at a time whether somebody is there.
type prober interface {
	quick(addr uint16) error // address and write bit, no data
	read(addr uint16) error  // one byte
	canQuick() bool
}

// Probe looks for chips on a bus, such as i2c-1, as i2cdetect(8) does: no data is written to anybody. EEPROMs, which a cut-off write can spoil, are
// read instead. 0x69 is asked by its address only: clock chips there lock the bus when they are read.
func Probe(files fs.FS, bus string) ([]Found, error) {
	if err := openable("/dev/"+bus, "i2c", "load its module: sudo modprobe i2c-dev"); err != nil {
		return nil, err
	}
	f, err := os.OpenFile("/dev/"+bus, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &device{fd: int(f.Fd())}
	if err := p.ioctl(i2cFuncs, uintptr(unsafe.Pointer(&p.funcs))); err != nil {
		return nil, fmt.Errorf("%s: %w", bus, err)
	}
	return probe(files, bus, p)
}

func probe(files fs.FS, bus string, p prober) ([]Found, error) {
	var found []Found
	stuck, asked := 0, 0
	for addr := uint16(0x08); addr <= 0x77; addr++ {
		if name := holder(files, bus, addr); name != "" {
			found = append(found, Found{addr, name})
			continue
		}
		ask := p.quick
		if addr >= 0x30 && addr <= 0x37 || addr >= 0x50 && addr <= 0x5f || !p.canQuick() {
			if addr == 0x69 {
				continue
			}
			ask = p.read
		}
		asked++
		switch err := ask(addr); {
		case err == nil:
			found = append(found, Found{Address: addr})
		case errors.Is(err, unix.EBUSY):
			found = append(found, Found{addr, "a kernel driver"})
		case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EAGAIN):
			stuck++
		case errors.Is(err, unix.ENODEV):
			return found, errors.New("the adapter has gone")
		}
	}
	if stuck == asked {
		return found, errors.New("every address timed out: check that SDA and SCL are not held low, and their pull-ups")
	}
	return found, nil
}

// holder returns the name of the chip for which a kernel driver holds an address: "" none does.
func holder(files fs.FS, bus string, addr uint16) string {
	dir := fmt.Sprintf("sys/bus/i2c/devices/%s-%04x", strings.TrimPrefix(bus, "i2c-"), addr)
	if _, err := fs.Stat(files, dir+"/driver"); err != nil {
		return ""
	}
	name, err := fs.ReadFile(files, dir+"/name")
	if err != nil {
		return "a kernel driver"
	}
	return strings.TrimSpace(string(name))
}

// I2CBuses lists the buses that have a device node, in order of their numbers, with the names of their adapters.
func I2CBuses(files fs.FS) (buses, adapters []string) {
	paths, _ := fs.Glob(files, "dev/i2c-*")
	number := func(p string) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(path.Base(p), "i2c-"))
		return n
	}
	slices.SortFunc(paths, func(a, b string) int { return number(a) - number(b) })
	for _, p := range paths {
		name, _ := fs.ReadFile(files, "sys/bus/i2c/devices/"+path.Base(p)+"/name")
		buses, adapters = append(buses, path.Base(p)), append(adapters, strings.TrimSpace(string(name)))
	}
	return buses, adapters
}

// device is an opened /dev/i2c-N.
type device struct {
	fd    int
	funcs uint64
}

func (d *device) ioctl(request, arg uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), request, arg); e != 0 {
		return e
	}
	return nil
}

func (d *device) canQuick() bool { return d.funcs&funcQuick != 0 }

func (d *device) smbus(addr uint16, call smbusCall) error {
	if err := d.ioctl(i2cSlave, uintptr(addr)); err != nil {
		return err
	}
	return d.ioctl(i2cSMBus, uintptr(unsafe.Pointer(&call)))
}

func (d *device) quick(addr uint16) error {
	return d.smbus(addr, smbusCall{readWrite: smbusWrite, size: smbusQuick})
}

func (d *device) read(addr uint16) error {
	if d.funcs&funcReadByte == 0 {
		return unix.EOPNOTSUPP
	}
	return d.smbus(addr, smbusCall{readWrite: smbusRead, size: smbusByte, data: new([34]byte)})
}
