package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Log writes one line for each packet that a judge saw, in the order in which it saw them.
type Log struct {
	mu   sync.Mutex
	w    *bufio.Writer
	file *os.File
	buf  []byte
}

// Line is one packet in a log.
type Line struct {
	At    time.Time
	Conn  int    // number of the connection, from 1
	Dir   string // ">" to the broker, "<" from the broker
	Kind  string
	ID    uint16
	QoS   byte
	Dup   bool
	Event string // the event's own id, of a PUBLISH above QoS 0
	Note  string // what was done with it: "", "drop", "repeat" and so on; present or absent for a CONNACK, clean for a CONNECT that wants a new session
}

// CreateLog makes a log file.
func CreateLog(name string) (*Log, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return &Log{w: bufio.NewWriterSize(f, 1<<16), file: f}, nil
}

// Packet writes a line. A nil log writes nothing.
func (l *Log) Packet(conn int, dir string, p Packet, note string) {
	if l == nil {
		return
	}
	event := "-"
	if p.Type() == PUBLISH && p.QoS() > 0 {
		if id := EventID(p.Payload()); id != "" {
			event = id
		}
	}
	switch p.Type() {
	case CONNECT:
		note = strings.TrimSpace(map[bool]string{true: "clean "}[p.CleanSession()] + note)
	case CONNACK:
		note = strings.TrimSpace(map[bool]string{true: "present ", false: "absent "}[p.SessionPresent()] + note)
	}
	dup := byte('0')
	if p.Type() == PUBLISH && p.Dup() {
		dup = '1'
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := strconv.AppendInt(l.buf[:0], time.Now().UnixMicro(), 10)
	b = strconv.AppendInt(append(b, ' '), int64(conn), 10)
	b = append(append(append(b, ' '), dir...), ' ')
	b = append(append(b, Name(p.Type())...), ' ')
	b = strconv.AppendUint(b, uint64(p.ID()), 10)
	q := byte(0)
	if p.Type() == PUBLISH {
		q = p.QoS()
	}
	b = append(b, ' ', '0'+q, ' ', dup, ' ')
	b = append(append(b, event...), ' ')
	b = append(append(b, note...), '\n')
	l.buf = b
	l.w.Write(b)
}

// Flush makes all lines readable in the file.
func (l *Log) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Flush()
}

// Close ends the log.
func (l *Log) Close() error {
	err := l.Flush()
	if e := l.file.Close(); err == nil {
		err = e
	}
	return err
}

// Name is the log's file name.
func (l *Log) Name() string { return l.file.Name() }

// Lines hands every line of a log to fn.
func Lines(r io.Reader, fn func(Line)) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for n := 1; in.Scan(); n++ {
		f := strings.SplitN(in.Text(), " ", 9)
		if len(f) != 9 {
			return fmt.Errorf("line %d: %q is no line of a wire log", n, in.Text())
		}
		at, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		conn, _ := strconv.Atoi(f[1])
		id, _ := strconv.ParseUint(f[4], 10, 16)
		fn(Line{At: time.UnixMicro(at), Conn: conn, Dir: f[2], Kind: f[3], ID: uint16(id), QoS: f[5][0] - '0',
			Dup: f[6] == "1", Event: strings.TrimPrefix(f[7], "-"), Note: f[8]})
	}
	return in.Err()
}

// EventID finds the id of a CloudEvents body without parsing all of it: the first "id" that it has.
func EventID(body []byte) string {
	_, rest, ok := bytes.Cut(body, []byte(`"id":"`))
	if !ok {
		return ""
	}
	id, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok || len(id) > 64 || bytes.ContainsAny(id, " \n") {
		return ""
	}
	return string(id)
}
