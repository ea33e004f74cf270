package transport

import (
	"context"
	"encoding/binary"
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
	dns := addresses(t)
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", dns)
	}}
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

// addresses is a name server that knows ::1 and 127.0.0.1 for every name (RFC 1035 section 4.1, RFC 3596).
func addresses(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12
			for end < n && b[end] != 0 {
				end += 1 + int(b[end])
			}
			if end+5 > n {
				continue
			}
			kind := binary.BigEndian.Uint16(b[end+1:])
			data := map[uint16][]byte{1: {127, 0, 0, 1}, 28: net.IPv6loopback}[kind]
			answer := append([]byte(nil), b[:end+5]...)
			binary.BigEndian.PutUint16(answer[2:], 0x8180)
			binary.BigEndian.PutUint64(answer[4:], 1<<48) // the question
			if data != nil {
				binary.BigEndian.PutUint64(answer[4:], 1<<48|1<<32)
				answer = append(answer, 0xc0, 12)
				answer = binary.BigEndian.AppendUint16(answer, kind)
				answer = append(answer, 0, 1, 0, 0, 0, 60, 0, byte(len(data)))
				answer = append(answer, data...)
			}
			_, _ = c.WriteTo(answer, from)
		}
	}()
	return c.LocalAddr().String()
}
