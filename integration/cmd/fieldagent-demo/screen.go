package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// live draws the view and obeys keys until q, Ctrl-C or the end of ctx.
func live(ctx context.Context, s *stage) error {
	old, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	os.Stdout.WriteString("\x1b[?1049h\x1b[?25l") // another screen, no cursor
	defer func() {
		os.Stdout.WriteString("\x1b[?25h\x1b[?1049l")
		_ = term.Restore(int(os.Stdin.Fd()), old)
	}()
	keys := make(chan byte)
	go func() {
		b := make([]byte, 1)
		for {
			if n, err := os.Stdin.Read(b); err != nil || n == 0 {
				return
			}
			keys <- b[0]
		}
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		w, h, err := term.GetSize(int(os.Stdout.Fd()))
		if err != nil {
			w, h = 100, 30
		}
		os.Stdout.Write(s.view.draw(w, h))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case k := <-keys:
			switch k {
			case 'q', 3, 4: // Ctrl-C, Ctrl-D
				return nil
			case 'b':
				if err := s.toggleBroker(); err != nil {
					return err
				}
			case 'k':
				s.device.kill()
			}
		}
	}
}

// draw returns one picture of w columns and h lines.
func (v *view) draw(w, h int) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := &page{w: w}
	p.line("\x1b[1mfieldagent demo\x1b[0m   broker %s %s   agent %s   device %s   %s", v.addr, light(v.up, "up", "stopped"), light(v.running, "running", "down"),
		light(v.status == "online", v.status, v.status), time.Since(v.began).Round(time.Second))
	p.line("")
	p.head("readings: live, QoS 0, dropped while the broker is away")
	for _, k := range sorted(v.series) {
		s := v.series[k]
		sensor, value, _ := strings.Cut(k, " ")
		state := v.states["sensor/"+sensor+"/status"]
		mark := " "
		if state == "failed" {
			mark = "!"
		}
		p.line("%s %-9s %-28s %12s  %s", mark, sensor, value, strconv.FormatFloat(s.values[len(s.values)-1], 'f', -1, 64), spark(s.values, max(0, w-58)))
	}
	p.line("")
	var states []string
	for _, k := range sorted(v.states) {
		if !strings.HasPrefix(k, "sensor/") {
			states = append(states, k+" "+v.states[k])
		}
	}
	if len(states) > 0 {
		p.head("inputs and outputs: retained")
		p.line("  %s", strings.Join(states, "   "))
		p.line("")
	}
	p.head("events: on disk before they are accepted, delivered once, in order, QoS 2")
	p.line("  stored %d   waiting %d   arrived %d   gaps %s   doubles %s   refused %d", v.storedN, len(v.promised), v.eventsN,
		count(len(v.gaps)), count(v.doubles), v.refusedN)
	p.line("")
	rest := h - p.n - 2
	var tail []entry
	for i := len(v.tail) - 1; i >= 0 && len(tail) < rest; i-- {
		if v.tail[i].what != "reading" {
			tail = append(tail, v.tail[i])
		}
	}
	for i := len(tail) - 1; i >= 0; i-- {
		p.line("  %s %-20s %s", tail[i].at.Format("15:04:05"), tail[i].what, tail[i].text)
	}
	for p.n < h-1 {
		p.line("")
	}
	p.last("\x1b[7m b \x1b[0m stop or start the broker   \x1b[7m k \x1b[0m kill -9 the agent   \x1b[7m q \x1b[0m quit")
	return p.b.Bytes()
}

// page collects lines that fit the screen.
type page struct {
	b bytes.Buffer
	w int
	n int
}

func (p *page) line(format string, args ...any) {
	if p.n == 0 {
		p.b.WriteString("\x1b[H")
	}
	p.b.WriteString(fit(fmt.Sprintf(format, args...), p.w) + "\x1b[0m\x1b[K\r\n")
	p.n++
}

func (p *page) head(text string) { p.line("\x1b[2m%s\x1b[0m", text) }

func (p *page) last(text string) { p.b.WriteString(fit(text, p.w) + "\x1b[0m\x1b[K\x1b[J") }

// fit cuts s to w columns; escape sequences take none.
func fit(s string, w int) string {
	cols := 0
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			if end := strings.IndexByte(s[i:], 'm'); end >= 0 {
				i += end + 1
				continue
			}
		}
		if cols == w {
			return s[:i]
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		i += n
		cols++
	}
	return s
}

func light(ok bool, yes, no string) string {
	if ok {
		return "\x1b[32m● " + yes + "\x1b[0m"
	}
	return "\x1b[31m● " + no + "\x1b[0m"
}

func count(n int) string {
	if n == 0 {
		return "\x1b[32m0\x1b[0m"
	}
	return fmt.Sprintf("\x1b[31m%d\x1b[0m", n)
}

// spark draws the last n values between their lowest and highest.
func spark(values []float64, n int) string {
	const steps = "▁▂▃▄▅▆▇█"
	values = values[max(0, len(values)-n):]
	low, high := math.Inf(1), math.Inf(-1)
	for _, x := range values {
		low, high = min(low, x), max(high, x)
	}
	var b strings.Builder
	for _, x := range values {
		i := 0
		if high > low {
			i = int((x - low) / (high - low) * 7)
		}
		b.WriteString(string([]rune(steps)[i]))
	}
	return b.String()
}

func sorted[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
