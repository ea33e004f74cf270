package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"fieldagent/queue"
)

const maxWait = 10 * time.Minute

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
	if _, ok := v.(*string); ok {
		return "a text is wanted"
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
