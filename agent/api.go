package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fieldagent/queue"
)

// api is the local API of an agent.
type api struct {
	*Agent
	mux    *http.ServeMux
	ending context.Context // ends when the agent is being stopped: nothing new is taken from then on
}

// API is the local API: HTTP with JSON on a Unix socket. See docs/api.md for its bodies and answers.
func (a *Agent) API() http.Handler { return a.newAPI(context.Background()) }

func (a *Agent) newAPI(ending context.Context) *api {
	mux := http.NewServeMux()
	x := &api{a, mux, ending}
	mux.HandleFunc("POST /v1/events", x.postEvent)
	mux.HandleFunc("GET /v1/events/{id}", a.getEvent)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, a.Status()) })
	mux.HandleFunc("GET /v1/readings", a.getReadings)
	mux.HandleFunc("GET /v1/readings/{name}", a.readNow)
	mux.HandleFunc("GET /v1/outbox", a.getOutbox)
	mux.HandleFunc("GET /v1/outbox/export", a.exportOutbox)
	mux.HandleFunc("POST /v1/outbox/retry/{id}", a.retryEvent)
	mux.HandleFunc("POST /v1/outbox/purge", a.purge)
	mux.HandleFunc("GET /v1/config", a.getConfig)
	mux.HandleFunc("GET /v1/outputs", func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, a.Status().Outputs) })
	mux.HandleFunc("POST /v1/outputs/{name}", x.postOutput)
	mux.HandleFunc("GET /v1/meters", func(w http.ResponseWriter, r *http.Request) { reply(w, http.StatusOK, a.Status().Meters) })
	mux.HandleFunc("POST /v1/meters/{name}", x.postMeter)
	mux.HandleFunc("GET /metrics", a.metrics)
	return x
}

func (x *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if x.log.Enabled(r.Context(), slog.LevelDebug) {
		began, seen := time.Now(), &answered{w, http.StatusOK}
		w = seen
		defer func() {
			x.log.Debug("request to the local API", "method", r.Method, "path", r.URL.Path, "status", seen.status, "took", time.Since(began).Round(time.Microsecond))
		}()
	}
	switch _, pattern := x.mux.Handler(r); {
	case x.ending.Err() != nil:
		refuse(w)
	case pattern == "":
		x.unknown(w, r)
	default:
		x.mux.ServeHTTP(w, r)
	}
}

// answered notes what was answered, for the log.
type answered struct {
	http.ResponseWriter
	status int
}

func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// unknown answers what no route is for: 405 when another method has one.
func (x *api) unknown(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		other := *r
		other.Method = method
		if _, pattern := x.mux.Handler(&other); pattern != "" {
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 {
		fail(w, http.StatusNotFound, fmt.Sprintf("there is no %s %s here", r.Method, r.URL.Path))
		return
	}
	list := strings.Join(allow, ", ")
	w.Header().Set("Allow", list)
	fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("there is no %s for %s; use %s", r.Method, r.URL.Path, list))
}

// errStopping cuts what is still in hand when the time for it is over.
var errStopping = errors.New("the agent is stopping")

// refuse is the answer while the agent is being stopped.
func refuse(w http.ResponseWriter) {
	fail(w, http.StatusServiceUnavailable, errStopping.Error()+", nothing was done: try again when it runs")
}

// apiError is every answer that is no success.
type apiError struct {
	Error  string   `json:"error"`
	Errors []string `json:"errors,omitempty"` // all faults of the body
	ID     string   `json:"id,omitempty"`     // to ask for later
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, message string, all ...string) {
	reply(w, status, apiError{Error: message, Errors: all})
}

// fields reads a JSON object. twice names the keys that it has more than once.
func fields(body []byte) (m map[string]json.RawMessage, twice []string, err error) {
	if !utf8.Valid(body) {
		return nil, nil, errors.New("not valid UTF-8")
	}
	var kind *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &m); errors.As(err, &kind) {
		return nil, nil, fmt.Errorf("no JSON object, but a JSON %s", kind.Value)
	} else if err != nil {
		return nil, nil, fmt.Errorf("no JSON object: %w", err)
	}
	if m == nil {
		return nil, nil, errors.New("no JSON object, but null")
	}
	seen := map[string]bool{}
	d := json.NewDecoder(bytes.NewReader(body))
	for _, err = d.Token(); err == nil && d.More(); {
		var value json.RawMessage
		t, _ := d.Token()
		key, _ := t.(string)
		if err = d.Decode(&value); seen[key] && !slices.Contains(twice, key) {
			twice = append(twice, key)
		}
		seen[key] = true
	}
	return m, twice, err
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

func (a *Agent) getReadings(w http.ResponseWriter, r *http.Request) {
	out := map[string]json.RawMessage{}
	for _, s := range a.Status().Sensors {
		if s.Reading != nil {
			out[s.Name] = s.Reading
		}
	}
	for _, m := range a.config().Meters {
		if b := a.readings.newest(m.Name); b != nil {
			out[m.Name] = b
		}
	}
	reply(w, http.StatusOK, out)
}

func (a *Agent) readNow(w http.ResponseWriter, r *http.Request) {
	b, err := a.Read(r.Context(), r.PathValue("name"))
	if errors.Is(err, ErrNoSensor) {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	reply(w, http.StatusOK, json.RawMessage(b))
}

var errState = errors.New("use queued, sent or dead")

// OutboxList returns the events that are not finished, as GET /v1/outbox shows them. state is queued, sent or dead; "" is all of these.
func OutboxList(q *queue.Queue, after uint64, limit int, state string) ([]LifeJSON, error) {
	if !slices.Contains([]string{"", queue.StateQueued, queue.StateSent, queue.StateDead}, state) {
		return nil, fmt.Errorf("state: %q: %w", state, errState)
	}
	list, err := q.List(after, limit, state)
	out := make([]LifeJSON, 0, len(list))
	for _, l := range list {
		out = append(out, lifeJSON(l))
	}
	return out, err
}

func (a *Agent) getOutbox(w http.ResponseWriter, r *http.Request) {
	limit, after, err := outboxPage(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	list, err := OutboxList(a.queue, after, limit, r.URL.Query().Get("state"))
	if errors.Is(err, errState) {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	reply(w, http.StatusOK, struct {
		OutboxStatus
		Events []LifeJSON `json:"events"`
	}{a.Status().Outbox, list})
}

// MaxList is how many events one answer lists.
const MaxList = 10000

// outboxPage reads limit and after.
func outboxPage(v url.Values) (limit int, after uint64, err error) {
	limit = 100
	if s := v.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return 0, 0, fmt.Errorf("limit: %q: use a whole number, 1 or more", s)
		}
	}
	if s := v.Get("after"); s != "" {
		if after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("after: %q: use a sequence, such as 42", s)
		}
	}
	return min(limit, MaxList), after, nil
}

func (a *Agent) exportOutbox(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	if _, err := a.queue.Export(w); err != nil {
		a.log.Error("export of the outbox", "err", err)
		panic(http.ErrAbortHandler) // the caller must see that it is not whole
	}
}

func (a *Agent) retryEvent(w http.ResponseWriter, r *http.Request) {
	id, ok := a.pathID(w, r)
	if !ok {
		return
	}
	if err := a.Retry(r.Context(), id); err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	reply(w, http.StatusAccepted, map[string]string{"id": id.String()})
}

func (a *Agent) purge(w http.ResponseWriter, r *http.Request) {
	var n int
	var err error
	switch what := r.URL.Query().Get("what"); what {
	case "dead":
		n, err = a.queue.PurgeDead(r.Context())
	case "queued":
		n, err = a.queue.PurgeQueued(r.Context())
	default:
		fail(w, http.StatusBadRequest, fmt.Sprintf("what: %q: use dead or queued", what))
		return
	}
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	a.log.Warn("events removed by hand", "what", r.URL.Query().Get("what"), "events", n)
	reply(w, http.StatusOK, map[string]int{"purged": n})
}

func (a *Agent) getConfig(w http.ResponseWriter, r *http.Request) {
	b, err := a.Effective()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(b)
}

// metrics are in Prometheus' text format.
func (a *Agent) metrics(w http.ResponseWriter, r *http.Request) {
	s := a.Status()
	var b bytes.Buffer
	metric := func(name, kind, help string, value float64) {
		fmt.Fprintf(&b, "# HELP fieldagent_%s %s\n# TYPE fieldagent_%s %s\nfieldagent_%s %s\n", name, help, name, kind, name, strconv.FormatFloat(value, 'f', -1, 64))
	}
	is := func(v bool) float64 {
		if v {
			return 1
		}
		return 0
	}
	metric("connected", "gauge", "1 while the broker is there.", is(s.Broker.Connected))
	metric("connects_total", "counter", "Connections since start.", float64(s.Broker.Connects))
	metric("outbox_events", "gauge", "Events that are not finished.", float64(s.Outbox.Depth))
	metric("outbox_oldest_seconds", "gauge", "Age of the oldest of them.", s.Outbox.OldestAge)
	metric("outbox_bytes", "gauge", "Bytes of the store on disk.", float64(s.Outbox.Bytes))
	metric("outbox_limit_bytes", "gauge", "Its limit.", float64(s.Outbox.Limit))
	metric("outbox_dead_events", "gauge", "Dead letters.", float64(s.Outbox.Dead))
	metric("outbox_refused_total", "counter", "Events refused because the outbox was full.", float64(s.Outbox.Refused))
	metric("outbox_lost_total", "counter", "Events lost to damaged files.", float64(s.Outbox.Lost))
	metric("outbox_ambiguous_total", "counter", "Events that a broker without memory may have had twice.", float64(s.Outbox.Ambiguous))
	metric("outbox_acknowledged_total", "counter", "Events that the broker has confirmed.", float64(s.Outbox.Acknowledged))
	metric("outbox_failing", "gauge", "1 while the disk refuses events.", is(s.Outbox.Error != ""))
	metric("flash_written_today_bytes", "gauge", "Bytes written by the agent since midnight UTC.", float64(s.Outbox.WrittenToday))
	metric("readings_sent_total", "counter", "Live readings sent.", float64(s.Readings.Sent))
	metric("readings_dropped_total", "counter", "Live readings dropped.", float64(s.Readings.Dropped))
	metric("resident_bytes", "gauge", "Memory of the process.", float64(s.Memory.Resident))
	fmt.Fprintf(&b, "# HELP fieldagent_sensor_ok 1 while the sensor works.\n# TYPE fieldagent_sensor_ok gauge\n")
	for _, x := range s.Sensors {
		fmt.Fprintf(&b, "fieldagent_sensor_ok{sensor=%q} %v\n", x.Name, is(x.State == "ok"))
	}
	lineMetrics(&b, s)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(b.Bytes())
}
