package campaign

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fieldagent/integration/wire"
)

// order is one command with all that became of it.
type order struct {
	name     string
	sent     time.Time
	answered time.Time       // the first time
	status   map[string]bool // of all answers
	answers  map[string]bool // ids of their events
}

// commander sends commands to the agent over a connection of its own and collects the answers.
type commander struct {
	dir string

	mu     sync.Mutex
	orders map[string]*order
	open   int // not answered
}

// script notes that its effect took place: one line when it begins, one when it ends.
const script = `#!/bin/sh
echo "begin $1" >>%[1]s/effects
echo "end $1" >>%[1]s/effects
`

func newCommander(dir string) (*commander, error) {
	c := &commander{dir: dir, orders: map[string]*order{}}
	if err := os.WriteFile(filepath.Join(dir, "effects"), nil, 0o600); err != nil {
		return nil, err
	}
	return c, os.WriteFile(filepath.Join(dir, "act"), fmt.Appendf(nil, script, dir), 0o700)
}

// config is what the agent needs to know of it.
func (c *commander) config() string {
	return fmt.Sprintf(`commands:
  - {name: act, argv: ["%[1]s/act", "{n}"], args: {n: {pattern: "c-[0-9]+"}}, timeout: 1m}
  - {name: again, argv: ["%[1]s/act", "{n}"], args: {n: {pattern: "c-[0-9]+"}}, timeout: 1m, repeatable: true}
`, c.dir)
}

// message takes results.
func (c *commander) message(topic string, payload []byte) {
	if !strings.HasPrefix(topic, source+"/cmd/") || !strings.HasSuffix(topic, "/result") {
		return
	}
	var e struct {
		ID   string `json:"id"`
		Data struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		} `json:"data"`
	}
	if json.Unmarshal(payload, &e) != nil {
		return // the judge says so
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.orders[e.Data.ID]
	if o == nil {
		o = &order{name: "nobody's", status: map[string]bool{}, answers: map[string]bool{}}
		c.orders[e.Data.ID] = o
	}
	if len(o.answers) == 0 {
		o.answered = time.Now()
		c.open--
	}
	o.answers[e.ID] = true
	status := e.Data.Status
	if status == "failed" {
		status += ": " + e.Data.Error
	}
	o.status[status] = true
}

// sent is how many commands there were.
func (c *commander) sent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.orders)
}

// waiting is how many commands have no answer.
func (c *commander) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// send publishes at least n commands at QoS 1 and 2 until it is enough, some of them twice with one id, and waits with each until few are unanswered.
func (c *commander) send(ctx context.Context, addr string, n int, enough func() bool) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	expect := func(kind byte) error {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if p, err := wire.Read(in, 1000); err != nil || p.Type() != kind {
			return fmt.Errorf("commander: %v %v, want %s", p, err, wire.Name(kind))
		}
		return nil
	}
	if _, err := conn.Write(wire.Connect("commander", false, 0).Raw); err != nil {
		return err
	}
	if err := expect(wire.CONNACK); err != nil {
		return err
	}
	packet := uint16(0)
	publish := func(name, id string, qos byte) error {
		packet = packet%60000 + 1
		body := fmt.Appendf(nil, `{"id":%q,"args":{"n":%q}}`, id, id)
		if name == "ping" {
			body = fmt.Appendf(nil, `{"id":%q}`, id)
		}
		if _, err := conn.Write(wire.Publish(packet, source+"/cmd/"+name, body, qos, false).Raw); err != nil {
			return err
		}
		if qos == 1 {
			return expect(wire.PUBACK)
		}
		if err := expect(wire.PUBREC); err != nil {
			return err
		}
		if _, err := conn.Write(wire.Ack(wire.PUBREL, packet).Raw); err != nil {
			return err
		}
		return expect(wire.PUBCOMP)
	}
	for i := 0; i < n || !enough(); i++ {
		for c.waiting() > 8 && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
		}
		if ctx.Err() != nil {
			return nil
		}
		name, id := []string{"act", "act", "act", "again", "ping"}[i%5], fmt.Sprintf("c-%d", i)
		c.mu.Lock()
		c.orders[id] = &order{name: name, sent: time.Now(), status: map[string]bool{}, answers: map[string]bool{}}
		c.open++
		c.mu.Unlock()
		for range 1 + i%10/9 {
			if err := publish(name, id, byte(1+i%2)); err != nil {
				return err
			}
		}
	}
	return nil
}

// objections are what the agent has to answer for; kills are in order of time.
func (c *commander) objections(kills []time.Time) (out []string, statuses map[string]int, err error) {
	effects, err := os.ReadFile(filepath.Join(c.dir, "effects"))
	if err != nil {
		return nil, nil, err
	}
	began, ended := map[string]int{}, map[string]int{}
	for line := range bytes.Lines(effects) {
		var what, id string
		if _, err := fmt.Sscan(string(line), &what, &id); err != nil {
			return nil, nil, fmt.Errorf("effects: %q: %w", line, err)
		}
		map[string]map[string]int{"begin": began, "end": ended}[what][id]++
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	statuses = map[string]int{}
	used := map[time.Time]bool{}
	ids := slices.SortedFunc(maps.Keys(c.orders), func(a, b string) int { return c.orders[a].answered.Compare(c.orders[b].answered) }) // so that kills are given out fairly
	for _, id := range ids {
		o := c.orders[id]
		bad := func(format string, args ...any) {
			out = append(out, fmt.Sprintf("%s %s: ", o.name, id)+fmt.Sprintf(format, args...))
		}
		for s := range o.status {
			statuses[o.name+" "+s]++
		}
		if len(o.status) != 1 {
			bad("answers %v, want one", o.status)
			continue
		}
		switch {
		case o.name == "nobody's":
			bad("an answer to a command that nobody sent")
		case o.name == "act" && began[id] > 1:
			bad("executed %d times", began[id])
		case o.status["ok"] && o.name != "ping" && (began[id] == 0 || ended[id] == 0):
			bad("ok, but the effect began %d times and ended %d times", began[id], ended[id])
		case o.status["ok"]:
		case o.status["unknown"] && o.name == "act":
			if !underWay(o, kills, used) {
				bad("unknown, but no kill fell into its time from %v to %v", o.sent, o.answered)
			}
		default:
			bad("answered %v", o.status)
		}
	}
	return out, statuses, nil
}

// underWay finds a kill between a command and its answer that explains no other unknown outcome yet: one at a time is executed.
func underWay(o *order, kills []time.Time, used map[time.Time]bool) bool {
	for _, k := range kills {
		if k.After(o.sent) && k.Before(o.answered) && !used[k] {
			used[k] = true
			return true
		}
	}
	return false
}
