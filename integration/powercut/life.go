package powercut

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Source is the folder of the package under test, seen from the folder of this one.
const Source = "../../queue"

// Change is a text in a source file of package queue that a control replaces.
type Change struct{ File, Old, New string }

// BuildWorkload builds the workload program. Changes make a deliberately wrong one; each must be found exactly once.
func BuildWorkload(out string, changes ...Change) error {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, c := range changes {
		name, err := filepath.Abs(filepath.Join(Source, c.File))
		if err != nil {
			return err
		}
		from := name
		if done := overlay.Replace[name]; done != "" {
			from = done
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if n := strings.Count(string(text), c.Old); n != 1 {
			return fmt.Errorf("%s has %q %d times: the control is out of date", c.File, c.Old, n)
		}
		changed := fmt.Sprintf("%s.%d.go", out, i)
		if err := os.WriteFile(changed, bytes.Replace(text, []byte(c.Old), []byte(c.New), 1), 0o600); err != nil {
			return err
		}
		overlay.Replace[name] = changed
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out+".json", list, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-overlay", out+".json", "-o", out, "./workload")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build workload: %w\n%s", err, text)
	}
	return nil
}

// RunLife runs the workload program once.
func RunLife(program, notes, state string, args ...string) error {
	cmd := exec.Command(program, append([]string{"-disk", notes, "-state", state}, args...)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("workload %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// Facts returns the facts in a journal.
func Facts(j *Journal) []Fact {
	var facts []Fact
	for _, op := range j.Ops() {
		if op.Kind == Note {
			facts = append(facts, op.Fact)
		}
	}
	return facts
}

// Record mounts a recording disk that begins with img, runs lives on it one after another, and returns the journal.
func Record(mount string, img Image, lives func(dir string) error) (*Journal, error) {
	if err := os.MkdirAll(mount, 0o700); err != nil {
		return nil, err
	}
	d, err := Mount(mount, img)
	if err != nil {
		return nil, err
	}
	err = lives(mount)
	return d.Journal, errors.Join(err, d.Unmount())
}

// Final is the content of the disk after the whole journal, as a running system sees it.
func Final(j *Journal) Image {
	c := NewCursor(j)
	for c.Next() {
	}
	plan := 1 // all kept
	if n := c.Pending(); n <= 5 {
		plan = Plans(n) - 1
	}
	return c.Draw(plan, nil)
}
