package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// parseRequest reads a command strictly: a misspelt "expires" must not make it last for ever.
func parseRequest(body []byte) (request, error) {
	var req request
	if len(body) > maxCommand {
		return req, fmt.Errorf("the command has %d bytes, the limit is %d", len(body), maxCommand)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		_ = json.Unmarshal(body, &struct{ ID *string }{&req.ID}) // for the answer
		return req, fmt.Errorf(`%v; a command is JSON like {"id":"c-19","args":{},"expires":"2026-11-22T10:05:00Z"}`, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return req, errors.New("there is something after the JSON object")
	}
	if req.ID == "" || len(req.ID) > maxCommandID {
		return req, fmt.Errorf(`"id" must have 1 to %d characters: it is what makes the command run once`, maxCommandID)
	}
	if a := bytes.TrimSpace(req.Args); len(a) > 0 && a[0] != '{' && string(a) != "null" {
		return req, errors.New(`"args" must be an object`)
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
		return fmt.Errorf("args: %w", err)
	}
	return nil
}
