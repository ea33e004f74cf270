package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// packet is one packet as the scripted broker reads it.
type packet struct {
	kind, flags byte
	body        []byte
}

func receive(r *bufio.Reader) (packet, error) {
	raw, body, err := readPacket(r, nil, func(byte) int { return 1 << 20 })
	if err != nil {
		return packet{}, err
	}
	return packet{raw[0] >> 4, raw[0] & 15, raw[body:]}, nil
}

// peer is the broker's end of one connection of the client's.
type peer struct {
	net.Conn
	r       *bufio.Reader
	connect packet
}

// world is a network of pipes: each dial is answered by what the test says for the address.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	dials []string
	at    []time.Time
	peers sync.WaitGroup
	serve func(address string, p *peer) // nil: nobody listens
}

func (w *world) dial(_ context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials, w.at = append(w.dials, address), append(w.at, time.Now())
	if w.serve == nil || strings.HasPrefix(address, "nobody") {
		return nil, errors.New("nobody is there")
	}
	ours, theirs := net.Pipe()
	w.peers.Go(func() {
		defer theirs.Close()
		w.serve(address, &peer{Conn: theirs, r: bufio.NewReader(theirs)})
	})
	return ours, nil
}

// accept takes the CONNECT and answers it.
func (p *peer) accept(present bool) bool {
	var err error
	if p.connect, err = receive(p.r); err != nil || p.connect.kind != typeConnect {
		return false
	}
	flag := byte(0)
	if present {
		flag = 1
	}
	_, err = p.Write([]byte{typeConnack << 4, 2, flag, 0})
	return err == nil
}

// answer lives as a broker that keeps nothing: it answers PINGREQ and SUBSCRIBE until the connection or the client ends.
func (p *peer) answer(code func(filter string) byte) {
	for {
		in, err := receive(p.r)
		if err != nil || in.kind == typeDisconnect {
			return
		}
		switch in.kind {
		case typePingreq:
			_, err = p.Write([]byte{typePingresp << 4, 0})
		case typeSubscribe:
			ack := []byte{typeSuback << 4, 2, in.body[0], in.body[1]}
			for rest := in.body[2:]; len(rest) > 0; {
				n := 2 + int(binary.BigEndian.Uint16(rest))
				c := rest[n]
				if code != nil {
					c = code(string(rest[2:n]))
				}
				ack, rest = append(ack, c), rest[n+1:]
				ack[1]++
			}
			_, err = p.Write(ack)
		}
		if err != nil {
			return
		}
	}
}

func settings(servers ...string) Config {
	return Config{Servers: servers, Version: "3.1.1", ClientID: "pump-7", Keepalive: 30 * time.Second, ConnectTimeout: 30 * time.Second,
		Reconnect: Reconnect{Min: time.Second, Max: time.Minute}, Window: 16, MaxPacket: 128 << 10, Will: Will{Topic: "pump-7/status", Payload: "offline", QoS: 1, Retain: true}}
}

// run runs a client in the world until the returned function is called.
func (w *world) run(cfg Config, log io.Writer, serve func(context.Context, *Session) error) (*Client, func()) {
	w.t.Helper()
	if log == nil {
		log = io.Discard
	}
	c, err := New(Options{Config: cfg, Dial: w.dial, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, serve) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.peers.Wait()
	}
}

// hold serves a connection for as long as it lives.
func hold(ctx context.Context, _ *Session) error {
	<-ctx.Done()
	return context.Cause(ctx)
}
