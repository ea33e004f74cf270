package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"fieldagent/integration/broker"
)

// message is what mosquitto_sub tells of one.
type message struct {
	Topic   string
	QoS     int
	Retain  int
	Payload string
}

// subscriber is mosquitto_sub, a client that shares no code with the agent. It holds a durable session, so that it misses nothing while the broker is away.
type subscriber struct {
	t    *testing.T
	root string
	changes
	got []message
}

// subscribe listens to everything below fieldagent/pump-7.
func subscribe(t *testing.T, b broker.Broker) *subscriber {
	t.Helper()
	return subscribeAs(t, b, "judge")
}

func subscribeAs(t *testing.T, b broker.Broker, client string) *subscriber {
	t.Helper()
	s := &subscriber{t: t, root: "fieldagent/pump-7/"}
	host, port, _ := net.SplitHostPort(b.Addr())
	args := []string{"-h", host, "-p", port, "-i", client, "-c", "-q", "2", "-t", s.root + "#", "-F", "%j"}
	if out, err := exec.Command("mosquitto_sub", append(args, "-E")...).CombinedOutput(); err != nil { // the session is there when it returns
		t.Fatalf("mosquitto_sub: %v %s", err, out)
	}
	cmd := exec.Command("mosquitto_sub", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.StartChild(cmd); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for in := bufio.NewReader(out); ; {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			var m message
			if err := json.Unmarshal(line, &m); err != nil {
				m = message{Payload: err.Error() + ": " + string(line)}
			}
			s.mu.Lock()
			s.got = append(s.got, m)
			s.note()
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
		if t.Failed() {
			var all strings.Builder
			for _, m := range s.got[max(0, len(s.got)-60):] {
				fmt.Fprintf(&all, "%s q%d r%d %.200s\n", m.Topic, m.QoS, m.Retain, m.Payload)
			}
			t.Logf("mosquitto_sub saw:\n%s", &all)
		}
	})
	return s
}

// wait returns the first message on a topic below the root from number on that test takes, and the number after it.
func (s *subscriber) wait(topic string, from int, test func(m message) bool) (message, int) {
	s.t.Helper()
	var m message
	next := from
	if !s.await(func() bool {
		for ; next < len(s.got); next++ {
			if m = s.got[next]; m.Topic == s.root+topic && (test == nil || test(m)) {
				next++
				return true
			}
		}
		return false
	}) {
		s.t.Fatalf("no such message on %s", topic)
	}
	return m, next
}

// is makes a test for a payload.
func is(payload string) func(message) bool {
	return func(m message) bool { return m.Payload == payload }
}

func contains(words ...string) func(message) bool {
	return func(m message) bool { return find(strings.ReplaceAll(m.Payload, "\n", " "), words...) != "" }
}

// seen is the number of messages so far.
func (s *subscriber) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// events waits until n events of a type have come, and returns all that are there.
func (s *subscriber) events(kind string, n int) []message {
	s.t.Helper()
	var all []message
	if !s.await(func() bool {
		all = nil
		for _, m := range s.got {
			if m.Topic == s.root+"event/"+kind {
				all = append(all, m)
			}
		}
		return len(all) >= n
	}) {
		s.t.Fatalf("%d events of type %s, want %d", len(all), kind, n)
	}
	return all
}

// publish sends with mosquitto_pub at QoS 1 and returns when the broker has it.
func publish(t *testing.T, b broker.Broker, topic, payload string, more ...string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(b.Addr())
	cmd := exec.Command("mosquitto_pub", append([]string{"-h", host, "-p", port, "-q", "1", "-t", topic, "-s"}, more...)...)
	if payload == "" {
		cmd.Args[len(cmd.Args)-1-len(more)] = "-n"
	}
	cmd.Stdin = bytes.NewReader([]byte(payload))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v %s", err, out)
	}
}
