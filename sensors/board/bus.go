package board

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"fieldagent/sensors"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/i2c"
)

// bus is an opened I2C bus.
type bus struct {
	i2c.BusCloser
	gone atomic.Bool // its adapter went away
}

// Tx does one transfer. What went wrong is told apart: no answer, a stuck bus, an adapter that is gone.
func (b *bus) Tx(addr uint16, w, r []byte) error {
	err := b.BusCloser.Tx(addr, w, r)
	switch {
	case err == nil:
		return nil
	case says(err, unix.ENXIO, unix.EREMOTEIO): // Documentation/i2c/fault-codes.rst: no acknowledgement
		return fmt.Errorf("%w (%v)", sensors.ErrNoAnswer, err)
	case says(err, unix.ETIMEDOUT, unix.EAGAIN, unix.EBUSY): // the same: held too long, arbitration lost, bus busy
		return fmt.Errorf("%w (%v)", sensors.ErrBusStuck, err)
	case says(err, unix.ENODEV, unix.EBADF):
		b.gone.Store(true)
		return fmt.Errorf("the adapter has gone: %w", err)
	}
	return err
}

// says tells whether err is one of these. periph keeps only the text of an error number.
func says(err error, numbers ...unix.Errno) bool {
	return slices.ContainsFunc(numbers, func(n unix.Errno) bool { return strings.HasSuffix(err.Error(), n.Error()) })
}

// BusNumber finds N of /dev/i2c-N for a name as I2C takes it, in the files of a system.
func BusNumber(files fs.FS, name string) (int, error) {
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "i2c-")); err == nil && strings.HasPrefix(name, "i2c-") {
		return n, nil
	}
	if parts := strings.Split(name, "/"); len(parts) == 3 {
		return muxChannel(files, parts[0], parts[1], parts[2])
	}
	dirs, _ := fs.Glob(files, "sys/bus/i2c/devices/i2c-*")
	var known []string
	found := -1
	for _, d := range dirs {
		b, err := fs.ReadFile(files, d+"/name")
		if err != nil {
			continue
		}
		adapter := strings.TrimSpace(string(b))
		known = append(known, strconv.Quote(adapter))
		if adapter != name {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("two adapters have that name; write i2c-1")
		}
		found, _ = strconv.Atoi(strings.TrimPrefix(path.Base(d), "i2c-"))
	}
	if found < 0 {
		return 0, fmt.Errorf("write it like i2c-1, i2c-1/0x70/3 (a channel of a multiplexer), or name an adapter: this machine has %s", strings.Join(known, ", "))
	}
	return found, nil
}

// muxChannel follows the link that the kernel makes for each channel of a multiplexer (i2c-mux.c): 1-0070/channel-3 → i2c-14.
func muxChannel(files fs.FS, parent, addr, channel string) (int, error) {
	p, err := BusNumber(files, parent)
	if err != nil {
		return 0, err
	}
	a, err := strconv.ParseUint(addr, 0, 7)
	if err != nil {
		return 0, fmt.Errorf("%q is no address of a multiplexer; write it like i2c-1/0x70/3", addr)
	}
	link := fmt.Sprintf("sys/bus/i2c/devices/%d-%04x/channel-%s", p, a, channel)
	to, err := fs.ReadLink(files, link)
	if err != nil {
		return 0, fmt.Errorf("the kernel knows no channel %s of a multiplexer at %s; add it in config.txt, such as dtoverlay=i2c-mux,pca9548,addr=%s (no /%s)", channel, addr, addr, link)
	}
	return strconv.Atoi(strings.TrimPrefix(path.Base(to), "i2c-"))
}

func names(buses map[string]*bus) []string {
	var out []string
	for name := range buses {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
