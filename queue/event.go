package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Clock says how far a wall time can be trusted.
type Clock uint8

// States of the clock when a record was made.
const (
	ClockUnsynced  Clock = iota // a lower bound
	ClockSynced                 // the kernel's clock was set
	ClockCorrected              // made before the clock was set, corrected later in the same boot
)

// String returns the word that stands in events.
func (c Clock) String() string {
	switch c {
	case ClockSynced:
		return "synced"
	case ClockCorrected:
		return "corrected"
	}
	return "unsynced"
}

// Stamp says when something happened on a board that may have no clock.
type Stamp struct {
	Wall   time.Time     // UTC
	Clock  Clock         // how far Wall can be trusted
	Boot   uint32        // the first four bytes of the kernel's boot id
	Uptime time.Duration // CLOCK_BOOTTIME
}

// Properties are the MQTT 5 properties of a PUBLISH (MQTT 5.0 section 3.3.2.3).
type Properties struct {
	ContentType     string      `json:"contentType,omitempty"`
	PayloadFormat   *byte       `json:"payloadFormatIndicator,omitempty"`
	Expiry          *uint32     `json:"messageExpiryInterval,omitempty"` // seconds
	ResponseTopic   string      `json:"responseTopic,omitempty"`
	CorrelationData []byte      `json:"correlationData,omitempty"` // base64 in JSON
	User            [][2]string `json:"userProperties,omitempty"`

	// Of a command's result: where whoever asked awaits it besides, and what to send along. Never given by a producer.
	ReplyTopic string `json:"replyTopic,omitempty"`
	ReplyData  []byte `json:"replyData,omitempty"`
}

// Event is what a producer hands in.
type Event struct {
	Type       string          // [a-z0-9][a-z0-9_-]{0,62}
	Topic      string          // below the device's root; "" is event/<Type>
	QoS        byte            // 1 or 2
	Data       json.RawMessage // a JSON value, or nil
	At         Stamp           // when it happened
	Properties *Properties
}

// ID names a record for ever: the store's random id and the sequence in it.
type ID struct {
	Store    uint32
	Sequence uint64
}

// String writes an id as events carry it: eight hex digits, a dash, sixteen decimal digits.
func (id ID) String() string { return fmt.Sprintf("%08x-%016d", id.Store, id.Sequence) }

// ParseID reads what String writes.
func ParseID(s string) (ID, error) {
	store, seq, ok := strings.Cut(s, "-")
	a, err := strconv.ParseUint(store, 16, 32)
	b, err2 := strconv.ParseUint(seq, 10, 64)
	if !ok || len(store) != 8 || len(seq) != 16 || err != nil || err2 != nil {
		return ID{}, fmt.Errorf("id %q: want eight hex digits, a dash and sixteen digits, such as 3f9a1c2e-0000000000000042", s)
	}
	return ID{uint32(a), b}, nil
}

// Record is an accepted event.
type Record struct {
	ID       ID
	Accepted Stamp
	Event
}

// Errors that producers and openers see.
var (
	// ErrFull is returned when max_size does not allow another record. Nothing was stored.
	ErrFull = errors.New("the outbox is full")
	// ErrTooLarge is returned when a record's data is above the limit. Nothing was stored.
	ErrTooLarge = errors.New("the event is too large")
	// ErrInvalid is returned when an event breaks a rule of its format. Nothing was stored.
	ErrInvalid = errors.New("the event is invalid")
	// ErrUnknown is returned when the disk failed and nobody can say yet whether the change is stored.
	ErrUnknown = errors.New("outcome unknown")
	// ErrDisk is returned when the disk refused the change. Nothing was stored.
	ErrDisk = errors.New("not stored: the disk refused")
	// ErrReadOnly is returned for changes when the state could only be opened for reading.
	ErrReadOnly = errors.New("the state is read-only")
	// ErrLocked is returned when another agent holds the state.
	ErrLocked = errors.New("the state is held by another agent")
	// ErrNewer is returned when the state was written by a newer version of the agent.
	ErrNewer = errors.New("the state was written by a newer version")
	// ErrNotFound is returned when no record has that id, or it is no longer kept.
	ErrNotFound = errors.New("no such record")
	// ErrClosed is returned after Run has ended.
	ErrClosed = errors.New("the state is closed")
)

// ValidName says whether s can be a type, an id or a name: [a-z0-9][a-z0-9_-]{0,62}.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '_' || c == '-') {
			continue
		}
		return false
	}
	return true
}

func (e Event) check(maxRecord int) error {
	switch {
	case !ValidName(e.Type):
		return fmt.Errorf("%w: type %q: use lower-case letters, digits, _ and -, at most 63", ErrInvalid, e.Type)
	case e.QoS != 1 && e.QoS != 2:
		return fmt.Errorf("%w: qos %d: use 1 or 2", ErrInvalid, e.QoS)
	case len(e.Data) > maxRecord:
		return fmt.Errorf("%w: %d bytes of data, the limit is %d", ErrTooLarge, len(e.Data), maxRecord)
	case len(e.Data) > 0 && !json.Valid(e.Data):
		return fmt.Errorf("%w: data is not JSON", ErrInvalid)
	case !utf8.Valid(e.Data):
		return fmt.Errorf("%w: data is not valid UTF-8", ErrInvalid)
	case strings.ContainsAny(e.Topic, "#+\x00") || len(e.Topic) > 1024:
		return fmt.Errorf("%w: topic %q", ErrInvalid, e.Topic)
	}
	return nil
}
