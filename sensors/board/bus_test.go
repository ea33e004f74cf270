package board

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"fieldagent/sensors"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/i2c/i2ctest"
)

var pi = fstest.MapFS{
	"sys/bus/i2c/devices/i2c-1/name":           {Data: []byte("bcm2835 (i2c@7e804000)\n")},
	"sys/bus/i2c/devices/i2c-11/name":          {Data: []byte("i2c-1-mux (chan_id 0)\n")},
	"sys/bus/i2c/devices/i2c-12/name":          {Data: []byte("i2c-1-mux (chan_id 1)\n")},
	"sys/bus/i2c/devices/i2c-20/name":          {Data: []byte("i2c-tiny-usb\n")},
	"sys/bus/i2c/devices/1-0070/channel-1":     {Data: []byte("../i2c-1/i2c-12"), Mode: fs.ModeSymlink},
	"sys/bus/i2c/devices/i2c-1/i2c-12/nothing": {},
}

func TestBusNames(t *testing.T) {
	for name, want := range map[string]int{"i2c-1": 1, "i2c-7": 7, "i2c-1/0x70/1": 12, "bcm2835 (i2c@7e804000)/0x70/1": 12, "i2c-tiny-usb": 20} {
		if n, err := BusNumber(pi, name); n != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", name, n, err, want)
		}
	}
	for name, want := range map[string]string{"i2c-1/0x70/2": "no channel 2", "i2c-1/0x71/1": "dtoverlay=i2c-mux,pca9548,addr=0x71", "i2c-1/99x/1": "no address", "usb": `"i2c-tiny-usb"`, "i2c-": "write it like i2c-1"} {
		if _, err := BusNumber(pi, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
	}
}

type failing struct {
	i2ctest.Record
	err error
}

func (f *failing) Tx(uint16, []byte, []byte) error { return f.err }
func (f *failing) Close() error                    { return nil }

// The kernel's error numbers, as periph passes them on, become what a sensor's message is made from.
func TestBusErrors(t *testing.T) {
	for number, want := range map[unix.Errno]error{unix.EREMOTEIO: sensors.ErrNoAnswer, unix.ENXIO: sensors.ErrNoAnswer, unix.ETIMEDOUT: sensors.ErrBusStuck, unix.EAGAIN: sensors.ErrBusStuck, unix.EIO: nil} {
		b := &bus{BusCloser: &failing{err: fmt.Errorf("sysfs-i2c: %v", number)}}
		err := b.Tx(0x48, []byte{0}, nil)
		if want != nil && !errors.Is(err, want) || want == nil && (errors.Is(err, sensors.ErrNoAnswer) || errors.Is(err, sensors.ErrBusStuck)) {
			t.Errorf("%v: %v", number, err)
		}
	}
	b := &bus{BusCloser: &failing{err: fmt.Errorf("sysfs-i2c: %v", unix.ENODEV)}}
	if b.Tx(0x48, []byte{0}, nil) == nil || !b.gone.Load() {
		t.Error("an adapter that is gone is not noticed")
	}
}

// A bus in which a transfer hangs does not hold up the end of the program.
func TestCloseOfAHangingBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := &hanging{quit: make(chan struct{})}
		defer close(hang.quit)
		b := &Board{buses: map[string]*bus{"i2c-1": {BusCloser: hang}}}
		began := time.Now()
		if err := b.Close(); err == nil || !strings.Contains(err.Error(), "i2c-1") || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

type hanging struct {
	i2ctest.Record
	quit chan struct{}
}

func (h *hanging) Close() error { <-h.quit; return nil }
