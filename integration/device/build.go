// Package device builds the agent and runs it as a process, as a board would: with a file, a state folder and a socket.
package device

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Edit changes a source file of the agent for one build only: Old, which must be there exactly once, becomes New. Controls are made with it.
type Edit struct {
	File string // from the module's root; absolute for a file of Go's own library
	Old  string
	New  string
}

// Build makes dir/fieldagent with the fault points in it, and returns its path. The source is never touched: edits go through go build -overlay.
func Build(dir string, edits ...Edit) (program string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "fieldagent")
	args := []string{"build", "-tags", "faultpoints", "-o", program}
	if len(edits) > 0 {
		overlay, err := overlay(root, dir, edits)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "./cmd/fieldagent")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return program, nil
}

func overlay(root, dir string, edits []Edit) (file string, err error) {
	replace, text := map[string]string{}, map[string]string{}
	for _, e := range edits {
		name := e.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(root, name)
		}
		if _, ok := text[name]; !ok {
			b, err := os.ReadFile(name)
			if err != nil {
				return "", err
			}
			text[name] = string(b)
		}
		if n := strings.Count(text[name], e.Old); n != 1 {
			return "", fmt.Errorf("%s has %d times %q, want it once: mend the edit", e.File, n, e.Old)
		}
		text[name] = strings.Replace(text[name], e.Old, e.New, 1)
	}
	for name, t := range text {
		replace[name] = filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(name, root+"/"), "/", "_"))
		if err := os.WriteFile(replace[name], []byte(t), 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, b, 0o600)
}

// moduleRoot finds the agent's module, which lies above this one.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "fieldagent").Output()
	if err != nil {
		return "", fmt.Errorf("find the agent's source: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
