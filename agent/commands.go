package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

const (
	maxCommand     = 64 << 10 // bytes of a command
	commandTimeout = 30 * time.Second
	resultType     = "result"
	maxCommandID   = 128
	resultRetry    = 2 * time.Second
)

// Statuses of a result.
const (
	statusOK      = "ok"
	statusFailed  = "failed"
	statusExpired = "expired"
	statusUnknown = "unknown" // the agent ended while it ran: nobody knows how far it came
)

// command is something the device can do when asked.
type command struct {
	// run does it. args is a JSON object, or nil.
	run func(ctx context.Context, args json.RawMessage) (any, error)
	// pure commands change nothing: they need no note on disk that they began, and run again after a crash.
	pure bool
	// resumed says what to answer when the agent ended while it ran; nil: unknown.
	resumed func() result
	timeout time.Duration
}

// commands executes what the broker asks for: each id once, one at a time, in order. A command is on disk before the broker hears that it
// arrived; its result and "done" are one transaction.
type commands struct {
	queue  *queue.Queue
	clock  *Clock
	root   string
	log    *slog.Logger
	device string
	spread func() time.Duration // over which a group's devices act; nil is none
	turn   *beat
	wake   chan struct{}

	executed, refused atomic.Uint64
	waiting           atomic.Int64

	mu       sync.Mutex
	known    map[string]command
	running  string
	since    time.Time
	retained map[[32]byte]bool // retained ones that were refused, so that each is reported once
}

func newCommands(q *queue.Queue, clock *Clock, root string, log *slog.Logger) *commands {
	return &commands{queue: q, clock: clock, root: root, log: log, spread: func() time.Duration { return 0 }, turn: &beat{}, wake: make(chan struct{}, 1), known: map[string]command{}, retained: map[[32]byte]bool{}}
}

// handle teaches a command; nil forgets it.
func (c *commands) handle(name string, cmd *command) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cmd == nil {
		delete(c.known, name)
		return
	}
	c.known[name] = *cmd
}

func (c *commands) find(name string) (command, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd, ok := c.known[name]
	return cmd, ok
}

// jobName is a command as the inbox knows it: name, or name@group when it was sent to a group.
func jobName(name, group string) string {
	if group == "" {
		return name
	}
	return name + "@" + group
}

// due returns how long a command must still wait: one for a group has its moment, so that not all devices act at once.
func (c *commands) due(job queue.Job) time.Duration {
	_, group, _ := strings.Cut(job.Name, "@")
	now := c.clock.Now()
	if group == "" || job.State != queue.JobReceived || now.Boot != job.Received.Boot {
		return 0
	}
	return spread(c.device, job.ID, c.spread()) - (now.Uptime - job.Received.Uptime)
}

// names lists what is known, for the one who asked for something else.
func (c *commands) names() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(c.known)), ", ")
}

// receive takes one command, sent to the device or to one of its groups. When it returns nil the command, or the answer that it is refused, is on disk,
// and the broker may be told.
func (c *commands) receive(ctx context.Context, name, group string, m mqtt.Message) error {
	if !queue.ValidName(name) {
		c.refused.Add(1)
		c.log.Warn("command refused: its name is none", "topic", m.Topic)
		return nil // there is no topic for an answer
	}
	if m.Retained {
		return c.refuseRetained(ctx, name, m.Payload)
	}
	body, to, err := c.askedFor(m)
	var req request
	if err == nil {
		req, err = parseRequest(body)
	}
	if err != nil {
		c.refused.Add(1)
		return c.answer(ctx, name, result{ID: req.ID, Status: statusFailed, Error: err.Error()}, to)
	}
	fresh := false
	err = c.queue.Update(ctx, func(tx *queue.Tx) (err error) {
		var job queue.Job
		job, fresh, err = tx.Receive(req.ID, jobName(name, group), keep(body, to))
		first, _, _ := strings.Cut(job.Name, "@")
		switch {
		case err != nil || fresh:
			return err
		case first != name:
			_, err = tx.Append(result{ID: req.ID, Status: statusFailed, Error: fmt.Sprintf("id %q was used for the command %s; give each command an id of its own", req.ID, first)}.event(name, to))
			return err
		case job.State == queue.JobDone && m.Dup && job.Result.Sequence > c.queue.Position().Acked: // the same message again, and its answer is on its way
			return nil
		case job.State == queue.JobDone: // asked again: the same answer again
			_, err = tx.Append(resultEvent(name, job.ResultData, to))
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("command %s: %w", name, err)
	}
	faultPoint("command received")
	if fresh {
		c.waiting.Add(1)
	}
	c.poke()
	return nil
}

func (c *commands) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *commands) refuseRetained(ctx context.Context, name string, body []byte) error {
	c.refused.Add(1)
	if len(body) == 0 {
		return nil
	}
	hash := sha256.Sum256(append([]byte(name+"\x00"), body...))
	c.mu.Lock()
	again := c.retained[hash]
	if len(c.retained) < 1000 {
		c.retained[hash] = true
	}
	c.mu.Unlock()
	if again {
		return nil
	}
	c.log.Warn("retained command refused: it would run again at each connect", "command", name)
	req, _ := parseRequest(body)
	return c.answer(ctx, name, result{ID: req.ID, Status: statusFailed, Error: "retained commands are refused, since they would run again at each connect; publish without the retain flag, and clear the retained one"}, nil)
}

// answer stores a result that belongs to no command in the inbox.
func (c *commands) answer(ctx context.Context, name string, r result, to *replyTo) error {
	err := c.queue.Update(ctx, func(tx *queue.Tx) error {
		_, err := tx.Append(r.event(name, to))
		return err
	})
	if errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrInvalid) || errors.Is(err, queue.ErrTooLarge) {
		c.log.Error("no answer to a refused command", "command", name, "err", err)
		return nil
	}
	return err
}

// load counts what waits from before.
func (c *commands) load() error {
	return c.queue.View(func(tx *queue.Tx) error {
		jobs, err := tx.Unfinished()
		c.waiting.Store(int64(len(jobs)))
		return err
	})
}

// run executes commands until ctx ends. One that is under way then is told so through its context.
func (c *commands) run(ctx context.Context) {
	c.turn.start()
	defer c.turn.stop()
	seen := map[string]bool{} // commands that this run began
	said := ""                // why they wait: one line for each reason
	for {
		next, err := c.all(ctx, seen)
		if err != nil && ctx.Err() == nil {
			if said != err.Error() {
				said = err.Error()
				c.log.Error("commands wait", "err", err)
			}
			next = resultRetry
		} else {
			said = ""
		}
		c.turn.stop() // waiting for a command is no stall
		var later <-chan time.Time
		if next > 0 {
			later = time.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-later:
		}
		c.turn.now()
	}
}

// all executes what is unfinished and due, oldest first, and returns how long the next one must still wait; 0 when there is none.
func (c *commands) all(ctx context.Context, seen map[string]bool) (next time.Duration, err error) {
	for ctx.Err() == nil {
		var jobs []queue.Job
		err := c.queue.View(func(tx *queue.Tx) (err error) {
			jobs, err = tx.Unfinished()
			return err
		})
		if err != nil {
			return 0, err
		}
		done := 0
		next = 0
		for _, job := range jobs {
			if ctx.Err() != nil {
				return 0, nil
			}
			if wait := c.due(job); wait > 0 {
				if next == 0 || wait < next {
					next = wait
				}
				continue
			}
			if err := c.execute(ctx, job, seen); err != nil {
				return 0, fmt.Errorf("command %s %q: %w", job.Name, job.ID, err)
			}
			delete(seen, job.ID)
			c.waiting.Add(-1)
			done++
		}
		if done == 0 {
			return next, nil
		}
	}
	return 0, nil
}

// execute brings one command to its end. An error means that the end is not on disk: it will be tried again.
func (c *commands) execute(ctx context.Context, job queue.Job, seen map[string]bool) error {
	job.Name, _, _ = strings.Cut(job.Name, "@")
	cmd, ok := c.find(job.Name)
	body, _ := kept(job.Body)
	req, err := parseRequest(body)
	switch {
	case err != nil:
		return c.finish(ctx, job, result{ID: job.ID, Status: statusFailed, Error: err.Error()})
	case !ok:
		return c.finish(ctx, job, result{ID: job.ID, Status: statusFailed, Error: fmt.Sprintf("this device has no command %q; it has %s", job.Name, c.names())})
	case job.State == queue.JobStarted && !seen[job.ID] && cmd.resumed != nil:
		return c.finish(ctx, job, cmd.resumed())
	case job.State == queue.JobStarted && !cmd.pure:
		return c.finish(ctx, job, result{ID: job.ID, Status: statusUnknown, Error: "the agent ended while the command ran: nobody knows how far it came"})
	}
	if why := c.expired(req); why != "" {
		return c.finish(ctx, job, result{ID: job.ID, Status: statusExpired, Error: why})
	}
	if !cmd.pure {
		if err := c.queue.Update(ctx, func(tx *queue.Tx) error { return tx.Start(job.ID) }); err != nil {
			return err
		}
		seen[job.ID] = true
		faultPoint("command started")
	}
	r := c.perform(ctx, job, cmd, req)
	if r == nil {
		return nil // the process is about to end, and answers when it is back
	}
	faultPoint("command executed")
	return c.keepFinishing(ctx, job, *r)
}

// expired says why a command must not run any more.
func (c *commands) expired(req request) string {
	switch now := c.clock.Now(); {
	case req.Expires == nil:
		return ""
	case now.Wall.After(*req.Expires):
		return fmt.Sprintf("expired at %s, it is %s here", formatTime(*req.Expires), formatTime(now.Wall))
	case c.clock.Behind():
		return "the clock is not set, so nobody knows whether the command has expired; send it without expires, or wait for the time"
	}
	return ""
}

// perform runs the command itself.
func (c *commands) perform(ctx context.Context, job queue.Job, cmd command, req request) *result {
	timeout := cmd.timeout
	if timeout == 0 {
		timeout = commandTimeout
	}
	c.mu.Lock()
	c.running, c.since = job.Name+" "+job.ID, c.clock.Now().Wall
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running = ""
		c.mu.Unlock()
	}()
	c.turn.stop() // it may take as long as its timeout allows
	defer c.turn.now()
	tctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, err := call(tctx, cmd, req.Args)
	c.executed.Add(1)
	switch {
	case errors.Is(err, errEnding):
		return nil
	case err != nil && ctx.Err() == nil && tctx.Err() != nil:
		err = fmt.Errorf("not done within %v: %w", timeout, err)
	}
	r := &result{ID: job.ID, Status: statusOK, Result: value}
	if raw, ok := value.(json.RawMessage); ok && len(raw) == 0 {
		r.Result = nil
	}
	if err != nil {
		r.Status, r.Error = statusFailed, err.Error()
	}
	c.log.Info("command executed", "command", job.Name, "id", job.ID, "status", r.Status)
	return r
}

// errEnding is returned by a command that ends the process; its answer is given after the start.
var errEnding = errors.New("the agent ends")

// call keeps a command that panics from taking the device along.
func call(ctx context.Context, cmd command, args json.RawMessage) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the command failed in an unforeseen way: %v", p)
		}
	}()
	return cmd.run(ctx, args)
}

// keepFinishing stores the result of an effect that took place, however long the store cannot take it.
func (c *commands) keepFinishing(ctx context.Context, job queue.Job, r result) error {
	for {
		err := c.finish(ctx, job, r)
		if err == nil || ctx.Err() != nil {
			return err
		}
		c.log.Error("a command's result cannot be stored yet", "command", job.Name, "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(resultRetry):
		}
	}
}

func (c *commands) finish(ctx context.Context, job queue.Job, r result) error {
	if r.ID == "" {
		r.ID = job.ID
	}
	// The effect has taken place: its result is stored even when the agent is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, to := kept(job.Body)
	err := c.queue.Update(ctx, func(tx *queue.Tx) error {
		_, err := tx.Finish(job.ID, r.event(job.Name, to))
		return err
	})
	if errors.Is(err, queue.ErrTooLarge) {
		r.Result, r.Error = nil, "the result is too large for an event"
		err = c.queue.Update(ctx, func(tx *queue.Tx) error {
			_, err := tx.Finish(job.ID, r.event(job.Name, to))
			return err
		})
	}
	if err == nil {
		faultPoint("command finished")
	}
	return err
}

func (c *commands) status() CommandStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := CommandStatus{Running: c.running, Waiting: int(max(0, c.waiting.Load())), Executed: c.executed.Load(), Refused: c.refused.Load()}
	if c.running != "" {
		s.Waiting = max(0, s.Waiting-1)
		t := c.since.UTC()
		s.Since = &t
	}
	return s
}
