package proxy

import (
	"bufio"
	"net"
	"sync"
	"time"

	"fieldagent/integration/wire"
)

// line is one connection from an agent and its other half to the broker.
type line struct {
	number        int
	agent, broker *net.TCPConn

	mu   sync.Mutex
	gone map[Direction]bool // what goes this way is swallowed
	once sync.Once
	done chan struct{}
}

// cut resets both halves: neither end hears a FIN, as when a router forgets a connection and answers with RST.
func (l *line) cut() {
	l.once.Do(func() {
		close(l.done)
		for _, c := range []*net.TCPConn{l.agent, l.broker} {
			c.SetLinger(0)
			c.Close()
		}
	})
}

func (l *line) swallow(d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone == nil {
		l.gone = map[Direction]bool{}
	}
	l.gone[d] = true
}

func (l *line) swallowed(d Direction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone[d]
}

// apply carries out a rule on a packet; false ends the direction.
func (l *line) apply(r Rule, d Direction, packet wire.Packet, out *bufio.Writer) bool {
	switch r.Do {
	case Drop:
		out.Flush() // what was before it has arrived
		l.swallow(d)
		return true
	case Freeze:
		out.Flush()
		l.swallow(ToAgent)
		l.swallow(ToBroker)
		return true
	case CutBefore:
		out.Flush()
		l.settle()
		return false
	case Delay:
		out.Flush()
		select {
		case <-time.After(r.Hold):
		case <-l.done:
			return false
		}
	case Forget:
		l.swallow(other(d))
	case Repeat:
		out.Write(packet.Raw)
	}
	_, err := out.Write(packet.Raw)
	if r.Do == CutAfter {
		out.Flush()
		l.settle()
		return false
	}
	return err == nil
}

// settle cuts after what was written had the time to be read: a reset would take it back out of the receiver's buffer.
func (l *line) settle() {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-l.done:
	}
	l.cut()
}

func other(d Direction) Direction {
	if d == ToAgent {
		return ToBroker
	}
	return ToAgent
}
