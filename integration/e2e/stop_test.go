package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// producer posts events one after another, over one connection, until the agent answers no more.
type producer struct {
	answered []string // ids
	strange  []string // answers that a producer could not act on
}

func (p *producer) run(socket string, some chan<- struct{}) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	for {
		resp, err := client.Post("http://agent/v1/events", "application/json", strings.NewReader(`{"type":"vend","data":{"coin":2}}`))
		if err != nil {
			return // it is gone
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var a struct{ ID, Error string }
		switch {
		case err != nil || json.Unmarshal(body, &a) != nil:
			p.strange = append(p.strange, string(body))
		case resp.StatusCode == http.StatusCreated:
			p.answered = append(p.answered, a.ID)
			select {
			case some <- struct{}{}:
			default:
			}
		case resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Error, "nothing was done"):
			p.strange = append(p.strange, string(body))
		}
	}
}

// A stop in the middle of production: each event on disk has its answer, so that no producer sends it again under another id.
func TestStopAnswersProducers(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	d := newDevice(t, "device: {id: pump-7}\nmqtt: {servers: []}\n")
	answered := map[string]bool{}
	for round := range rounds {
		d.run()
		producers := make([]producer, 8)
		some := make(chan struct{}, 8)
		var all sync.WaitGroup
		for i := range producers {
			all.Go(func() { producers[i].run(filepath.Join(d.dir, "s"), some) })
		}
		for range 8 + round { // another moment each time
			<-some
		}
		if code, took := d.stop(); code != 0 || took > 2*time.Second {
			t.Fatalf("round %d: exit code %d after %v", round, code, took)
		}
		all.Wait()
		for _, p := range producers {
			for _, id := range p.answered {
				answered[id] = true
			}
			for _, s := range p.strange {
				t.Errorf("round %d: an answer is %q", round, s)
			}
		}
	}
	stored := 0
	for line := range strings.Lines(d.cli(0, "outbox", "export")) {
		var e struct{ ID, Type string }
		if json.Unmarshal([]byte(line), &e) != nil || e.Type != "vend" {
			continue // the note that no agent runs
		}
		if stored++; !answered[e.ID] {
			t.Errorf("%s is stored, and no producer was told", e.ID)
		}
	}
	t.Logf("%d events are stored, %d answers", stored, len(answered))
	if stored != len(answered) || stored == 0 {
		t.Errorf("%d events are stored, %d answers", stored, len(answered))
	}
}

// A producer that waits for the broker is told at once that its event is stored.
func TestStopAnswersThoseWhoWait(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "device: {id: pump-7}\nmqtt: {servers: []}\n")
	d.run()
	type answer struct {
		status int
		body   string
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		status, body, err := d.request("POST", "/v1/events?wait=5m", `{"type":"vend"}`)
		got <- answer{status, string(body), err}
	}()
	d.until("an event", func() bool { return d.get("/v1/outbox")["depth"].(float64) == 1 })
	if code, took := d.stop(); code != 0 || took > 2*time.Second {
		t.Errorf("exit code %d after %v", code, took)
	}
	if a := <-got; a.err != nil || a.status != 202 || !strings.Contains(a.body, `"state":"queued"`) {
		t.Errorf("%+v", a)
	}
}
