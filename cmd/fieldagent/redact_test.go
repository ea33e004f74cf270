package main

import (
	"errors"
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/queue"
)

// What a fault says of a secret's key stays readable; what looks like a secret goes.
func TestRedactLeavesWords(t *testing.T) {
	for text, want := range map[string]string{
		"f.yaml:2:3: mqtt.password: unknown key (did you mean password_file?)": "f.yaml:2:3: mqtt.password: unknown key (did you mean password_file?)",
		"device.labels.token: has no value":                                    "device.labels.token: has no value",
		"secret mqtt-password: open /etc/x: permission denied":                 "secret mqtt-password: open /etc/x: permission denied",
		"password: unknown1":  "password: [redacted]",
		`password: "unknown"`: "password: [redacted]",
		"TOKEN=no-way more":   "TOKEN=[redacted] more",
		"mqtt://me:pass@host": "mqtt://[redacted]host",
	} {
		if got := string(redact([]byte(text), nil)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestReadAllIsBounded(t *testing.T) {
	if b, err := readAll(strings.NewReader("12345"), 5); err != nil || string(b) != "12345" {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := readAll(strings.NewReader("123456"), 5); err == nil || !strings.Contains(err.Error(), "too large: more than 5 bytes") {
		t.Error(err)
	}
}

// The list says that it goes on only when it does.
func TestMoreOfTheOutbox(t *testing.T) {
	for _, c := range []struct {
		state             string
		shown, wait, dead int
		want              string
	}{
		{"", 3, 3, 0, ""}, {"", 3, 14, 0, "14 events wait in all; --limit shows more\n"}, {"", 3, 2, 2, "2 events wait in all, and 2 are dead letters; --limit shows more\n"},
		{queue.StateDead, 3, 14, 3, ""}, {queue.StateDead, 3, 14, 4, "4 dead letters in all; --limit shows more\n"},
		{queue.StateSent, 3, 14, 0, "there may be more; --limit shows more\n"}, {"", agent.MaxList, agent.MaxList + 1, 0, "10001 events wait in all; fieldagent outbox export has all\n"},
	} {
		if got := more(c.state, c.shown, agent.OutboxStatus{Depth: c.wait, Dead: c.dead}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

type fullDevice struct{}

func (fullDevice) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// Whatever a command prints into nothing is a failure.
func TestStandardOutputTakesNothing(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"help"}, {"drivers"}, {"config", "schema"}, {"completion", "bash"}} {
		var errs strings.Builder
		if code := Main(t.Context(), args, strings.NewReader(""), fullDevice{}, &errs); code != exitFailed || errs.String() != "fieldagent: no space left on device\n" {
			t.Errorf("%v: %d, %s", args, code, errs.String())
		}
	}
}
