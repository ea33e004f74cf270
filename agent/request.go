package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fieldagent/queue"
)

// request is what arrives on cmd/<name>.
type request struct {
	ID      string          `json:"id"`
	Args    json.RawMessage `json:"args,omitempty"`
	Expires *time.Time      `json:"expires,omitempty"`
}

// result is the data of the event on cmd/<name>/result.
type result struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (r result) event(name string, to *replyTo) queue.Event {
	return resultEvent(name, mustJSON(r), to)
}

func resultEvent(name string, data json.RawMessage, to *replyTo) queue.Event {
	e := queue.Event{Type: resultType, Topic: "cmd/" + name + "/result", QoS: 1, Data: data}
	if to != nil {
		e.Properties = &queue.Properties{ReplyTopic: to.Topic, ReplyData: to.Data}
	}
	return e
}

const commandForm = `a command is JSON like {"id":"c-19","args":{},"expires":"2026-11-22T10:05:00Z"}`

// parseRequest reads a command strictly: a misspelt "expires" must not make it last for ever. The id is there with an error too, as far as it is known, for
// the answer.
func parseRequest(body []byte) (req request, err error) {
	switch {
	case len(body) > maxCommand:
		return req, fmt.Errorf("the command has %d bytes, the limit is %d", len(body), maxCommand)
	case len(bytes.TrimSpace(body)) == 0:
		return req, errors.New("the message is empty; " + commandForm)
	}
	m, twice, err := fields(body)
	if err != nil {
		return req, fmt.Errorf("the message is %w; %s", err, commandForm)
	}
	if id, ok := m["id"]; ok && json.Unmarshal(id, &req.ID) != nil {
		req.ID = string(id[:min(len(id), maxCommandID)])
		return req, fmt.Errorf(`"id" must be a text, in quotes; %s`, commandForm)
	}
	if len(twice) > 0 {
		return req, fmt.Errorf("%q is there twice", twice[0])
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch raw := m[name]; name {
		case "id":
		case "args":
			if raw[0] != '{' && !isNull(raw) {
				return req, errors.New(`"args" must be an object`)
			}
			req.Args = raw
		case "expires":
			if json.Unmarshal(raw, &req.Expires) != nil {
				return req, fmt.Errorf(`"expires": %.100s: write it like "2026-11-22T10:05:00Z"`, raw)
			}
		default:
			return req, fmt.Errorf("%q is unknown; %s", name, commandForm)
		}
	}
	if req.ID == "" || len(req.ID) > maxCommandID {
		return req, fmt.Errorf(`"id" must have 1 to %d characters: it is what makes the command run once`, maxCommandID)
	}
	return req, nil
}

// decodeArgs reads the arguments of a built-in command strictly.
func decodeArgs(args json.RawMessage, into any) error {
	if len(args) == 0 || string(bytes.TrimSpace(args)) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(args))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return fmt.Errorf("args: %s: a JSON %s is not wanted here", kind.Field, kind.Value)
		}
		return fmt.Errorf("args: %w", err)
	}
	return nil
}
