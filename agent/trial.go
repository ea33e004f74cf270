package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// try applies a document and keeps it when the broker has confirmed a round trip in time; else the good one comes back.
func (r *remote) try(ctx context.Context, doc *remoteDoc) {
	r.trying.Lock()
	defer r.trying.Unlock()
	r.a.log.Info("remote configuration on trial", "hash", short(doc.Hash), "revision", doc.Revision)
	faultPoint("config trial")
	cfg, err := r.a.effective(doc)
	if err != nil {
		r.settle(ctx, doc, resultRejected, faultList(err)...)
		return
	}
	within := cfg.Remote.ConfirmWithin
	if within <= 0 {
		within = 2 * time.Minute
	}
	tctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no answer within %v", within))
	defer cancel()
	if !sameBroker(cfg, r.a.config()) {
		err := r.a.probe(tctx, cfg)
		switch {
		case ctx.Err() != nil:
			return // the next start rolls back
		case errors.Is(err, errProbeRefused):
			r.a.log.Warn("the new broker does not take a second connection, so the running one is given up for the trial", "err", err)
		case err != nil:
			r.settle(ctx, doc, resultRolledBack, fmt.Sprintf("no acknowledged round trip through the new broker within %v, tried beside the running connection: %v", within, err))
			return
		}
		faultPoint("config probed")
	}
	r.turn.now() // from here on a hang is the watchdog's business
	defer r.turn.stop()
	if err := r.a.apply(ctx, cfg); err != nil {
		r.settle(ctx, doc, resultRejected, faultList(err)...)
		return
	}
	faultPoint("config applied")
	err = r.confirmed(tctx)
	if err == nil {
		faultPoint("config confirmed")
		r.setMisfit(nil)
		r.settle(ctx, doc, resultApplied)
		return
	}
	if ctx.Err() != nil {
		return // the next start rolls back
	}
	why := err.Error()
	if tctx.Err() != nil {
		why = fmt.Sprintf("no acknowledged round trip through the broker within %v", within)
		if last := r.a.brokerStatus().Error; last != "" {
			why += ": " + last
		}
	}
	faultPoint("config unconfirmed")
	r.restore(ctx)
	faultPoint("config restored")
	r.settle(ctx, doc, resultRolledBack, why)
}

// confirmed waits until the broker has acknowledged a message and granted the subscriptions, on a connection with the settings now in force.
// Its error says that the broker refused the message, or that the time is over.
func (r *remote) confirmed(ctx context.Context) error {
	got := make(chan error, 1)
	r.reporting.Lock()
	r.a.delivery.announce(&notice{topic: r.a.root + "/config/state", payload: mustJSON(r.view()), answered: func(refused error) {
		select {
		case got <- refused:
		default:
		}
	}})
	r.reporting.Unlock()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	acked := false
	for {
		r.turn.now()
		if acked && r.a.subscribed.Load() {
			return nil
		}
		select {
		case err := <-got:
			if err != nil {
				return err
			}
			acked = true
			faultPoint("config acknowledged")
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restore goes back to the last good configuration.
func (r *remote) restore(ctx context.Context) {
	r.turn.now()
	cfg, err := r.a.effective(r.get().Good)
	if err == nil {
		err = r.a.apply(ctx, cfg)
	}
	r.setMisfit(err)
	if err != nil {
		r.a.log.Error("the last good configuration cannot be applied, the local file is", "err", err)
		if err := r.a.apply(ctx, r.a.localConfig()); err != nil {
			r.a.log.Error("the local configuration cannot be applied", "err", err)
		}
	}
}

// settle ends a trial, on disk first.
func (r *remote) settle(ctx context.Context, doc *remoteDoc, result string, faults ...string) {
	for {
		err := r.change(ctx, func(s *remoteState) {
			s.Pending, s.Last = nil, r.attempt(doc, result, faults...)
			if result == resultApplied {
				s.Before, s.Good, s.Cut, s.Cuts, s.Early = s.Good, doc, "", 0, earlyEnds{}
				s.Good.At = s.Last.At
				if len(doc.Body) == 0 {
					s.Good = nil
				}
				s.Refused = slices.DeleteFunc(s.Refused, func(h string) bool { return h == doc.Hash })
			} else {
				s.refuse(doc.Hash)
			}
		})
		if err == nil {
			break
		}
		r.a.log.Error("the outcome of a configuration cannot be stored yet", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(resultRetry):
		}
	}
	if result == resultApplied {
		r.a.log.Info("remote configuration confirmed", "hash", short(doc.Hash), "revision", doc.Revision)
	} else {
		r.a.log.Error("remote configuration "+result, "hash", short(doc.Hash), "err", faults)
	}
	faultPoint("config settled")
	r.report()
	if result == resultApplied && len(doc.Body) == 0 && doc.From == "" {
		r.a.askGroups() // theirs are no longer outranked
	}
}

// rollback goes back to the configuration that was good before this one, on trial like any other.
func (r *remote) rollback(ctx context.Context) (any, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	s := r.get()
	if s.Pending != nil {
		return nil, errors.New("a configuration is on trial; it is taken back by itself when it is not confirmed")
	}
	if s.Good == nil && s.Before == nil {
		return nil, errors.New("the local configuration is in force, and there was none before it")
	}
	to := &remoteDoc{}
	if s.Before != nil {
		to.Body, to.Hash, to.From = s.Before.Body, s.Before.Hash, s.Before.From
	}
	to.At = formatTime(r.a.clock.Now().Wall)
	err := r.changeLocked(ctx, func(s *remoteState) {
		if s.Good != nil {
			s.refuse(s.Good.Hash) // a retained copy of it must not come back by itself
		}
		s.Refused = slices.DeleteFunc(s.Refused, func(h string) bool { return h == to.Hash })
		s.Revision++
		to.Revision = s.Revision
		s.Pending, s.Last = to, r.attempt(to, resultPending)
	})
	if err != nil {
		return nil, err
	}
	r.poke()
	return map[string]any{"hash": to.Hash, "revision": to.Revision, "state": resultPending}, nil
}
