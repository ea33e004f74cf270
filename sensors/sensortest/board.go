// Package sensortest has what tests of drivers need: recorded buses, simulated lines, golden trees, and the contract that every driver must pass.
package sensortest

import (
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/i2c/i2ctest"
	"periph.io/x/conn/v3/spi"
)

// Board is a board made of recorded buses and a tree of files.
type Board struct {
	Buses map[string]i2c.Bus
	Ports map[string]spi.PortCloser
	Tree  fs.FS
}

var _ sensors.Board = Board{}

// I2C returns the bus of that name.
func (b Board) I2C(name string) (i2c.Bus, error) {
	if bus := b.Buses[name]; bus != nil {
		return bus, nil
	}
	return nil, fmt.Errorf("bus %s: there is no /dev/%s", name, name)
}

// SPI returns the port of that name.
func (b Board) SPI(name string) (spi.PortCloser, error) {
	if p := b.Ports[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("bus %s: there is no such port", name)
}

// Files returns the tree; an empty one when there is none.
func (b Board) Files() fs.FS {
	if b.Tree == nil {
		return fstest.MapFS{}
	}
	return b.Tree
}

// Recorded is a board with one bus, i2c-1, that expects exactly this traffic; the test fails when something else comes, or when something is left over.
func Recorded(t *testing.T, ops ...i2ctest.IO) Board {
	t.Helper()
	p := &i2ctest.Playback{Ops: ops, DontPanic: true}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("recorded bus: %v", err)
		}
	})
	return Board{Buses: map[string]i2c.Bus{"i2c-1": p}}
}

// Golden is a board whose files are a folder of testdata.
func Golden(dir string) Board { return Board{Tree: os.DirFS(dir)} }
