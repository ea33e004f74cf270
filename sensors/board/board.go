// Package board is the real hardware: each bus and each line is opened once, found by name.
package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/spi"
	"periph.io/x/host/v3/sysfs"
)

// Board is this machine.
type Board struct {
	mu    sync.Mutex
	buses map[string]*bus // by device name: i2c-1
}

var _ sensors.Board = (*Board)(nil)

// Files is the root of this machine's file system.
func (*Board) Files() fs.FS { return os.DirFS("/") }

// I2C opens a bus by its name: i2c-1 as below /dev; i2c-1/0x70/3, a channel of a multiplexer; or an adapter's name, for adapters whose number changes.
// A bus that could not be opened, or whose adapter went away, is opened again at the next call: adapters come and go.
func (b *Board) I2C(name string) (i2c.Bus, error) {
	n, err := BusNumber(b.Files(), name)
	if err != nil {
		return nil, fmt.Errorf("bus %s: %w", name, err)
	}
	dev := fmt.Sprintf("i2c-%d", n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.buses[dev]; old != nil && !old.gone.Load() {
		return old, nil
	}
	if err := openable("/dev/"+dev, "i2c", "switch I2C on (dtparam=i2c_arm=on in config.txt) and load its module: sudo modprobe i2c-dev"); err != nil {
		return nil, fmt.Errorf("bus %s: %w", name, err)
	}
	opened, err := sysfs.NewI2C(n)
	if err != nil {
		return nil, fmt.Errorf("bus %s: %w", name, err)
	}
	if b.buses == nil {
		b.buses = map[string]*bus{}
	}
	if old := b.buses[dev]; old != nil {
		go old.Close() // a transfer may still hang in it
	}
	b.buses[dev] = &bus{BusCloser: opened}
	return b.buses[dev], nil
}

// SPI opens a port by its name: spi0.0 is /dev/spidev0.0.
func (*Board) SPI(name string) (spi.PortCloser, error) {
	var n, cs int
	if _, err := fmt.Sscanf(name, "spi%d.%d", &n, &cs); err != nil {
		return nil, fmt.Errorf("bus %q: write it like spi0.0", name)
	}
	if err := openable(fmt.Sprintf("/dev/spidev%d.%d", n, cs), "spi", "switch SPI on (dtparam=spi=on in config.txt)"); err != nil {
		return nil, fmt.Errorf("bus %s: %w", name, err)
	}
	p, err := sysfs.NewSPI(n, cs)
	if err != nil {
		return nil, fmt.Errorf("bus %s: %w", name, err)
	}
	return p, nil
}

// openable says what is missing, and what mends it.
func openable(dev, group, missing string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s; %s", dev, missing)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no right to open %s; add the agent's user to its group: sudo usermod -aG %s fieldagent", dev, group)
	case err != nil:
		return err
	}
	return f.Close()
}

// Close closes every bus. One in which a transfer hangs is left to the end of the process.
func (b *Board) Close() error {
	b.mu.Lock()
	buses := b.buses
	b.buses = nil
	b.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		var faults []error
		for _, bus := range buses {
			faults = append(faults, bus.Close())
		}
		done <- errors.Join(faults...)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(200 * time.Millisecond):
		return errors.New("a bus hangs and is left open: " + strings.Join(names(buses), ", "))
	}
}
