package powercut

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/queue"
)

// TestPowerCutAgent cuts the power under the built agent and its broker's answers, from the first start on. Every state is judged, and on some of them
// the agent itself is started again: it must come up, send all that was accepted, and nothing as new that the broker had confirmed.
func TestPowerCutAgent(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "fieldagent")
	build := exec.Command("go", "build", "-o", program, "./cmd/fieldagent")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	o := newOffice(t)
	config := filepath.Join(dir, "fieldagent.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "device: {id: cut}\nmqtt: {servers: [\"mqtt://%s\"], reconnect: {min: 10ms, max: 50ms}}\n", o.addr), 0o600); err != nil {
		t.Fatal(err)
	}
	mount := filepath.Join(dir, "disk")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := Mount(mount, Empty())
	if err != nil {
		t.Fatal(err)
	}
	o.forget(d.Journal.Note, false)
	for life := range 3 {
		a, err := startAgent(program, config, filepath.Join(mount, "state"), filepath.Join(dir, fmt.Sprint("s", life)))
		if err != nil {
			t.Fatal(err)
		}
		var users sync.WaitGroup
		for p := range 3 {
			users.Go(func() {
				for n := range 15 {
					a.emit(t, d.Journal, Token(string(rune('a'+life)), fmt.Sprint("p", p), n+1, 100+20*n))
				}
			})
		}
		users.Wait()
		if err := a.end(life == 1); err != nil {
			t.Error(err)
		}
	}
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	wrong := errors.Join(o.wrong...)
	o.mu.Unlock()
	if wrong != nil {
		t.Error(wrong)
	}
	seed, want := drawSeed(), max(*states/10, 200)
	r := &restarts{office: o, program: program, config: config, every: max(want/200, 5)}
	judge := CheckState(queue.Options{})
	w := &Walk{Journal: d.Journal, Start: NewModel(), States: want, Seed: seed, Scratch: scratch(t), Check: func(img Image, m *Model, scratch string) error {
		return errors.Join(r.check(img, m, filepath.Join(scratch, "agent")), judge(img, m, scratch))
	}}
	n, found := w.Run()
	t.Logf("seed %d: %d operations, %d states of the agent checked, started again on %d, %d violations", seed, len(d.Ops()), n, r.started, len(found))
	counts := map[string]int{}
	for _, f := range Facts(d.Journal) {
		counts[f.What]++
	}
	if counts["accept"] != 3*3*15 || counts["release"] < 3*15 {
		t.Errorf("%v: some event was refused, or few were confirmed", counts)
	}
	if r.started < 20 || r.resumed == 0 {
		t.Errorf("started on %d states, %d of them with events that the broker had: this proves little", r.started, r.resumed)
	}
	tell(t, w, nil, found)
}

// restarts starts the agent on some of the states, one at a time: they all have the broker's one address.
type restarts struct {
	office          *office
	program, config string
	every           int

	mu                     sync.Mutex
	seen, started, resumed int
}

func (r *restarts) check(img Image, m *Model, dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen++; r.seen%r.every != 0 {
		return nil
	}
	r.started++
	if m.release.low > 0 {
		r.resumed++
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), img.Lay(dir)); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r.office.forget(func(Fact) {}, true)
	a, err := startAgent(r.program, r.config, filepath.Join(dir, "state"), filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	err = a.drained()
	return errors.Join(err, a.end(false), r.office.took(m))
}

type runningAgent struct {
	cmd    *exec.Cmd
	client http.Client
	log    *bytes.Buffer
}

func startAgent(program, config, state, socket string) (*runningAgent, error) {
	a := &runningAgent{cmd: exec.Command(program, "run", "--config", config, "--state", state, "--socket", socket), log: &bytes.Buffer{}}
	a.cmd.Stderr = a.log
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	for deadline := time.Now().Add(time.Minute); ; {
		r, err := a.client.Get("http://agent/v1/status")
		if err == nil {
			r.Body.Close()
			return a, nil
		}
		if time.Now().After(deadline) {
			a.cmd.Process.Kill()
			a.cmd.Wait()
			return nil, fmt.Errorf("the agent does not start: %w\n%s", err, a.log)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (a *runningAgent) emit(t *testing.T, j *Journal, token string) {
	j.Note(Fact{What: "submit", Token: token})
	r, err := a.client.Post("http://agent/v1/events", "application/json", strings.NewReader(fmt.Sprintf(`{"type":"proof","qos":2,"data":%s}`, Payload(token))))
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	var answer struct{ ID string }
	if r.StatusCode != http.StatusCreated || json.Unmarshal(body, &answer) != nil {
		t.Errorf("%s: %s %s", token, r.Status, body)
		return
	}
	id, err := queue.ParseID(answer.ID)
	if err != nil {
		t.Error(err)
	}
	j.Note(Fact{What: "accept", Token: token, Store: id.Store, Seq: id.Sequence})
}

// drained waits until the broker has confirmed everything.
func (a *runningAgent) drained() error {
	for deadline := time.Now().Add(time.Minute); ; {
		var s struct {
			Broker struct{ Connected bool }
			Outbox struct {
				Depth int
				Error string
			}
		}
		r, err := a.client.Get("http://agent/v1/status")
		if err == nil {
			err = json.NewDecoder(r.Body).Decode(&s)
			r.Body.Close()
		}
		if err == nil && s.Broker.Connected && s.Outbox.Depth == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not drained: %+v, %w\n%s", s, err, a.log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// end stops the agent, or kills it.
func (a *runningAgent) end(kill bool) error {
	a.client.CloseIdleConnections()
	sig := os.Signal(os.Interrupt)
	if kill {
		sig = os.Kill
	}
	if err := a.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if err := a.cmd.Wait(); err != nil && !kill {
		return fmt.Errorf("the agent ends with %w\n%s", err, a.log)
	}
	return nil
}
