package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each failure is one line that names the remedy.
func TestExplain(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	cert := &x509.Certificate{NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(0, 0, -1)}
	expired := x509.CertificateInvalidError{Cert: cert, Reason: x509.Expired}
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		err    error
		server string
		now    time.Time
		want   string
	}{
		{fmt.Errorf("TLS: %w", &tls.CertificateVerificationError{Err: expired}), "mqtts://b", now,
			"the broker's certificate is not valid now (from 2025-11-22 to 2026-11-21): renew it, or check this device's clock"},
		{expired, "mqtts://b", time.Unix(0, 0).UTC(),
			"the clock is not set (it says 1970-01-01), so the broker's certificate cannot be checked; it will be tried again once the clock is set"},
		{x509.UnknownAuthorityError{}, "mqtts://b", now, "the broker's certificate is signed by an authority that is not trusted: set mqtt.tls.ca_file to that authority's certificate"},
		{tls.RecordHeaderError{Msg: "x"}, "mqtts://b", now, "the broker does not speak TLS on this port: use mqtt:// or ws://, or the broker's TLS port"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(116)}, "mqtts://b", now, "the broker ends the TLS handshake (certificate required): if it wants a client certificate, set mqtt.tls.cert_file and key_file"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(70)}, "mqtts://b", now, "the broker ends the TLS handshake (protocol version not supported): check the TLS settings of the broker"},
		{fmt.Errorf("%w: %w", errTLS, io.EOF), "mqtts://b", now, "the broker closed the connection during the TLS handshake: does it speak TLS on this port?"},
		{fmt.Errorf("%w: %w", errNoAnswer, io.EOF), "mqtts://b", now, "the broker closed the connection without an answer to CONNECT: if it wants a client certificate, set mqtt.tls.cert_file and key_file"},
		{fmt.Errorf("%w: %w", errNoAnswer, io.EOF), "mqtt://b", now, "the broker closed the connection without an answer to CONNECT: wrong port, or refused by its access rules"},
		{&net.DNSError{Err: "no such host", Name: "brokr"}, "mqtt://brokr", now, "the name brokr cannot be looked up (no such host): check mqtt.servers and the network's DNS"},
		{op(syscall.ECONNREFUSED), "mqtt://b", now, "nothing listens there (connection refused): is the broker running, and is the port right?"},
		{op(syscall.ENETUNREACH), "mqtt://b", now, "there is no route to the broker: check the network"},
		{context.DeadlineExceeded, "mqtt://b", now, "no answer within 30s (mqtt.connect_timeout): check address, port and firewalls"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "mqtt://b", now, "no answer within 30s (mqtt.connect_timeout): check address, port and firewalls"},
		{io.EOF, "mqtt://b", now, "the broker closed the connection"},
		{op(syscall.ECONNRESET), "wss://b", now, "the broker closed the connection"},
		{errors.New("something else"), "mqtt://b", now, "something else"},
		{nil, "mqtt://b", now, "closed"},
	} {
		client, err := New(Options{Config: settings(c.server), Now: func() time.Time { return c.now }})
		if err != nil {
			t.Fatal(err)
		}
		if got := client.explain(client.servers[0], c.err); got != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.err, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for code, want := range map[byte]string{1: "refuses MQTT 3.1.1", 2: "mqtt.client_id", 3: "not available", 4: "check mqtt.username and mqtt.password_file", 5: "not authorised", 9: "code 9"} {
		if got := refusal(code).Error(); !strings.Contains(got, want) {
			t.Errorf("code %d: %s", code, got)
		}
	}
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://broker": "mqtt://broker:1883", "mqtts://b.example.net": "mqtts://b.example.net:8883", "ws://b": "ws://b:80/mqtt", "wss://b/x/y": "wss://b:443/x/y",
		"tcp://b:1": "mqtt://b:1", "ssl://b": "mqtts://b:8883", "mqtt://[::1]:1884": "mqtt://[::1]:1884", "mqtt://10.0.0.7:1/": "mqtt://10.0.0.7:1",
		"unix:///run/broker.sock": "unix:///run/broker.sock",
	} {
		if s, err := ParseServer(in); err != nil || s.String() != want {
			t.Errorf("%s: %v, %v; want %s", in, s, err, want)
		}
	}
	for in, want := range map[string]string{
		"broker": "unknown scheme", "broker:1883": "unknown scheme", "http://b": `unknown scheme "http"; known are mqtt, mqtts, ws, wss and unix`, "mqtt://": "has no host", "mqtt://:1883": "has no host",
		"mqtt://me:hunter2@b": "use username and password_file", "mqtt://b/path": "a path has a meaning only with ws and wss", "ws://b/mqtt?x=hunter2": "the part after ?", "mqtt://b:port": "is no URL", "mqtt://me:hunter2@b:port": "is no URL",
	} {
		_, err := ParseServer(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the secret: %v", in, err)
		}
	}
}

// New names everything that is wrong at once.
func TestNewRefuses(t *testing.T) {
	cfg := settings("http://b", "mqtt://ok")
	cfg.Keepalive, cfg.Reconnect.Min, cfg.TLS.CertFile, cfg.Will.Topic, cfg.ClientID = 1500*time.Millisecond, 2*time.Minute, "/x", "a/#", "a\nb"
	_, err := New(Options{Config: cfg})
	for _, want := range []string{"servers[0]", "reconnect.min", "keepalive", "cert_file and key_file belong together", "will.topic", "client_id"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}

// Without a server a client is no error: it waits, and says for what.
func TestNoServerYet(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, func(context.Context, *Session) error { t.Error("served without a server"); return nil }); err != nil {
		t.Error(err)
	}
	if s := c.State(); s.Connected || !strings.Contains(s.LastError, "mqtt.servers") {
		t.Errorf("%+v", s)
	}
}
