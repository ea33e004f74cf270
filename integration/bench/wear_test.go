package bench

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// produce has p producers store n events through the local API.
func (a *agentProcess) produce(b testing.TB, p, n, qos int) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range p {
		wg.Go(func() {
			for next.Add(1) <= int64(n) && !b.Failed() {
				a.emit(b, qos)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// BenchmarkWear counts bytes at the block device, from storing an event to its removal.
func BenchmarkWear(b *testing.B) {
	const n = 20000
	for qos, floor := range map[int]float64{1: 3500, 2: 6000} {
		b.Run(fmt.Sprintf("qos=%d", qos), func(b *testing.B) {
			br := mosquitto(b, 0)
			d := newDisk(b, 512)
			a := runAgent(b, filepath.Join(d.path, "state"), fmt.Sprintf(brokerSection, br.Addr(), 16, 256))
			for a.depth() < 0 {
			}
			a.produce(b, 32, n/10, qos)
			a.empty(b, nil)
			before, flushed := d.written(), d.flushes()
			a.produce(b, 32, n, qos)
			a.empty(b, nil)
			syncs := (d.flushes() - flushed) / n
			got := (d.written() - before) / n
			report(b, row{what: fmt.Sprintf("bytes at the device per event, QoS %d, 32 producers", qos), got: got, floor: floor, side: atMost, unit: "bytes/event",
				limits: "pages of a bbolt commit, shared by the events in it"})
			report(b, row{what: fmt.Sprintf("syncs of the device per event, QoS %d, 32 producers (no floor)", qos), got: syncs, floor: 0, side: atLeast, unit: "syncs/event", limits: "two for a commit, one for a mark"})
			if qos == 1 {
				flushed = d.flushes()
				one := perEvent(b, d, 300, stores[1])
				each := (d.flushes() - flushed) / 300
				report(b, row{what: "syncs of the device per event, one bbolt commit each (no floor)", got: each, floor: 0, side: atLeast, unit: "bbolt-syncs/event", limits: "the baseline"})
				report(b, row{what: "bytes at the device per event, one bbolt commit each (no floor)", got: one, floor: 0, side: atLeast, unit: "bbolt-bytes/event", limits: "the baseline"})
			}
		})
	}
}

// perEvent is what a store alone writes for one event.
func perEvent(b testing.TB, d *disk, n int, s store) float64 {
	b.Helper()
	add, stop, err := s.open(d.path)
	if err != nil {
		b.Fatal(err)
	}
	before := d.written()
	if _, err := each(1, n, add); err != nil {
		b.Fatal(err)
	}
	got := (d.written() - before) / float64(n)
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	return got
}

// BenchmarkOffline is the long offline period: a million events stored, drained, then single events.
func BenchmarkOffline(b *testing.B) {
	const n, singles = 1_000_000, 100
	br := mosquitto(b, 0)
	d := newDisk(b, 2048)
	state := filepath.Join(d.path, "state")
	single := func(a *agentProcess) float64 {
		before := d.written()
		for range singles {
			a.emit(b, 1)
			a.empty(b, nil)
		}
		return (d.written() - before) / singles
	}
	config := fmt.Sprintf(brokerSection, br.Addr(), 100, 1024)
	a := runAgent(b, state, config)
	a.empty(b, nil)
	single(a)
	first := single(a)
	a.stop(b)

	start := d.written()
	output(b, "fill", state, fmt.Sprint(n), "1", fmt.Sprint(1024<<20))
	a = runAgent(b, state, config)
	took := a.empty(b, nil)
	cycle := (d.written() - start) / n
	peak := statusKB(b, a.cmd.Process.Pid, "VmHWM") / 1024
	left := used(b, state) / (1 << 20)
	single(a)
	then := single(a)
	b.Logf("drained in %v; a single event %0.f bytes before, %.0f after", took, first, then)
	report(b, row{what: "1,000,000 events offline: bytes per single event, after / before", got: then / first, floor: 1.5, side: atMost, unit: "x", limits: "the database stays small: old rows lie in segments"})
	report(b, row{what: "1,000,000 events offline: disk left after the drain", got: left, floor: 32, side: atMost, unit: "MiB", limits: "the database never shrinks below its largest"})
	report(b, row{what: "1,000,000 events offline: resident memory while draining", got: peak, floor: 64, side: atMost, unit: "MB", limits: "mapped pages and one segment's buffer"})
	report(b, row{what: "1,000,000 events offline: bytes per event for fill and drain", got: cycle, floor: 3000, side: atMost, unit: "bytes/event", limits: "written once in the database, once in a segment"})
}
