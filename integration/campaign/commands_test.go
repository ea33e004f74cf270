package campaign

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

var commandPoints = []string{"command received", "command started", "command executed", "command finished"}

// TestCommands kills the agent at random and at every named point while it is commanded: no command is executed twice, each is answered, and only one that was under way is answered with unknown.
func TestCommands(t *testing.T) {
	for _, name := range brokers() {
		t.Run(name, func(t *testing.T) {
			n := *commands
			if n == 0 {
				n = map[string]int{"mosquitto": 150, "nats": 50}[name]
			}
			shortest := map[string]time.Duration{"nats": 300 * time.Millisecond}[name] // which takes its time to hand out what waits
			dir := folder(t)
			c, err := newCommander(dir)
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewRig(Setup{Program: program, Broker: name, Version: *version, Dir: dir, Config: c.config()}, c.message)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := r.known(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(n)*2*time.Second)
			defer cancel()
			var struck atomic.Bool // every point
			sent, all := make(chan error, 1), false
			go func() { sent <- c.send(ctx, r.Broker2.Addr(), n, struck.Load) }()
			counts, err := r.Run(Plan{Seed: seed(t), Faults: 1 << 30, Producers: 1, Pace: 100 * time.Millisecond, Whole: true, Shortest: shortest, Deepest: 4,
				Points: commandPoints, Report: func(s string) { t.Log(s) },
				Until: func(counts map[string]int) bool {
					missed := slices.ContainsFunc(commandPoints, func(p string) bool { return counts["killed "+p] == 0 })
					struck.Store(!missed || ctx.Err() != nil)
					select {
					case err := <-sent:
						sent, all = nil, true
						if err != nil {
							t.Error(err)
						}
					default:
					}
					return all && c.waiting() == 0 || ctx.Err() != nil
				}})
			rep, rerr := r.Report(counts)
			out, statuses, cerr := c.objections(r.kills)
			t.Logf("%d commands, %d kills: %v\n%v", c.sent(), len(r.kills), statuses, rep)
			for _, err := range []error{err, rerr, cerr} {
				if err != nil {
					t.Error(err)
				}
			}
			object(t, rep)
			for _, o := range out {
				t.Error(o)
			}
			if log, err := os.ReadFile(r.Device.Log()); err != nil || bytes.Contains(log, []byte("session is thrown away")) {
				t.Error("the agent threw away a session that commands may wait in", err)
			}
			for _, p := range commandPoints {
				if counts["killed "+p] == 0 {
					t.Errorf("never killed at %q: this proves less than it says", p)
				}
			}
			if statuses["act ok"] == 0 {
				t.Error("no command was executed: this proves nothing")
			}
		})
	}
}
