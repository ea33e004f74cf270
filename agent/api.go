package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"fieldagent/queue"
)

const maxWait = 10 * time.Minute

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

// parsePost reads a body strictly and returns every fault in it.
func parsePost(body []byte) (e Event, faults []string) {
	m, twice, err := fields(body)
	if err != nil {
		return e, []string{"the body is " + err.Error()}
	}
	bad := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, name := range twice {
		bad("%s: is there twice", name)
	}
	e.QoS = 1
	for _, name := range slices.Sorted(maps.Keys(m)) {
		raw := m[name]
		switch name {
		case "type":
			if json.Unmarshal(raw, &e.Type) != nil || !queue.ValidName(e.Type) {
				bad("type: %s: use lower-case letters, digits, _ and -, at most 63", raw)
			}
		case "qos":
			if n := 1; !isNull(raw) {
				if json.Unmarshal(raw, &n) != nil || n != 1 && n != 2 {
					bad("qos: %s: use 1 or 2", raw)
				}
				e.QoS = byte(n)
			}
		case "data":
			e.Data = raw
		case "time":
			if err := json.Unmarshal(raw, &e.Time); err != nil { // null is none
				bad("time: %s: write it like 2026-11-22T10:00:00Z", raw)
			}
		case "properties":
			if !isNull(raw) {
				var more []string
				e.Properties, more = parseProperties(raw)
				faults = append(faults, more...)
			}
		default:
			bad("%s: unknown; known are type, qos, data, time, properties", name)
		}
	}
	if _, ok := m["type"]; !ok {
		bad("type: missing")
	}
	return e, faults
}

// wanted says what a value must be.
func wanted(v any) string {
	switch v.(type) {
	case *string:
		return "a text is wanted"
	case *uint8:
		return "use 0 or 1"
	}
	return "a whole number is wanted, 0 or more"
}

// mayExpire says whether the owner lets events of a type be thrown away.
func (a *Agent) mayExpire(kind string) bool {
	for _, e := range a.localConfig().MQTT.Properties.Events {
		if e.Type == kind {
			return e.MayExpire
		}
	}
	return false
}

func (x *api) postEvent(w http.ResponseWriter, r *http.Request) {
	limit := int64(x.localConfig().Outbox.MaxRecord)
	if limit == 0 {
		limit = 256 << 10
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit+64<<10))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is above %d bytes (outbox.max_record)", large.Limit))
		return
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	wait := time.Duration(0)
	var faults []string
	if s := r.URL.Query().Get("wait"); s != "" {
		if wait, err = time.ParseDuration(s); err != nil || wait < 0 || wait > maxWait {
			faults = append(faults, fmt.Sprintf("wait: %q: write it like 30s, at most %v", s, maxWait))
		}
	}
	e, more := parsePost(body)
	faults = append(faults, more...)
	if p := e.Properties; p != nil && p.Expiry != nil && !x.mayExpire(e.Type) {
		faults = append(faults, fmt.Sprintf("properties.messageExpiryInterval: events of type %q are kept until they are delivered; the owner can allow it with may_expire under mqtt.properties.events", e.Type))
	}
	if len(faults) > 0 {
		fail(w, http.StatusBadRequest, faults[0], faults...)
		return
	}
	if x.ending.Err() != nil { // the body may have taken its time
		refuse(w)
		return
	}
	id, err := x.Emit(r.Context(), e)
	switch {
	case errors.Is(err, queue.ErrFull):
		fail(w, http.StatusInsufficientStorage, err.Error())
	case errors.Is(err, queue.ErrTooLarge):
		fail(w, http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, queue.ErrInvalid):
		fail(w, http.StatusBadRequest, err.Error(), err.Error())
	case errors.Is(err, queue.ErrUnknown) && id.Sequence > 0:
		reply(w, http.StatusServiceUnavailable, apiError{Error: err.Error(), ID: id.String()})
	case errors.Is(err, queue.ErrClosed):
		refuse(w)
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	case wait > 0:
		x.answerWait(w, r, e, id, wait)
	default:
		reply(w, http.StatusCreated, stored{id.String(), sequence(id)})
	}
}

type stored struct {
	ID       string `json:"id"`
	Sequence string `json:"sequence"`
}

func sequence(id queue.ID) string { return fmt.Sprintf("%016d", id.Sequence) }

// answerWait answers when the handshake is complete, or with 202 when the time is over or the agent is being stopped: stored, not confirmed yet.
func (x *api) answerWait(w http.ResponseWriter, r *http.Request, e Event, id queue.ID, wait time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	defer context.AfterFunc(x.ending, cancel)()
	l, err := x.queue.Wait(ctx, id)
	if err != nil && l.State == "" { // all that is known is that it is stored
		l.State = queue.StateQueued
	}
	status := http.StatusCreated
	if l.State != queue.StateAcked {
		status = http.StatusAccepted
	}
	l.ID, l.Type, l.QoS = id, e.Type, e.QoS
	reply(w, status, lifeJSON(l))
}

// LifeJSON is an event's life as the API shows it.
type LifeJSON struct {
	ID           string     `json:"id"`
	Sequence     string     `json:"sequence"`
	State        string     `json:"state"`
	Type         string     `json:"type,omitempty"` // the audit trail of delivered events does not have it
	QoS          int        `json:"qos,omitempty"`
	Accepted     *time.Time `json:"accepted_at"`
	FirstSent    *time.Time `json:"first_sent_at"`
	Sent         int        `json:"sent"`
	Acknowledged *time.Time `json:"acknowledged_at"`
	Server       string     `json:"server"`
	Reason       string     `json:"reason"`
}

func lifeJSON(l queue.Life) LifeJSON {
	at := func(s queue.Stamp) *time.Time {
		if s.Wall.IsZero() || s.Wall.Unix() < -1e10 {
			return nil
		}
		t := s.Wall.UTC()
		return &t
	}
	return LifeJSON{ID: l.ID.String(), Sequence: sequence(l.ID), State: l.State, Type: l.Type, QoS: int(l.QoS), Accepted: at(l.Accepted), FirstSent: at(l.FirstSent),
		Sent: l.Sent, Acknowledged: at(l.Acknowledged), Server: l.Server, Reason: l.Reason}
}

// EventLife returns the life of an event, as GET /v1/events/{id} shows it.
func EventLife(q *queue.Queue, id queue.ID) (LifeJSON, error) {
	l, err := q.Life(id)
	return lifeJSON(l), err
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

func (a *Agent) pathID(w http.ResponseWriter, r *http.Request) (queue.ID, bool) {
	id, err := queue.ParseID(r.PathValue("id"))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
	}
	return id, err == nil
}

func (a *Agent) getEvent(w http.ResponseWriter, r *http.Request) {
	id, ok := a.pathID(w, r)
	if !ok {
		return
	}
	l, err := EventLife(a.queue, id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		fail(w, http.StatusNotFound, err.Error())
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err.Error())
	default:
		reply(w, http.StatusOK, l)
	}
}

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
