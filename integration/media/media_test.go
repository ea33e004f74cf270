package media

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	flips = flag.Int("flips", 1500, "damages to try")
	seed  = flag.Uint64("seed", 0, "of the damages; 0 draws one")
	only  = flag.Int("only", -1, "try this one only")
)

// limit is how long one damaged folder may take, on a busy machine.
const limit = 3 * time.Minute

// damage makes one damage of a file's content and says what it was.
func damage(rng *rand.Rand, data []byte) ([]byte, string) {
	const page = 4096
	at := rng.IntN(len(data))
	pages := len(data) / page
	switch rng.IntN(20) {
	case 0:
		p := rng.IntN(pages) * page
		clear(data[p : p+page])
		return data, fmt.Sprintf("page %d zeroed", p/page)
	case 1:
		return data[:at], fmt.Sprintf("cut to %d bytes", at)
	case 2:
		p, o := rng.IntN(pages)*page, rng.IntN(pages)*page
		copy(data[p:p+page], data[o:o+page])
		return data, fmt.Sprintf("page %d holds page %d", p/page, o/page)
	case 3:
		p := rng.IntN(pages) * page
		for i := range page {
			data[p+i] = byte(rng.Uint32())
		}
		return data, fmt.Sprintf("page %d is garbage", p/page)
	}
	bit := rng.IntN(8)
	data[at] ^= 1 << bit
	return data, fmt.Sprintf("bit %d of byte %d flipped", bit, at)
}

func TestMedia(t *testing.T) {
	base := scratch(t)
	f, err := newFolder(filepath.Join(base, "whole"))
	if err != nil {
		t.Fatal(err)
	}
	if told, err := f.try(base, -1, 0); told || err != nil {
		t.Fatalf("the folder without damage: damage %v, %v", told, err)
	}
	s := *seed
	if s == 0 {
		s = rand.Uint64() >> 16
	}
	var noticed, failed atomic.Int64
	tasks := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range tasks {
				told, err := f.try(base, i, s)
				if told {
					noticed.Add(1)
				}
				if err != nil && failed.Add(1) < 6 {
					t.Errorf("again with: -flips=%d -seed=%d -only=%d: %v", *flips, s, i, err)
				}
			}
		})
	}
	for i := range *flips {
		if *only < 0 || *only == i {
			tasks <- i
		}
	}
	close(tasks)
	workers.Wait()
	t.Logf("seed %d: %d damages tried, %d noticed, %d wrong", s, *flips, noticed.Load(), failed.Load())
	if *only < 0 && noticed.Load() < int64(*flips)/10 {
		t.Errorf("only %d of %d damages were noticed: they do not hit", noticed.Load(), *flips)
	}
}

// try damages one copy and judges it; i < 0 damages nothing.
func (f *folder) try(base string, i int, seed uint64) (told bool, err error) {
	dir := filepath.Join(base, fmt.Sprint("try", i))
	defer os.RemoveAll(dir)
	rng := rand.New(rand.NewPCG(seed, uint64(i)))
	name := f.files[0]
	if rng.IntN(10) < 3 {
		name = f.files[1+rng.IntN(len(f.files)-1)]
	}
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return false, err
	}
	what := "nothing"
	if i >= 0 {
		data, what = damage(rng, data)
	}
	if err := f.lay(dir, name, data); err != nil {
		return false, err
	}
	type result struct {
		told bool
		err  error
	}
	done := make(chan result, 1)
	go func() {
		told, err := f.judge(dir)
		done <- result{told, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			r.err = fmt.Errorf("%s: %s: %w", name, what, r.err)
		}
		return r.told, r.err
	case <-time.After(limit):
		return false, errors.Join(fmt.Errorf("%s: %s: hangs", name, what))
	}
}

// scratch is a folder in memory, where there is one.
func scratch(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "media"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}
