package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// explain says in one line what is wrong and what mends it.
func (c *Client) explain(s Server, err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		host     x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		dns      *net.DNSError
		remote   *net.OpError
		proxy    *proxyError
		notAfter = "2024-01-01"
	)
	early := errors.As(err, &invalid) && invalid.Reason == x509.Expired && c.opt.Now().Before(invalid.Cert.NotBefore)
	unset := c.opt.Now().Format(time.DateOnly) < notAfter || early && c.opt.Unset()
	switch {
	case err == nil:
		return "closed"
	case errors.As(err, &proxy) && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err):
		return proxy.Error()
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && unset:
		return fmt.Sprintf("the clock is not set (it says %s), so the broker's certificate cannot be checked; it will be tried again once the clock is set", c.opt.Now().Format(time.DateOnly))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the broker's certificate is not valid now (from %s to %s): renew it, or check this device's clock", invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly))
	case errors.As(err, &unknown):
		return "the broker's certificate is signed by an authority that is not trusted: set mqtt.tls.ca_file to that authority's certificate"
	case errors.As(err, &host):
		return fmt.Sprintf("the broker's certificate is not for %s: use the right name in mqtt.servers, or set mqtt.tls.server_name (%s)", host.Host, strings.TrimPrefix(host.Error(), "x509: "))
	case errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls says so of an alert
		return fmt.Sprintf("the broker ends the TLS handshake (%s): %s", strings.TrimPrefix(remote.Err.Error(), "tls: "), c.certificateRemedy(remote.Err.Error()))
	case errors.As(err, &record):
		return "the broker does not speak TLS on this port: use mqtt:// or ws://, or the broker's TLS port"
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be looked up (%s): check mqtt.servers and the network's DNS", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused): is the broker running, and is the port right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to the broker: check the network"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		if strings.Contains(err.Error(), "keepalive") {
			return err.Error()
		}
		return fmt.Sprintf("no answer within %v (mqtt.connect_timeout): check address, port and firewalls", c.opt.Config.ConnectTimeout)
	case ended(err) && errors.Is(err, errTLS):
		return "the broker closed the connection during the TLS handshake: does it speak TLS on this port?"
	case ended(err) && errors.Is(err, errNoAnswer) && s.Secure():
		return "the broker closed the connection without an answer to CONNECT: " + c.certificateRemedy("certificate")
	case ended(err) && errors.Is(err, errNoAnswer) && c.opt.Config.Version == "5":
		return "the broker closed the connection without an answer to CONNECT: wrong port, refused by its access rules, or no MQTT 5 broker (mqtt.version)"
	case ended(err) && errors.Is(err, errNoAnswer):
		return "the broker closed the connection without an answer to CONNECT: wrong port, or refused by its access rules"
	case ended(err):
		return "the broker closed the connection"
	}
	return strings.TrimPrefix(err.Error(), "network Error : ")
}

// certificateRemedy says what to do about a handshake that the broker ends.
func (c *Client) certificateRemedy(alert string) string {
	switch {
	case !strings.Contains(alert, "certificate"):
		return "check the TLS settings of the broker"
	case c.opt.Config.TLS.CertFile == "":
		return "if it wants a client certificate, set mqtt.tls.cert_file and key_file"
	}
	return "it may not take the client certificate; check mqtt.tls.cert_file, and which authorities the broker trusts"
}

var (
	errTLS      = errors.New("TLS")
	errNoAnswer = errors.New("no answer to CONNECT")
)

// ended says whether the other side has ended the connection.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
