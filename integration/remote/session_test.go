package remote

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSession runs docs/remote-session.md line by line and compares what comes back.
func TestSession(t *testing.T) {
	doc, err := os.ReadFile("../../docs/remote-session.md")
	must(t, err)
	s := newSite(t, "3.1.1")
	_, port, _ := strings.Cut(s.addr, ":")
	file := fenced(string(doc), "yaml")[0]
	must(t, os.WriteFile(s.d.Config(), []byte(strings.Replace(file, ":1883", ":"+port, 1)), 0o600))
	must(t, s.d.Start(""))
	s.reachable("first")
	lines := 0
	for _, block := range fenced(string(doc), "console") {
		var command, want string
		run := func() {
			if command == "" {
				return
			}
			lines++
			if got := shell(t, command, port); !pattern(want).MatchString(got) {
				t.Errorf("$ %s\ngot:\n%swant:\n%s", command, got, want)
			}
		}
		for _, line := range strings.SplitAfter(block, "\n") {
			if next, ok := strings.CutPrefix(line, "$ "); ok {
				run()
				command, want = strings.TrimSpace(next), ""
				continue
			}
			want += line
		}
		run()
	}
	if lines < 15 {
		t.Errorf("only %d lines were run", lines)
	}
}

// fenced returns the blocks of a kind in a document.
func fenced(doc, kind string) (blocks []string) {
	for _, part := range strings.Split(doc, "```"+kind+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// shell runs a line as a newcomer would, but for the port of the broker.
func shell(t *testing.T, line, port string) string {
	t.Helper()
	line = regexp.MustCompile(`mosquitto_(pub|sub)`).ReplaceAllString(line, "mosquitto_$1 -h 127.0.0.1 -p "+port)
	cmd := exec.Command("/bin/bash", "-c", line)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("$ %s: %v", line, err)
	}
	return string(out)
}

// pattern makes an expression of an expected output, in which … stands for anything.
func pattern(want string) *regexp.Regexp {
	return regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + `$`)
}
