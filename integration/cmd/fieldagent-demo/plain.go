package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// story is what happens by itself where nobody can press keys.
var story = []struct {
	at time.Duration
	do func(*stage) error
}{
	{4 * time.Second, (*stage).toggleBroker},
	{8 * time.Second, (*stage).toggleBroker},
	{12 * time.Second, func(s *stage) error { s.device.kill(); return nil }},
}

// lines prints what comes, one line each, until ctx ends.
func lines(ctx context.Context, out io.Writer, s *stage) error {
	next, printed := 0, 0
	for {
		wake := s.view.changed()
		printed = s.view.print(out, printed)
		var turn <-chan time.Time
		if next < len(story) {
			turn = time.After(time.Until(s.view.began.Add(story[next].at)))
		}
		select {
		case <-ctx.Done():
			s.view.print(out, printed)
			return nil
		case <-turn:
			if err := story[next].do(s); err != nil {
				return err
			}
			next++
		case <-wake:
		}
	}
}

// print writes the entries after the first n that were ever added, and returns how many there are now.
func (v *view) print(out io.Writer, n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	from := max(0, len(v.tail)-(v.printed-n))
	for _, e := range v.tail[from:] {
		fmt.Fprintf(out, "%s %-20s %s\n", e.at.Format("15:04:05.000"), e.what, e.text)
	}
	return v.printed
}
