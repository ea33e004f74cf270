package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors/board"
	"fieldagent/sensors/drivers"
	"fieldagent/sensors/sensortest"
)

// runDevice is the agent's process: the agent as `fieldagent run` puts it together, on lines that something pulls.
func runDevice(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // the demo holds the other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	sources, err := config.Files(filepath.Join(dir, "fieldagent.yaml"))
	if err != nil {
		return err
	}
	var cfg agent.Config
	if err := config.Load(&cfg, agent.ConfigOptions(drivers.All), sources...); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	clock := agent.NewClock(nil)
	opt := cfg.Outbox.QueueOptions()
	opt.Now, opt.Log = clock.Now, log
	q, err := queue.Open(filepath.Join(dir, "state"), opt)
	if err != nil {
		return err
	}
	defer q.Close()
	l, err := agent.ListenLocal(filepath.Join(dir, "fieldagent.sock"))
	if err != nil {
		return err
	}
	hardware := &board.Board{}
	defer hardware.Close()
	lines := &sensortest.Lines{}
	a, err := agent.New(agent.Options{Config: cfg, Sources: sources, Queue: q, Clock: clock, Drivers: drivers.All, Board: hardware, Lines: lines, Version: "demo", Log: log})
	if err != nil {
		l.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- a.ServeLocal(ctx, l) }()
	go pull(ctx, lines)
	err = a.Run(ctx)
	cancel()
	return errors.Join(err, <-served)
}

// pull is the world: three pulses a second on the meter, and a door that opens for two of every nine seconds.
func pull(ctx context.Context, lines *sensortest.Lines) {
	tick := time.NewTicker(time.Second / 6)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lines.Drive("GPIO27", n%2 == 0, 0)
		if n%6 == 0 {
			lines.Drive("GPIO17", n/6%9 >= 7, 0)
		}
	}
}
