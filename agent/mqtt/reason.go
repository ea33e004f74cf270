package mqtt

import "fmt"

// Reason codes that mean more than failure (MQTT 5.0 section 2.4).
const (
	firstFailure        = 0x80
	reasonProtocol      = 0x82
	reasonBadVersion    = 0x84
	reasonUnavailable   = 0x88
	reasonBusy          = 0x89
	reasonQuota         = 0x97
	reasonNoRetain      = 0x9a
	reasonNoQoS         = 0x9b
	reasonAnotherServer = 0x9c
	reasonServerMoved   = 0x9d
)

// reasons are the standard's words, in order of code.
var reasons = map[byte]string{
	0x00: "success", 0x01: "granted QoS 1", 0x02: "granted QoS 2", 0x04: "disconnect with will message", 0x10: "no matching subscribers", 0x11: "no subscription existed",
	0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error", 0x84: "unsupported protocol version",
	0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy", 0x8a: "banned",
	0x8b: "server shutting down", 0x8c: "bad authentication method", 0x8d: "keep alive timeout", 0x8e: "session taken over", 0x8f: "topic filter invalid",
	0x90: "topic name invalid", 0x91: "packet identifier in use", 0x92: "packet identifier not found", 0x93: "receive maximum exceeded", 0x94: "topic alias invalid",
	0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded", 0x98: "administrative action", 0x99: "payload format invalid",
	0x9a: "retain not supported", 0x9b: "QoS not supported", 0x9c: "use another server", 0x9d: "server moved", 0x9e: "shared subscriptions not supported",
	0x9f: "connection rate exceeded", 0xa0: "maximum connect time", 0xa1: "subscription identifiers not supported", 0xa2: "wildcard subscriptions not supported",
}

// remedies for codes that an owner can do something about.
var remedies = map[byte]string{
	0x84: `set mqtt.version to "3.1.1"`,
	0x85: "set another mqtt.client_id",
	0x86: "check mqtt.username and mqtt.password_file",
	0x87: "check mqtt.username, mqtt.password_file and the broker's access list",
	0x8a: "ask the broker's owner",
	0x8c: "check mqtt.username and mqtt.password_file",
	0x8e: "another client uses the same client id; give each device its own mqtt.client_id",
	0x90: "check mqtt.prefix and the broker's access list",
	0x95: "raise the broker's largest packet, or send smaller events",
	0x9b: "set mqtt.will.qos to less",
}

// Reason is a reason code in words, with its number and what the broker said beside it: "not authorized (0x87): no such topic".
func Reason(code byte, text string) string {
	word := reasons[code]
	if word == "" {
		word = "unknown reason"
	}
	s := fmt.Sprintf("%s (0x%02x)", word, code)
	if text != "" {
		s += fmt.Sprintf(": %.200q", text)
	}
	return s
}

// Transient says whether a broker that refuses a message for this reason may take it later.
func Transient(code byte) bool { return code == reasonQuota }

// ReasonError is why the broker refused or ended a connection (MQTT 5.0 sections 3.2.2.2 and 3.14.2.1).
type ReasonError struct {
	Refused   bool // by CONNACK; else DISCONNECT
	Code      byte
	Text      string
	Reference string // of another server
}

// Is finds ErrConnectRefused in a refusal that waiting does not mend.
func (e *ReasonError) Is(target error) bool {
	return target == ErrConnectRefused && e.Refused && e.Code != reasonUnavailable && e.Code != reasonBusy
}

func (e *ReasonError) Error() string {
	s := "the broker ends the connection: "
	if e.Refused {
		s = "the broker refuses the connection: "
	}
	s += Reason(e.Code, e.Text)
	if e.Reference != "" {
		s += fmt.Sprintf(", it names %q", e.Reference)
	}
	if r := remedies[e.Code]; r != "" {
		s += "; " + r
	}
	return s
}
