package sensortest

import (
	"context"
	"sync"
	"testing"

	"fieldagent/sensors"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Simulated is one bus, i2c-1, whose chips are a function: of the address, what is written and the space for the answer, to the answer.
func Simulated(tx func(addr uint16, w, r []byte) []byte) map[string]i2c.Bus {
	return map[string]i2c.Bus{"i2c-1": simulated(tx)}
}

type simulated func(addr uint16, w, r []byte) []byte

func (s simulated) String() string                  { return "i2c-1" }
func (s simulated) SetSpeed(physic.Frequency) error { return nil }

func (s simulated) Tx(addr uint16, w, r []byte) error {
	copy(r, s(addr, w, r))
	return nil
}

// Running is a set that runs.
type Running struct {
	stop func()
	mu   sync.Mutex
	got  []sensors.Reading
}

// Run runs a set until Stop.
func Run(t *testing.T, set *sensors.Set) *Running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &Running{}
	done := make(chan error, 1)
	go func() {
		done <- set.Run(ctx, func(x sensors.Reading) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, x)
		})
	}()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r
}

// Stop ends the set and returns what it reported.
func (r *Running) Stop() []sensors.Reading {
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}
