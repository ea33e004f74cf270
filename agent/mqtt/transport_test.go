package mqtt

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel gives up on data that nobody acknowledges when the keepalive would.
func TestUserTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := settings("mqtt://" + l.Addr().String())
	cfg.Keepalive = 20 * time.Second
	c, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := c.dial(t.Context(), c.servers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != 30000 {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, %v", ms, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
