package agent

import (
	"context"
	"testing"

	"fieldagent/queue"
)

// What a sensor keeps is there after a restart, and belongs to it alone.
func TestSensorMemory(t *testing.T) {
	dir := t.TempDir()
	open := func(fn func(m sensorMemory)) {
		q, err := queue.Open(dir, queue.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		fn(sensorMemory{q})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	open(func(m sensorMemory) {
		if v, err := m.Load("kitchen/baseline"); v != nil || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		if err := m.Keep("kitchen/baseline", []byte("42")); err != nil {
			t.Error(err)
		}
	})
	open(func(m sensorMemory) {
		if v, err := m.Load("kitchen/baseline"); string(v) != "42" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		if v, err := m.Load("office/baseline"); v != nil || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	})
}
