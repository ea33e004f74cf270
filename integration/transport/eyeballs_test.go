package transport

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDeadFirstAddress: a name has an IPv6 address that swallows connections, and an IPv4 address with the broker. The second one is tried before the
// first has timed out (RFC 8305).
func TestDeadFirstAddress(t *testing.T) {
	w := newWorld(t)
	_, text, _ := net.SplitHostPort(w.b.Addr())
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	swallow(t, port)
	old := net.DefaultResolver
	net.DefaultResolver = resolver(nameserver(t, func(kind uint16) []byte { // A, AAAA (RFC 3596)
		return map[uint16][]byte{1: {127, 0, 0, 1}, 28: net.IPv6loopback}[kind]
	}))
	defer func() { net.DefaultResolver = old }()
	direct, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := (&net.Dialer{}).DialContext(direct, "tcp", net.JoinHostPort("::1", text)); err == nil {
		c.Close()
		t.Fatal("the first address answers: this proves nothing")
	}
	w.want("the second address", w.connects("mqtt://two.test:"+text, nil), "")
}

// swallow holds [::1]:port with a queue that is full: further connections get no answer at all.
func swallow(t *testing.T, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	addr := &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, addr); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 4 { // one waits to be accepted, the others for that
		c, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, addr); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
}
