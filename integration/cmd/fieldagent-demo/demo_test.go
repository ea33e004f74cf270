package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the device, as the demo's own binary is, and the demo itself.
func TestMain(m *testing.M) {
	if dir := os.Getenv(deviceEnv); dir != "" {
		if err := runDevice(dir); err != nil {
			fmt.Fprintln(os.Stderr, "device:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestStory runs what `make demo` shows without a terminal: broker stopped and started, agent killed, nothing lost, nothing left behind.
func TestStory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 18*time.Second)
	defer cancel()
	var out bytes.Buffer
	err := demo(ctx, &out, false)
	text := out.String()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, want := range []string{"tank  temperature_celsius ", "machine  ", "status               online", "status               offline", "the broker is stopped", "the broker starts again", "kill -9 for the agent",
		"0000000000000001 ", " vend ", " 0 still missing, 0 gaps, 0 doubles"} {
		if !strings.Contains(text, want) {
			t.Errorf("the demo never shows %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestViewTellsFaults shows that the view would say it if the promise were broken.
func TestViewTellsFaults(t *testing.T) {
	event := func(n int) []byte {
		return fmt.Appendf(nil, `{"id":"00000001-%016d","sequence":"%016d","type":"vend","data":{}}`, n, n)
	}
	v := newView("")
	v.stored("00000001-0000000000000001", time.Now())
	v.message(root+"/event/vend", event(1), 2)
	if err := v.verdict(); err != nil {
		t.Fatal(err)
	}
	v.message(root+"/event/vend", event(3), 2)
	v.message(root+"/event/vend", event(3), 2)
	if err := v.verdict(); err == nil || len(v.gaps) != 1 || v.doubles != 1 {
		t.Errorf("a gap and a double: %v, gaps %v, doubles %d", err, v.gaps, v.doubles)
	}
	v.message(root+"/event/vend", event(2), 2)
	if len(v.gaps) != 0 {
		t.Errorf("the late one came, and there is still a gap: %v", v.gaps)
	}
}

// TestDrawFits checks that no line is wider than the terminal, colours apart.
func TestDrawFits(t *testing.T) {
	v := newView("127.0.0.1:1")
	v.message(root+"/sensor/tank", []byte(`{"time":"x","temperature_celsius":21.5}`), 0)
	v.message(root+"/input/door", []byte("ON"), 0)
	v.note(strings.Repeat("long ", 100))
	for _, w := range []int{20, 80, 200} {
		picture := string(v.draw(w, 24))
		lines := strings.Split(picture, "\r\n")
		if len(lines) != 24 {
			t.Errorf("%d columns: %d lines, want 24", w, len(lines))
		}
		for _, l := range lines {
			if n := columns(l); n > w {
				t.Errorf("%d columns: a line has %d: %q", w, n, l)
			}
		}
	}
}

func columns(s string) int {
	n := 0
	for len(s) > 0 {
		if s[0] == 0x1b {
			i := strings.IndexAny(s, "mKHJ")
			s = s[i+1:]
			continue
		}
		n++
		s = strings.TrimPrefix(s, string([]rune(s)[0]))
	}
	return n
}
