// Command fieldagent-demo shows the main job in one terminal: an embedded broker, a simulated board beside this machine's own sensors,
// the agent in a process of its own, and what a subscriber sees. Keys stop the broker and kill the agent; no event is lost or doubled.
//
// Nothing is installed or left behind: state and socket lie in a temporary folder, the broker listens on a free loopback port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/verify"

	"golang.org/x/term"
)

func main() {
	if dir := os.Getenv(deviceEnv); dir != "" {
		if err := runDevice(dir); err != nil {
			fmt.Fprintln(os.Stderr, "device:", err)
			os.Exit(1)
		}
		return
	}
	plain := flag.Bool("plain", false, "lines instead of a live view, as without a terminal; a story runs by itself")
	length := flag.Duration("for", 0, "end after this time; 0 runs until Ctrl-C")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "fieldagent-demo: unknown argument %q; see fieldagent-demo -help\n", flag.Arg(0))
		os.Exit(2)
	}
	// SIGPIPE, of a reader that has gone away, ends the demo in order too: else its folder would stay.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	terminal := !*plain && term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
	if err := demo(ctx, os.Stdout, terminal); err != nil {
		fmt.Fprintln(os.Stderr, "fieldagent-demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, out io.Writer, terminal bool) (err error) {
	dir, err := os.MkdirTemp("", "fieldagent-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if !terminal {
		fmt.Fprintln(out, "starting the embedded broker, a simulated board and the agent ...")
	}
	b, err := broker.Start("nats", filepath.Join(dir, "broker"), broker.Options{})
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	v := newView(b.Addr())
	s := &stage{broker: b, view: v}
	if s.device, err = newDevice(dir, b.Addr(), v); err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	consumer := &verify.Consumer{Addr: b.Addr(), ClientID: "demo-watch", Filter: root + "/#", Message: v.message}
	watched := make(chan error, 1)
	go func() { watched <- consumer.Run(watching) }()
	select {
	case <-consumer.Ready():
	case err := <-watched:
		return err
	}
	if err := s.device.start(); err != nil {
		return err
	}
	acting, stopActing := context.WithCancel(ctx)
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		s.device.produce(acting)
	}()
	if terminal {
		err = live(ctx, s)
	} else {
		err = lines(ctx, out, s)
	}
	stopActing()
	<-produced
	err = errors.Join(err, s.finish())
	stopWatching()
	err = errors.Join(err, <-watched, s.device.stop())
	fmt.Fprintln(out, v.summary())
	return errors.Join(err, v.verdict())
}

// stage is what keys and the story act on.
type stage struct {
	broker broker.Broker
	device *device
	view   *view
	down   bool
}

// toggleBroker stops the broker, or starts it again.
func (s *stage) toggleBroker() error {
	if s.down {
		s.view.note("the broker starts again: the outbox drains, in order")
		if err := s.broker.Start(); err != nil {
			return fmt.Errorf("start the broker again: %w", err)
		}
		s.down = false
	} else {
		s.view.note("the broker is stopped: readings are dropped, events wait on disk")
		s.down = true
		if err := s.broker.Stop(); err != nil {
			return fmt.Errorf("stop the broker: %w", err)
		}
	}
	s.view.brokerUp(!s.down)
	return nil
}

// finish brings everything up and gives the last events time to arrive.
func (s *stage) finish() error {
	if s.down {
		if err := s.toggleBroker(); err != nil {
			return err
		}
	}
	s.device.revive()
	deadline := time.After(20 * time.Second)
	for {
		arrived := s.view.changed()
		if s.view.missing() == 0 {
			return nil
		}
		select {
		case <-arrived:
		case <-deadline:
			return nil // the verdict says it
		}
	}
}
