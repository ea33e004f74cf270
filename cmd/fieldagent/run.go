package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors"
	"fieldagent/sensors/board"
	"fieldagent/sensors/drivers"

	"github.com/spf13/cobra"
)

// softMemory is where the garbage collector starts to hurry: a few live megabytes must not leave dozens behind when a broker floods.
const softMemory = 18 << 20

func (p *program) runCommand() *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:   "run",
		Short: "run the agent",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context(), verbose) },
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log each request to the local API too")
	return c
}

// load reads and checks the configuration.
func (p *program) load() (agent.Config, []config.Source, error) {
	var cfg agent.Config
	sources, err := config.Files(p.config)
	if err != nil {
		return cfg, nil, err
	}
	if err := config.Load(&cfg, agent.ConfigOptions(drivers.All), sources...); err != nil {
		return cfg, sources, err
	}
	if _, err := sensors.New(cfg.Sensors, drivers.All, sensors.Options{}); err != nil { // opens nothing
		return cfg, sources, badConfig{err}
	}
	return cfg, sources, nil
}

func (p *program) run(ctx context.Context, verbose bool) error {
	// A small heap and few wake-ups: this shares a small board with others.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemory)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from the start on: else an early one ends the process
	defer signal.Stop(hup)
	log := newLogger(p.stderr, verbose)
	cfg, sources, err := p.load()
	if err != nil {
		notify("STATUS=The configuration has faults: " + firstLine(err))
		return err
	}
	clock := agent.NewClock(nil)
	opt := cfg.Outbox.QueueOptions()
	opt.Now, opt.Log, opt.Crash = clock.Now, log, agent.FaultPoint
	q, err := queue.Open(p.state, opt)
	if err != nil {
		err = stateAdvice(err, p.state)
		notify("STATUS=" + firstLine(err))
		return err
	}
	defer q.Close()
	l, err := agent.ListenLocal(p.socket)
	if err != nil {
		notify("STATUS=" + firstLine(err))
		return err
	}
	hardware := &board.Board{}
	defer hardware.Close()
	ready := make(chan struct{})
	a, err := agent.New(agent.Options{Config: cfg, Sources: sources, Queue: q, Clock: clock, Drivers: drivers.All, Board: hardware, Lines: board.Lines{}, Version: versionString(),
		Log: log, Ready: func() { close(ready) }})
	if err != nil {
		l.Close()
		notify("STATUS=The configuration has faults: " + firstLine(err))
		return badConfig{err}
	}
	log.Info("started", "version", versionString(), "device", cfg.ID(), "config", p.config, "state", p.state, "socket", p.socket)
	actx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.ServeLocal(actx, l) }()
	go p.attend(actx, a, log, ready, hup)
	err = a.Run(actx)
	notify("STOPPING=1\nSTATUS=Stopping")
	cancel()
	err = errors.Join(err, <-done)
	if errors.Is(err, agent.ErrRestart) {
		log.Info("restarting, as a command asked for")
		return nil // systemd starts it again: Restart=always
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// attend talks to systemd and reloads on SIGHUP.
func (p *program) attend(ctx context.Context, a *agent.Agent, log *slog.Logger, ready <-chan struct{}, hup <-chan os.Signal) {
	select {
	case <-ready:
	case <-ctx.Done():
		return
	}
	notify("READY=1\nSTATUS=" + statusLine(a.Status()))
	every := 20 * time.Second
	if w := watchdog(); w > 0 {
		every = min(every, w/3)
	}
	// Often at first, when people look: then as seldom as the watchdog lets.
	wait := time.Second
	tick := time.NewTimer(wait)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			p.reload(ctx, a, log)
			wait = time.Second
			tick.Reset(wait)
		case <-tick.C:
			wait = min(2*wait, every)
			tick.Reset(wait)
			line := "STATUS=" + statusLine(a.Status())
			if err := a.Alive(); err != nil {
				log.Error("a main loop does not turn: the watchdog is not fed", "err", err)
				notify(line)
				continue
			}
			notify("WATCHDOG=1\n" + line)
		}
	}
}

// reload takes the file over when it has no faults; else all stays as it is.
func (p *program) reload(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicros()))
	cfg, sources, err := p.load()
	if err == nil {
		err = a.Reload(ctx, cfg, sources)
	}
	if err != nil {
		log.Error("reload refused, the running configuration stays", "err", err)
	} else {
		log.Info("reloaded", "config", p.config)
	}
	notify("READY=1\nSTATUS=" + statusLine(a.Status()))
}

// statusLine is for people: systemctl status shows it.
func statusLine(s agent.Status) string {
	line := ""
	switch {
	case s.Outbox.Error != "":
		line = "The disk refuses events: " + s.Outbox.Error
	case s.Broker.Held != "":
		line = "Events are held: " + s.Broker.Held
	case s.Broker.Connected:
		line = "Connected to " + s.Broker.Server
	case s.Broker.Error != "":
		line = "No broker: " + s.Broker.Error
	default:
		line = "Connecting"
	}
	failed := 0
	first := ""
	for _, x := range s.Sensors {
		if x.State == "failed" {
			if failed++; failed == 1 {
				first = x.Name + ": " + x.Error
			}
		}
	}
	switch {
	case failed == 1:
		line += "; sensor " + first
	case failed > 1:
		line += fmt.Sprintf("; %d of %d sensors failed, the first is %s", failed, len(s.Sensors), first)
	}
	if s.Outbox.Depth > 0 {
		line += fmt.Sprintf("; %d events wait", s.Outbox.Depth)
	}
	return line
}

// firstLine of an error: STATUS= holds one.
func firstLine(err error) string {
	line, more, _ := strings.Cut(err.Error(), "\n")
	if n := strings.Count(more, "\n"); more != "" {
		line += fmt.Sprintf(" (and %d more)", n+1)
	}
	return line
}

// stateAdvice adds what mends a state folder that cannot be opened.
func stateAdvice(err error, dir string) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; run as the agent's user, or name a folder of your own with --state", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; the disk is full: free some space (sudo journalctl --vacuum-size=50M), then it starts by itself", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; the file system of %s is read-only: remount it, or name another folder with --state", err, mountOf(dir))
	}
	return err
}
