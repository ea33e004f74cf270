package proxy

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"fieldagent/integration/wire"
)

// Each action is shown to a pair of peers: what arrives, what comes back, who is still connected.
func TestActions(t *testing.T) {
	for _, c := range []struct {
		do         Action
		atBroker   []uint16 // ids of the three PUBLISHes that arrive
		atAgent    []uint16 // ids of the PUBACKs that come back
		stillThere bool
	}{
		{Pass, []uint16{1, 2, 3}, []uint16{1, 2, 3}, true},
		{Drop, []uint16{1}, []uint16{1}, true},
		{Repeat, []uint16{1, 2, 2, 3}, []uint16{1, 2, 2, 3}, true},
		{Delay, []uint16{1, 2, 3}, []uint16{1, 2, 3}, true},
		{Forget, []uint16{1, 2, 3}, []uint16{1}, true},
		{CutBefore, []uint16{1}, []uint16{1}, false},
		{CutAfter, []uint16{1, 2}, nil, false},
		{Freeze, []uint16{1}, []uint16{1}, true},
	} {
		t.Run(string("-"+c.do), func(t *testing.T) {
			atBroker := make(chan uint16, 10)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					p, err := wire.Read(in, 1000)
					if err != nil {
						close(atBroker)
						return
					}
					atBroker <- p.ID()
					conn.Write(wire.Ack(wire.PUBACK, p.ID()).Raw)
				}
			}()
			log, err := wire.CreateLog(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			p, err := Listen(l.Addr().String(), log)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- p.Run(ctx) }()
			struck := make(chan struct{})
			p.Set(Rule{Dir: ToBroker, Kind: wire.PUBLISH, Nth: 2, Do: c.do, Hold: 20 * time.Millisecond, Then: func() { close(struck) }})

			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			var back []uint16
			read := func() bool {
				conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				ack, err := wire.Read(in, 1000)
				if err == nil {
					back = append(back, ack.ID())
				}
				return err == nil
			}
			conn.Write(wire.Publish(1, "t", nil, 1, false).Raw)
			read()
			conn.Write(wire.Publish(2, "t", nil, 1, false).Raw)
			<-struck
			conn.Write(wire.Publish(3, "t", nil, 1, false).Raw)
			for read() {
			}
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err = in.ReadByte()
			timeout, _ := err.(net.Error)
			if still := timeout != nil && timeout.Timeout(); still != c.stillThere {
				t.Errorf("still connected: %t (%v)", still, err)
			}
			var got []uint16
			for range len(c.atBroker) {
				got = append(got, <-atBroker)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			for id := range atBroker {
				got = append(got, id)
			}
			if !equal(got, c.atBroker) {
				t.Errorf("broker got %v, want %v", got, c.atBroker)
			}
			if c.atAgent != nil && !equal(back, c.atAgent) {
				t.Errorf("agent got %v, want %v", back, c.atAgent)
			}
		})
	}
}

func equal(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
