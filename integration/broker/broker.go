// Package broker starts the brokers that judge the agent: mosquitto as a process, NATS and mochi inside the test.
//
// Each listens on a free loopback port that stays its own over restarts, keeps its files in a folder of the caller's, and
// is gone after Close. mosquitto and NATS are unlike engines: what both agree on is evidence.
package broker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"fieldagent/integration/wire"

	"bufio"
)

// Broker is a broker that can be stopped and started again with its state, on the same address.
type Broker interface {
	Name() string
	Addr() string // host:port
	Start() error // returns when it takes connections
	Stop() error  // gracefully: it saves what it holds
	Kill() error  // without warning, where the broker is a process; else as Stop
	Close() error // stops it; the folder is the caller's
	PID() int     // 0 for a broker inside this process
}

// Options for all brokers.
type Options struct {
	Port     int      // 0: a free one
	InFlight int      // mosquitto's max_inflight_messages; 0: its default, 20
	Autosave bool     // mosquitto: save at every change, so that kill -9 keeps the queue
	Lines    []string // mosquitto: more lines of configuration; a listener line replaces the plain one
}

// Start makes a broker by name and starts it: "mosquitto", "nats", "nats-cluster", "rabbitmq" or "mochi".
func Start(name, dir string, opt Options) (Broker, error) {
	if opt.Port == 0 {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		opt.Port = port
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var b Broker
	switch name {
	case "mosquitto":
		b = &mosquitto{dir: dir, opt: opt}
	case "nats":
		b = &nats{dir: dir, opt: opt}
	case "rabbitmq":
		b = &rabbitmq{dir: dir, opt: opt}
	case "nats-cluster":
		b = &cluster{dir: dir, opt: opt}
	case "mochi":
		b = &mochi{opt: opt}
	default:
		return nil, fmt.Errorf("no broker %q: mosquitto, nats, nats-cluster, rabbitmq or mochi", name)
	}
	return b, b.Start()
}

// FreePort finds a port below the range that outgoing connections take theirs from, so that nothing takes it while a
// broker is down, and nothing connects to itself.
func FreePort() (int, error) {
	for range 200 {
		port := 15000 + rand.IntN(17000)
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port between 15000 and 32000")
}

// Forget makes the broker at addr drop the session of a client: a clean session under its name takes it over.
func Forget(addr, clientID string) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(wire.Connect(clientID, true, 0).Raw); err != nil {
		return err
	}
	ack, err := wire.Read(bufio.NewReader(conn), 1<<16)
	if err != nil || ack.Type() != wire.CONNACK || ack.Code() != 0 {
		return fmt.Errorf("take over the session of %s: %v, %v", clientID, ack, err)
	}
	if _, err := conn.Write(wire.Disconnect().Raw); err != nil {
		return err
	}
	io.Copy(io.Discard, conn) // the broker closes when it is done with the session
	return nil
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// await waits until a broker answers a CONNECT, or died says that it never will.
func await(address string, died <-chan struct{}) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		if err := probe(address); err == nil {
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("broker at %s does not answer: %w", address, err)
		}
		select {
		case <-died:
			return errors.New("it ended at once")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func probe(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write(wire.Connect("probe", true, 0).Raw); err != nil {
		return err
	}
	if _, err := wire.Read(bufio.NewReader(conn), 1<<16); err != nil {
		return err
	}
	_, err = conn.Write(wire.Disconnect().Raw)
	return err
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func tail(file string) string {
	data, _ := os.ReadFile(filepath.Clean(file))
	if len(data) > 2000 {
		data = data[len(data)-2000:]
	}
	return string(data)
}
