package powercut

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/queue"
)

// TestPowerCutExt4 cuts the power below a real ext4.
func TestPowerCutExt4(t *testing.T) {
	program := workload(t)
	lives := []string{"-ops 100 -producers 3 -max 4194304 -kill", "-ops 700 -offline -small 600 -large 1200 -producers 16 -max 4194304", "-ops 500 -max 4194304 -kill", "-ops 60 -bury -max 4194304"}
	seed := drawSeed()
	j, err := RecordExt4(scratch(t), func(notes, dir string) (err error) {
		for i, life := range lives {
			args := append(strings.Fields(life), "-life", string(rune('a'+i)), "-seed", fmt.Sprint(seed+uint64(i)))
			err = errors.Join(err, RunLife(program, notes, filepath.Join(dir, "state"), args...))
		}
		return err
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	w := &Walk{Journal: j, Start: NewModel(), States: *onExt4, Seed: seed, Scratch: scratch(t), Check: CheckExt4(queue.Options{MaxSize: 4 << 20})}
	n, found := w.Run()
	t.Logf("seed %d: %d operations, %d states of ext4 checked, %d violations", seed, len(j.Ops()), n, len(found))
	if n < *onExt4*9/10 {
		t.Errorf("only %d states were checked, %d were asked for", n, *onExt4)
	}
	tell(t, w, nil, found)
}
