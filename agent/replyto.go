package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"fieldagent/agent/mqtt"
)

// replyTo says where whoever sent a command awaits its result, besides the result's own topic: Response Topic and Correlation Data (MQTT 5.0 section 4.10).
//
// The result stays one event, with one sequence number. A copy of its message goes to the response topic at QoS 0, right before the event
// itself on the same connection, so the broker has the copy when it confirms the event; it is repeated when the event is. Whoever misses it sends the command again with the same id.
type replyTo struct {
	Topic string `json:"topic"`
	Data  []byte `json:"data,omitempty"`
}

// askedFor returns a command's body and where to reply. A request without an id of its own is known by its correlation data.
func (c *commands) askedFor(m mqtt.Message) (body []byte, to *replyTo, err error) {
	if m.ResponseTopic == "" {
		return m.Payload, nil, nil
	}
	switch {
	case strings.HasPrefix(m.ResponseTopic, c.root+"/"), strings.HasPrefix(m.ResponseTopic, "$"):
		return nil, nil, fmt.Errorf("responseTopic: %q: results are not sent there", m.ResponseTopic)
	case checkTopic(m.ResponseTopic) != nil:
		return nil, nil, fmt.Errorf("responseTopic: %w", checkTopic(m.ResponseTopic))
	case len(m.Correlation) > maxProperty:
		return nil, nil, fmt.Errorf("correlation data of %d bytes, at most %d", len(m.Correlation), maxProperty)
	}
	to = &replyTo{Topic: m.ResponseTopic, Data: m.Correlation}
	body = bytes.TrimSpace(m.Payload)
	if len(body) == 0 {
		body = []byte("{}")
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields["id"] != nil {
		return body, to, nil
	}
	if len(m.Correlation) == 0 {
		return nil, to, errors.New(`a command needs an "id", or correlation data: it is what makes the command run once`)
	}
	sum := sha256.Sum256(append([]byte(m.ResponseTopic+"\x00"), m.Correlation...))
	fields["id"] = mustJSON("mqtt5-" + hex.EncodeToString(sum[:12]))
	return mustJSON(fields), to, nil
}

// keep packs a command's body for the inbox, together with where to reply: a zero byte, which begins no JSON, then the reply and the body.
func keep(body []byte, to *replyTo) []byte {
	if to == nil {
		return body
	}
	r := mustJSON(to)
	b := binary.AppendUvarint([]byte{0}, uint64(len(r)))
	return append(append(b, r...), body...)
}

// kept unpacks what keep packed.
func kept(b []byte) (body []byte, to *replyTo) {
	if len(b) == 0 || b[0] != 0 {
		return b, nil
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > uint64(len(b)-1-size) {
		return b, nil
	}
	rest := b[1+size:]
	to = &replyTo{}
	if json.Unmarshal(rest[:n], to) != nil {
		to = nil
	}
	return rest[n:], to
}
