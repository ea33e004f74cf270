package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fieldagent/agent/config"
	"fieldagent/queue"
)

// served is an agent whose local API is served on a socket; only its store runs beside.
type served struct {
	*Agent
	socket string
	client *http.Client
	stop   context.CancelFunc
	ended  chan error // of ServeLocal
}

func serveAPI(t *testing.T, crash func(point string)) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "fa-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	source := config.Source{Name: "f.yaml", Data: []byte(localFile("127.0.0.1:1", ""))}
	opt := Options{Clock: NewClock(nil)}
	if err := config.Load(&opt.Config, ConfigOptions(nil), source); err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(filepath.Join(dir, "state"), queue.Options{Now: opt.Clock.Now, Crash: crash})
	if err != nil {
		t.Fatal(err)
	}
	opt.Queue = q
	store, end := context.WithCancel(t.Context())
	stored := make(chan error, 1)
	go func() { stored <- q.Run(store) }()
	t.Cleanup(func() {
		end()
		if err := errors.Join(<-stored, q.Close()); err != nil {
			t.Error(err)
		}
	})
	a, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenLocal(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{Agent: a, socket: l.Addr().String(), ended: make(chan error, 1)}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	t.Cleanup(s.stop)
	go func() { s.ended <- a.ServeLocal(ctx, l) }()
	s.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}}}
	return s
}

type apiAnswer struct {
	status int
	body   string
	err    error
}

func (s *served) post(path string, body io.Reader) apiAnswer {
	resp, err := s.client.Post("http://agent"+path, "application/json", body)
	if err != nil {
		return apiAnswer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return apiAnswer{resp.StatusCode, string(b), err}
}

// held is a body that says when it is being read, and then waits.
type held struct {
	reading chan struct{}
	body    io.Reader
}

func (h *held) Read(p []byte) (int, error) {
	n, err := h.body.Read(p)
	if err == io.EOF {
		h.reading <- struct{}{}
		<-h.reading
	}
	return n, err
}

// An agent that is being stopped answers what is in hand: nothing is stored without an answer, and nothing is taken any more.
func TestLocalStopAnswers(t *testing.T) {
	const event = `{"type":"vend","data":1}`
	t.Run("stored", func(t *testing.T) {
		var armed atomic.Bool
		point := make(chan struct{})
		s := serveAPI(t, func(name string) {
			if name == "before commit" && armed.CompareAndSwap(true, false) {
				point <- struct{}{}
				<-point
			}
		})
		armed.Store(true)
		got := make(chan apiAnswer, 1)
		go func() { got <- s.post("/v1/events", strings.NewReader(event)) }()
		<-point // it is being stored
		s.stop()
		for {
			c, err := net.Dial("unix", s.socket)
			if err != nil {
				break // nobody listens any more
			}
			c.Close()
		}
		select {
		case err := <-s.ended:
			t.Fatalf("ServeLocal returned before the answer: %v", err)
		default:
		}
		point <- struct{}{}
		if a := <-got; a.status != http.StatusCreated {
			t.Errorf("%+v", a)
		}
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("waits", func(t *testing.T) {
		s := serveAPI(t, nil)
		got := make(chan apiAnswer, 1)
		go func() { got <- s.post("/v1/events?wait=9m", strings.NewReader(event)) }()
		for <-s.queue.Added(); s.queue.Position().Last == 0; {
			<-s.queue.Added()
		}
		s.stop()
		if a := <-got; a.status != http.StatusAccepted || !strings.Contains(a.body, `"state":"queued"`) || !strings.Contains(a.body, `"type":"vend","qos":1`) {
			t.Errorf("%+v", a)
		}
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("comes in slowly", func(t *testing.T) {
		s := serveAPI(t, nil)
		got := make(chan apiAnswer, 1)
		body := &held{make(chan struct{}), strings.NewReader(event)}
		go func() { got <- s.post("/v1/events", body) }()
		<-body.reading
		s.stop()
		body.reading <- struct{}{}
		if a := <-got; a.err == nil && (a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "the agent is stopping, nothing was done")) {
			t.Errorf("%+v", a)
		}
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
		if n := s.queue.Position().Last; n != 0 {
			t.Errorf("%d events are stored", n)
		}
	})
	t.Run("comes late", func(t *testing.T) {
		s := serveAPI(t, nil)
		s.stop()
		<-s.ended
		if a := s.post("/v1/events", strings.NewReader(event)); a.err == nil {
			t.Errorf("%+v", a)
		}
		ending, end := context.WithCancel(t.Context())
		end()
		w := httptest.NewRecorder()
		s.newAPI(ending).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(event)))
		if w.Code != http.StatusServiceUnavailable || s.queue.Position().Last != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// Only a socket that nobody serves is replaced.
func TestLocalSocketReplaced(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, c := range map[string]struct {
		make func() error
		want string
	}{
		"nothing":       {func() error { return nil }, ""},
		"file":          {func() error { return os.WriteFile("file", []byte("precious"), 0o600) }, "file is there and is no socket; name another with --socket"},
		"folder":        {func() error { return os.Mkdir("folder", 0o700) }, "folder is there and is no socket"},
		"link":          {func() error { return os.Symlink("file", "link") }, "link is there and is no socket"},
		"left-behind":   {func() error { return leave("left-behind") }, ""},
		"new/and/empty": {func() error { return nil }, ""},
	} {
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		l, err := ListenLocal(name)
		if err == nil {
			l.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile("file"); err != nil || string(b) != "precious" {
		t.Errorf("the file: %s, %v", b, err)
	}
	if info, err := os.Stat("folder"); err != nil || !info.IsDir() {
		t.Errorf("the folder: %v", err)
	}
}

// leave makes a socket that nobody serves.
func leave(name string) error {
	l, err := net.Listen("unix", name)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Close()
}

func TestAPIRefusals(t *testing.T) {
	r := start(t, t.TempDir(), localFile("127.0.0.1:1", ""), nil)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"no UTF-8":                 {"POST", "/v1/events", "{\"type\":\"x\",\"data\":\"\xff\"}", 400, "the body is not valid UTF-8"},
		"no UTF-8 in a key":        {"POST", "/v1/events", "{\"type\":\"x\",\"data\":{\"\xc3\":1}}", 400, "the body is not valid UTF-8"},
		"an array":                 {"POST", "/v1/events", `[1]`, 400, "the body is no JSON object, but a JSON array"},
		"a number":                 {"POST", "/v1/events", `7`, 400, "the body is no JSON object, but a JSON number"},
		"null":                     {"POST", "/v1/events", `null`, 400, "the body is no JSON object, but null"},
		"a key twice":              {"POST", "/v1/events", `{"type":"x","qos":1,"qos":2,"data":{"a":1}}`, 400, "qos: is there twice"},
		"a type twice":             {"POST", "/v1/events", `{"type":"x","data":1,"type":"y"}`, 400, "type: is there twice"},
		"a property twice":         {"POST", "/v1/events", `{"type":"x","properties":{"contentType":"a","contentType":"b"}}`, 400, "properties.contentType: is there twice"},
		"a property's kind":        {"POST", "/v1/events", `{"type":"x","properties":{"contentType":7,"payloadFormatIndicator":"x","colour":1}}`, 400, "properties.contentType: a text is wanted"},
		"no properties":            {"POST", "/v1/events", `{"type":"x","properties":7}`, 400, "properties: no JSON object, but a JSON number"},
		"something after it":       {"POST", "/v1/events", `{"type":"x"}{}`, 400, "the body is no JSON object: invalid character"},
		"an output, more":          {"POST", "/v1/outputs/r", `{"state":"ON"} ON`, 400, "the body is no JSON object: invalid character"},
		"an output, a number":      {"POST", "/v1/outputs/r", `{"state":7}`, 400, "state: a text is wanted"},
		"an output, a key":         {"POST", "/v1/outputs/r", `{"state":"ON","until":1}`, 400, "until: unknown; known are for, state"},
		"a meter, a text":          {"POST", "/v1/meters/m", `{"total_pulses":"7"}`, 400, "total_pulses: a whole number is wanted, 0 or more"},
		"a meter, below 0":         {"POST", "/v1/meters/m", `{"total_pulses":-7}`, 400, "total_pulses: a whole number is wanted, 0 or more"},
		"a limit that is a word":   {"GET", "/v1/outbox?limit=abc", "", 400, `limit: \"abc\": use a whole number, 1 or more`},
		"a limit below 1":          {"GET", "/v1/outbox?limit=-1", "", 400, `limit: \"-1\"`},
		"a sequence that is a key": {"GET", "/v1/outbox?after=x", "", 400, `after: \"x\": use a sequence`},
		"another method":           {"GET", "/v1/events", "", 405, "there is no GET for /v1/events; use POST"},
		"another method, a name":   {"DELETE", "/v1/outputs/r", "", 405, "use POST"},
		"another method, two":      {"DELETE", "/metrics", "", 405, "use GET, HEAD"},
		"no path":                  {"GET", "/v1/nothing", "", 404, "there is no GET /v1/nothing here"},
	} {
		w := httptest.NewRecorder()
		r.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), "Go ") {
			t.Errorf("%s: %d %s, want %d with %q", name, w.Code, w.Body, c.status, c.want)
		}
		if _, use, _ := strings.Cut(c.want, "use "); c.status == 405 && w.Header().Get("Allow") != use {
			t.Errorf("%s: Allow: %s", name, w.Header().Get("Allow"))
		}
	}
	if n := r.queue.Position().Last; n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

// What is null is as if it were not there, and all keys of the contract are in an event's life.
func TestAPIEventLife(t *testing.T) {
	r := start(t, t.TempDir(), localFile("127.0.0.1:1", ""), nil)
	w := httptest.NewRecorder()
	r.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/v1/events", strings.NewReader(`{"type":"x","qos":null,"time":null,"properties":null,"data":null}`)))
	var answer struct{ ID string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 201 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	w = httptest.NewRecorder()
	r.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/events/"+answer.ID, nil))
	var life map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &life); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "state", "accepted_at", "first_sent_at", "sent", "acknowledged_at", "server", "reason"} {
		if _, ok := life[key]; !ok {
			t.Errorf("no %q in %s", key, w.Body)
		}
	}
	if life["qos"] != 1.0 || life["type"] != "x" {
		t.Errorf("%s", w.Body)
	}
}

func TestAPIRequestsAreLoggedWhenAskedFor(t *testing.T) {
	r := start(t, t.TempDir(), localFile("127.0.0.1:1", ""), nil)
	r.API().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/v2", nil))
	if line := r.logs.String(); !strings.Contains(line, `level=DEBUG msg="request to the local API" method=GET path=/v2 status=404`) {
		t.Error(line)
	}
}
