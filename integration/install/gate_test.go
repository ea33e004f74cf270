package install

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gate is the container's only way out: a listener on its own loopback, port 1883, that leads to the broker while it is open.
type gate struct {
	l      net.Listener
	broker string

	mu    sync.Mutex
	shut  bool
	rate  int // bytes a second towards the broker; 0 as fast as it goes
	conns map[net.Conn]bool
}

// newGate listens in the network namespace of a process.
func newGate(pid int, broker string) (*gate, error) {
	g := &gate{broker: broker, conns: map[net.Conn]bool{}, shut: true}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its namespace with it
		done <- func() error {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			g.l, err = net.Listen("tcp", "127.0.0.1:1883")
			return err
		}()
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	go g.serve()
	return g, nil
}

// open lets connections through, at a rate in bytes a second towards the broker; 0 is no limit.
func (g *gate) open(rate int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.rate = false, rate
}

// close cuts all connections and takes no new ones.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		c.Close()
	}
}

func (g *gate) serve() {
	for {
		c, err := g.l.Accept()
		if err != nil {
			return
		}
		go g.pass(c)
	}
}

func (g *gate) pass(c net.Conn) {
	defer c.Close()
	if !g.hold(c) {
		return
	}
	defer g.drop(c)
	b, err := net.Dial("tcp", g.broker)
	if err != nil {
		return
	}
	defer b.Close()
	if !g.hold(b) {
		return
	}
	defer g.drop(b)
	go func() {
		_, _ = io.Copy(c, b)
		c.Close()
	}()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		g.mu.Lock()
		rate := g.rate
		g.mu.Unlock()
		if rate > 0 {
			<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if _, err := b.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (g *gate) hold(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.conns[c] = true
	return true
}

func (g *gate) drop(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}
