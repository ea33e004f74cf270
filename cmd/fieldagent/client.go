package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"fieldagent/agent"
	"fieldagent/queue"
)

// errNotRunning is returned when no agent serves the socket.
var errNotRunning = errors.New("the agent does not run")

// call asks the running agent. v gets the answer when the status is below 300.
func (p *program) call(ctx context.Context, method, path string, body, v any) (int, error) {
	status, b, err := p.raw(ctx, method, path, body)
	if err != nil {
		return status, err
	}
	if status >= 300 {
		var e struct {
			Error string
			ID    string
		}
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = string(b)
		}
		if e.ID != "" {
			e.Error += " (id " + e.ID + ")"
		}
		return status, errors.New(e.Error)
	}
	if v == nil {
		return status, nil
	}
	return status, json.Unmarshal(b, v)
}

func (p *program) raw(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, r)
	if err != nil {
		return 0, nil, err
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.socket)
	}}
	defer t.CloseIdleConnections()
	resp, err := (&http.Client{Transport: t}).Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return 0, nil, fmt.Errorf("%w: nobody serves %s; start it (systemctl start fieldagent), or name the right --socket", errNotRunning, p.socket)
	case errors.Is(err, fs.ErrPermission):
		return 0, nil, fmt.Errorf("no right to use %s: join its group (sudo usermod -aG fieldagent $USER), or use sudo", p.socket)
	case err != nil:
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// store opens the state file for reading, for commands that work without a running agent.
func (p *program) store() (*queue.Queue, error) {
	opt := queue.Options{}
	if cfg, _, err := p.load(); err == nil {
		opt = cfg.Outbox.QueueOptions()
	}
	opt.ReadOnly, opt.KeepTrying = true, false
	q, err := queue.Open(p.state, opt)
	switch {
	case errors.Is(err, queue.ErrLocked):
		return nil, fmt.Errorf("%w (process %s); ask it with the right --socket, or end it first (systemctl stop fieldagent)", err, holder(p.state))
	case err != nil:
		return nil, fmt.Errorf("%w; name the right folder with --state", err)
	}
	return q, nil
}

// holder is the process that the lock file in a state folder names.
func holder(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "fieldagent.lock"))
	if who := strings.TrimSpace(string(b)); err == nil && who != "" {
		return who
	}
	return "unknown"
}

// offline runs fn on the state file when no agent answers.
func (p *program) offline(err error, fn func(*queue.Queue) error) error {
	if !errors.Is(err, errNotRunning) {
		return err
	}
	q, err2 := p.store()
	if err2 != nil {
		return errors.Join(err, err2)
	}
	defer q.Close()
	fmt.Fprintln(p.stderr, "the agent does not run; this is its state file")
	return fn(q)
}

// keptEvents is the outbox of a state file; its limit is only known with the configuration.
func (p *program) keptEvents(q *queue.Queue) agent.KeptOutbox {
	k := agent.KeptEvents(q)
	if _, _, err := p.load(); err != nil {
		k.Limit, k.Full = 0, nil
	}
	return k
}

type outboxAnswer struct {
	agent.OutboxStatus
	Events []agent.LifeJSON `json:"events"`
}
