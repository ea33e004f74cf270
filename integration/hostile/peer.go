// Package hostile is a broker that attacks its clients, over TCP, TLS and WebSocket: each connection gets the next attack of a list. The agent must survive
// them all in little memory, and must not take any of them for the confirmation of an event.
package hostile

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"fieldagent/integration/wire"
)

// patience is how long an attack may last; much shorter than the agent's own for a broker that says nothing.
const patience = 15 * time.Second

// peer is the attacker's end of one connection.
type peer struct {
	net.Conn
	in   *bufio.Reader
	five bool // MQTT 5
}

var (
	errEnded = errors.New("the agent has hung up")
	errHeld  = errors.New("the agent holds the connection")
)

// send writes bytes as they are.
func (p *peer) send(b ...byte) error {
	if _, err := p.Write(b); err != nil {
		return fmt.Errorf("%w: %v", errEnded, err)
	}
	return nil
}

func (p *peer) packet(kind, flags byte, body ...byte) error {
	return p.send(wire.Make(kind, flags, body).Raw...)
}

// await reads until a packet of a kind comes, and of a QoS if it is a PUBLISH.
func (p *peer) await(kind, qos byte) (wire.Packet, error) {
	for {
		got, err := wire.Read(p.in, 1<<22)
		if err != nil {
			return got, fmt.Errorf("%w: %v", errEnded, err)
		}
		if got.Type() == kind && (kind != wire.PUBLISH || got.QoS() == qos) {
			return got, nil
		}
	}
}

// welcome lets the agent in.
func (p *peer) welcome() error {
	if _, err := p.await(wire.CONNECT, 0); err != nil {
		return err
	}
	return p.packet(wire.CONNACK, 0, p.plain(0, 0)...)
}

// plain is the body of a packet, with no properties where MQTT 5 wants some.
func (p *peer) plain(body ...byte) []byte {
	if p.five {
		body = append(body, 0)
	}
	return body
}

// gone returns nil when the agent hangs up, and an error when it holds the connection.
func (p *peer) gone() error {
	_, err := io.Copy(io.Discard, p.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errHeld
	}
	return nil
}

// listener is one transport.
type listener struct {
	scheme string // mqtt, mqtts or ws
	five   bool
	tcp    net.Listener
	tls    *tls.Config
}

func listen(scheme string, five bool, cfg *tls.Config) (*listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return &listener{scheme, five, l, cfg}, err
}

func (l *listener) url() string { return l.scheme + "://" + l.tcp.Addr().String() }

// accept takes the next connection. raw leaves out TLS and WebSocket.
func (l *listener) accept(raw bool) (*peer, error) {
	conn, err := l.tcp.Accept()
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	switch {
	case raw:
	case l.scheme == "mqtts":
		conn = tls.Server(conn, l.tls)
	case l.scheme == "ws":
		if conn, err = upgrade(conn); err != nil {
			return nil, err
		}
	}
	return &peer{conn, bufio.NewReader(conn), l.five}, nil
}
