package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fieldagent/agent/config"
	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

const (
	remoteKey   = "remote" // of the state below, in the store
	maxRefused  = 16       // documents that are remembered as refused
	maxCuts     = 2        // a document whose trial was cut short this often is refused
	maxEarly    = 3        // a confirmed document with which the agent ended early this often in a row is given up
	maxEarlyAll = 10       // the same over several boots
	calmAfter   = 5 * time.Minute
	maxReported = 20 // faults that are reported of one document
)

// Results of an attempt to change the configuration.
const (
	resultApplied    = "applied"
	resultRejected   = "rejected"
	resultRolledBack = "rolled_back"
	resultPending    = "pending"
)

// remoteKeys are the sections that a remote document may have.
var remoteKeys = []string{"sensors", "inputs", "meters", "outputs", "mqtt", "home_assistant"}

// remote takes configurations from the broker: checks them whole, tries them, keeps one only when a round trip through the broker confirmed it, and
// else goes back to the last good one, also when the agent ended in between.
type remote struct {
	a    *Agent
	turn *beat
	wake chan struct{}

	trying    sync.Mutex // held during a trial
	changing  sync.Mutex // held from a look at the state to its change: documents come in during a trial
	reporting sync.Mutex // the newest view goes out last

	mu     sync.Mutex
	state  remoteState
	misfit error     // why the good one is not in force, but the local one
	nextAt time.Time // when state.Next is due, on the monotonic clock
}

// load reads what was kept. A trial that the last run did not end is over: the last good configuration comes back.
func (r *remote) load(ctx context.Context) error {
	var body []byte
	err := r.a.queue.View(func(tx *queue.Tx) (err error) {
		body, err = tx.Get(queue.Config, remoteKey)
		return err
	})
	if err != nil {
		return fmt.Errorf("remote configuration: %w", err)
	}
	var s remoteState
	if body != nil {
		if err := json.Unmarshal(body, &s); err != nil {
			return fmt.Errorf("remote configuration: %w", err)
		}
	}
	r.mu.Lock()
	r.state = s
	r.mu.Unlock()
	if s.Next != nil {
		r.plan(s.Next)
	}
	local := r.a.localHash()
	if s.Pending == nil && s.Good == nil && (len(s.Refused) == 0 || s.Local == local) {
		return nil
	}
	return r.change(ctx, func(s *remoteState) {
		if s.Local != local {
			s.Refused, s.Early = nil, earlyEnds{} // what was refused may fit now
		}
		if s.Pending == nil {
			r.countStart(s)
			return
		}
		p := s.Pending
		if s.Cut != p.Hash {
			s.Cut, s.Cuts = p.Hash, 0
		}
		s.Cuts++
		if s.Cuts >= maxCuts {
			s.refuse(p.Hash)
		}
		s.Pending = nil
		s.Last = r.attempt(p, resultRolledBack, "the agent ended before the broker had confirmed this configuration: a crash, a restart or a power cut")
	})
}

// countStart counts a start with a confirmed configuration, and gives that up when too many in a row ended early.
func (r *remote) countStart(s *remoteState) {
	if s.Good == nil {
		return
	}
	e := &s.Early
	if boot := r.a.clock.Now().Boot; e.Boot != boot {
		e.Boot, e.Here = boot, 0
	}
	if e.Here < maxEarly && e.All < maxEarlyAll {
		e.Here++
		e.All++
		return
	}
	bad, n := s.Good, e.All
	s.refuse(bad.Hash)
	s.Good, s.Before, s.Early = s.Before, nil, earlyEnds{}
	if s.Good != nil && slices.Contains(s.Refused, s.Good.Hash) {
		s.Good = nil
	}
	s.Last = r.attempt(bad, resultRolledBack, fmt.Sprintf("the agent ended %d times in a row within %v of its start with this configuration, which was confirmed before", n, calmAfter))
}

// calm forgets early ends: this run has lasted, or ends because it was asked to.
func (r *remote) calm() {
	if r.get().Early == (earlyEnds{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := r.change(ctx, func(s *remoteState) { s.Early = earlyEnds{} }); err != nil {
		r.a.log.Warn("early ends are not forgotten", "err", err)
	}
}

// change changes the state, on disk first.
func (r *remote) change(ctx context.Context, fn func(*remoteState)) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	return r.changeLocked(ctx, fn)
}

func (r *remote) changeLocked(ctx context.Context, fn func(*remoteState)) error {
	r.mu.Lock()
	next := r.state
	next.Refused = slices.Clone(next.Refused)
	r.mu.Unlock()
	fn(&next)
	next.Local = r.a.localHash()
	err := r.a.queue.Update(ctx, func(tx *queue.Tx) error { return tx.Put(queue.Config, remoteKey, mustJSON(next)) })
	if err != nil {
		return fmt.Errorf("keep configuration: %w", err)
	}
	r.mu.Lock()
	r.state = next
	r.mu.Unlock()
	return nil
}

func (r *remote) get() remoteState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *remote) attempt(d *remoteDoc, result string, faults ...string) *ConfigAttempt {
	return &ConfigAttempt{Hash: d.Hash, Revision: d.Revision, Result: result, Errors: faults, At: formatTime(r.a.clock.Now().Wall)}
}

// receive takes a message from the config/set of the device or of one of its groups. When it returns nil, what is to become of it is on disk.
func (r *remote) receive(ctx context.Context, from string, m mqtt.Message) error {
	tried, err := r.take(ctx, from, m)
	if err != nil {
		return err
	}
	if tried != nil {
		r.plan(tried)
	}
	r.report()
	r.poke()
	return nil
}

// take keeps the document of a message, or its rejection; doc is nil when it is not to be tried.
func (r *remote) take(ctx context.Context, from string, m mqtt.Message) (tried *remoteDoc, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	s := r.get()
	doc := &remoteDoc{Hash: hashOf(m.Payload), Revision: s.Revision + 1, At: formatTime(r.a.clock.Now().Wall), From: from, Body: bytes.Clone(m.Payload)}
	why := s.outranked(doc, m.Retained)
	if why == "" {
		why = s.known(doc.Hash, m.Retained)
	}
	if why != "" {
		r.a.log.Info("remote configuration not tried", "hash", short(doc.Hash), "why", why)
		return nil, nil
	}
	_, fault := r.a.effective(doc)
	if fault != nil {
		r.a.log.Error("remote configuration rejected", "hash", short(doc.Hash), "err", fault)
	}
	err = r.changeLocked(ctx, func(s *remoteState) {
		s.Revision++
		doc.Revision = s.Revision
		switch {
		case fault != nil:
			s.refuse(doc.Hash)
			if s.Pending == nil {
				s.Last = r.attempt(doc, resultRejected, faultList(fault)...)
			}
		case s.Pending != nil || from != "":
			s.Next = doc
		default:
			s.Pending, s.Last = doc, r.attempt(doc, resultPending)
		}
	})
	if err != nil {
		return nil, err
	}
	faultPoint("config received")
	if fault != nil {
		return nil, nil
	}
	return doc, nil
}

// plan says when a document that waits is due: a group's has its moment, so that not all devices act at once.
func (r *remote) plan(doc *remoteDoc) {
	wait := time.Duration(0)
	if doc.From != "" {
		wait = spread(r.a.root, doc.Hash, r.a.localConfig().Remote.Spread)
	}
	r.mu.Lock()
	r.nextAt = time.Now().Add(wait)
	r.mu.Unlock()
}

// next returns the document that waits, if it is due, or how long it must still wait.
func (r *remote) next() (*remoteDoc, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Next, time.Until(r.nextAt)
}

func (r *remote) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func short(hash string) string {
	if hash == "" {
		return "none (the local file)"
	}
	return hash[:12]
}

func faultList(err error) []string {
	var faults config.Faults
	if !errors.As(err, &faults) {
		return []string{err.Error()}
	}
	var out []string
	for _, f := range faults[:min(len(faults), maxReported)] {
		out = append(out, f.Error())
	}
	return out
}

// run tries what is pending until ctx ends.
func (r *remote) run(ctx context.Context) {
	defer r.calm()
	calm := time.NewTimer(calmAfter)
	defer calm.Stop()
	for {
		wait := r.all(ctx)
		var later <-chan time.Time
		if wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-later:
		case <-calm.C:
			r.calm()
		}
	}
}

// all tries what is pending and due, and returns how long what is not must still wait; 0 when there is none.
func (r *remote) all(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		if s := r.get(); s.Pending != nil {
			r.try(ctx, s.Pending)
			continue
		}
		next, wait := r.next()
		if next == nil || wait > 0 {
			if next == nil {
				wait = 0
			}
			return wait
		}
		if err := r.change(ctx, func(s *remoteState) {
			s.Pending, s.Next = s.Next, nil // it may be a newer one by now
			s.Last = r.attempt(s.Pending, resultPending)
		}); err != nil {
			r.a.log.Error("a configuration waits", "err", err)
			return resultRetry
		}
	}
	return 0
}

// setMisfit notes why the good configuration is not in force; nil: it is.
func (r *remote) setMisfit(err error) {
	r.mu.Lock()
	r.misfit = err
	r.mu.Unlock()
}

// view is what config/state says.
func (r *remote) view() ConfigState {
	s := r.get()
	applied := AppliedConfig{Hash: r.a.localHash(), Source: "local", At: formatTime(r.a.started.Wall)}
	r.mu.Lock()
	misfit := r.misfit
	r.mu.Unlock()
	switch {
	case s.Good != nil && misfit == nil:
		applied = AppliedConfig{Hash: s.Good.Hash, Revision: s.Good.Revision, Source: "remote", Group: s.Good.From, At: s.Good.At}
	case s.Good != nil && (s.Last == nil || s.Last.Result != resultPending):
		return ConfigState{Applied: applied, LastAttempt: r.attempt(s.Good, resultRolledBack, faultList(misfit)...)}
	}
	return ConfigState{Applied: applied, LastAttempt: s.Last}
}

// report publishes config/state and config/current.
func (r *remote) report() {
	r.reporting.Lock()
	defer r.reporting.Unlock()
	r.a.delivery.announce(&notice{topic: r.a.root + "/config/state", payload: mustJSON(r.view())})
	if doc, err := r.a.Effective(); err == nil {
		r.a.retained.set("config/current", doc)
	}
}
