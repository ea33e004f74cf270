package powercut

import (
	"bytes"
	"context"
	"encoding/json"
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

// TestPowerCutAgent cuts the power under the built agent, from its first start on.
func TestPowerCutAgent(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "fieldagent")
	build := exec.Command("go", "build", "-o", program, "./cmd/fieldagent")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	config := filepath.Join(dir, "fieldagent.yaml")
	if err := os.WriteFile(config, []byte("device: {id: cut}\nmqtt: {servers: [\"mqtt://127.0.0.1:9\"]}\n"), 0o600); err != nil {
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
	for life := range 3 {
		a := startAgent(t, program, config, filepath.Join(mount, "state"), filepath.Join(dir, fmt.Sprint("s", life)))
		var users sync.WaitGroup
		for p := range 3 {
			users.Go(func() {
				for n := range 15 {
					a.emit(t, d.Journal, Token(string(rune('a'+life)), fmt.Sprint("p", p), n+1, 100+20*n))
				}
			})
		}
		users.Wait()
		a.end(t, life == 1)
	}
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	seed := drawSeed()
	w := &Walk{Journal: d.Journal, Start: NewModel(), States: max(*states/10, 200), Seed: seed, Scratch: scratch(t), Check: CheckState(queue.Options{})}
	n, found := w.Run()
	t.Logf("seed %d: %d operations, %d states of the agent checked, %d violations", seed, len(d.Ops()), n, len(found))
	if len(Facts(d.Journal)) != 3*3*15*2 {
		t.Errorf("%d facts, some event was refused", len(Facts(d.Journal)))
	}
	tell(t, w, nil, found)
}

type runningAgent struct {
	cmd    *exec.Cmd
	client http.Client
	log    *bytes.Buffer
}

func startAgent(t *testing.T, program, config, state, socket string) *runningAgent {
	t.Helper()
	a := &runningAgent{cmd: exec.Command(program, "run", "--config", config, "--state", state, "--socket", socket), log: &bytes.Buffer{}}
	a.cmd.Stderr = a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	for deadline := time.Now().Add(time.Minute); ; {
		r, err := a.client.Get("http://agent/v1/status")
		if err == nil {
			r.Body.Close()
			return a
		}
		if time.Now().After(deadline) {
			a.cmd.Process.Kill()
			a.cmd.Wait()
			t.Fatalf("the agent does not start: %v\n%s", err, a.log)
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

// end stops the agent, or kills it.
func (a *runningAgent) end(t *testing.T, kill bool) {
	t.Helper()
	a.client.CloseIdleConnections()
	sig := os.Signal(os.Interrupt)
	if kill {
		sig = os.Kill
	}
	if err := a.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil && !kill {
		t.Errorf("the agent ends with %v\n%s", err, a.log)
	}
}
