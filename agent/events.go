package agent

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"fieldagent/queue"
)

// timeFormat is RFC 3339 with milliseconds, as in all topics.
const timeFormat = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// appendEvent appends a record as a CloudEvents 1.0 JSON object. It is written by hand since it runs for every event sent;
// type, source and the stamps hold nothing that JSON would have to escape, and data is checked when it is accepted.
func appendEvent(b []byte, source string, r queue.Record, at queue.Stamp, doubtful bool) []byte {
	b = append(b, `{"specversion":"1.0","source":"`...)
	b = append(b, source...)
	b = append(b, `","id":"`...)
	b = appendHex(b, r.ID.Store)
	b = append(b, '-')
	b = appendSequence(b, r.ID.Sequence)
	b = append(b, `","sequence":"`...)
	b = appendSequence(b, r.ID.Sequence)
	b = append(b, `","type":"`...)
	b = append(b, r.Type...)
	b = append(b, `","time":"`...)
	b = at.Wall.UTC().AppendFormat(b, timeFormat)
	b = append(b, `","clock":"`...)
	b = append(b, at.Clock.String()...)
	b = append(b, `","boot":"`...)
	b = appendHex(b, at.Boot)
	if doubtful {
		b = append(b, `","duplicate":"possible`...)
	}
	if len(r.Data) == 0 {
		return append(b, `"}`...)
	}
	b = append(b, `","datacontenttype":"application/json","data":`...)
	b = append(b, r.Data...)
	return append(b, '}')
}

// isReading says whether a record is a sensor's reading that goes through the outbox.
func isReading(r queue.Record) bool { return strings.HasPrefix(r.Topic, "sensor/") }

// appendKept appends a reading that went through the outbox: as on the same topic without it, and with what a consumer needs to prove that nothing is missing.
func appendKept(b []byte, source string, r queue.Record, at queue.Stamp, doubtful bool) []byte {
	b = appendTime(b, at)
	rest := r.Data
	for _, key := range []string{`{"time":"`, `,"clock":"`} { // as they were known then
		if after, ok := bytes.CutPrefix(rest, []byte(key)); ok {
			rest = after[bytes.IndexByte(after, '"')+1:]
		}
	}
	b = append(b, bytes.TrimSuffix(rest, []byte("}"))...)
	b = append(append(b, `,"source":"`...), source...)
	b = append(append(b, `","id":"`...), r.ID.String()...)
	b = append(b, `","sequence":"`...)
	b = appendSequence(b, r.ID.Sequence)
	if doubtful {
		b = append(b, `","duplicate":"possible`...)
	}
	return append(b, `"}`...)
}

func appendHex(b []byte, v uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// appendSequence writes 16 decimal digits: sequences compare as text, too.
func appendSequence(b []byte, v uint64) []byte {
	var d [20]byte
	s := strconv.AppendUint(d[:0], v, 10)
	for range 16 - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}

func bootString(boot uint32) string { return fmt.Sprintf("%08x", boot) }

// eventTopic is where a record goes: its own topic below the root, else event/<type>.
func eventTopic(root string, e queue.Event) string {
	if e.Topic != "" {
		return root + "/" + e.Topic
	}
	return root + "/event/" + e.Type
}
