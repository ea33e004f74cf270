package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Transport is the way to a broker. What a server of its own does not say holds for all.
type Transport struct {
	ALPN        []string          `config:"alpn" doc:"Protocols to offer in the TLS handshake, such as mqtt or x-amzn-mqtt-ca: some brokers take MQTT on port 443 only with it."`
	Proxy       string            `config:"proxy" local:"true" doc:"http://host:port (CONNECT) or socks5://host:port; environment takes HTTPS_PROXY and NO_PROXY, none goes straight."`
	ProxyUser   string            `config:"proxy_user" local:"true" doc:"User name at the proxy."`
	ProxyFile   string            `config:"proxy_password_file" local:"true" secret:"file" doc:"File with the password for the proxy, not readable by others."`
	Interface   string            `config:"interface" local:"true" doc:"Network interface to use, such as wwan0, whatever the routes say."`
	Source      string            `config:"source" local:"true" doc:"Own address to connect from."`
	Headers     map[string]string `config:"headers" local:"true" doc:"ws and wss: headers of the handshake. Secrets belong into headers_file."`
	HeadersFile string            `config:"headers_file" local:"true" secret:"file" doc:"ws and wss: file with more headers, a line each; read anew at each connect."`
	SubProtocol string            `config:"subprotocol" doc:"ws and wss: sub-protocol to ask for; mqtt when not given."`
}

// ServerConfig is what is different for one server.
type ServerConfig struct {
	Server    string `config:"server,required" doc:"The server, as it stands in servers."`
	Transport `config:",inline"`
}

func (t Transport) over(base Transport) Transport {
	pick := func(own, all string) string {
		if own != "" {
			return own
		}
		return all
	}
	if len(t.ALPN) == 0 {
		t.ALPN = base.ALPN
	}
	if t.Proxy == "" {
		t.Proxy, t.ProxyUser, t.ProxyFile = base.Proxy, base.ProxyUser, base.ProxyFile
	}
	if t.Interface == "" && t.Source == "" {
		t.Interface, t.Source = base.Interface, base.Source
	}
	if len(t.Headers) == 0 {
		t.Headers = base.Headers
	}
	t.HeadersFile = pick(t.HeadersFile, base.HeadersFile)
	t.SubProtocol = pick(t.SubProtocol, base.SubProtocol)
	return t
}

// Only is c with one of its servers, and what is different for that one.
func (c Config) Only(s Server) Config {
	c.Transport = c.transport(s)
	c.Servers, c.PerServer = []string{s.String()}, nil
	return c
}

// transport is the way to a server, or to the one that it named in its place.
func (c Config) transport(s Server) Transport {
	for _, p := range c.PerServer {
		if own, err := ParseServer(p.Server); err == nil && own.String() == s.origin {
			return p.Transport.over(c.Transport)
		}
	}
	return c.Transport
}

func (c *Config) checkTransport(report func(path, message, hint string)) {
	c.Transport.check("transport", report)
	for i, p := range c.PerServer {
		at := fmt.Sprintf("per_server[%d]", i)
		p.Transport.check(at, report)
		known := false
		own, err := ParseServer(p.Server)
		for _, s := range c.Servers {
			if parsed, e := ParseServer(s); err == nil && e == nil && parsed == own {
				known = true
			}
		}
		if !known {
			report(at+".server", fmt.Sprintf("%q is not in mqtt.servers", redactText(p.Server)), "write it as it stands there")
		}
	}
}

func (t Transport) check(at string, report func(path, message, hint string)) {
	if t.Proxy != "" && t.Proxy != "none" && t.Proxy != "environment" {
		if _, err := parseProxy(t.Proxy); err != nil {
			report(at+".proxy", err.Error(), "write it like http://10.0.0.1:3128 or socks5://10.0.0.1:1080")
		}
	}
	if t.Source != "" {
		if _, err := netip.ParseAddr(t.Source); err != nil {
			report(at+".source", fmt.Sprintf("%q is no address", t.Source), "write an address of this device, or use interface")
		}
	}
	if len(t.Interface) >= unix.IFNAMSIZ || strings.ContainsAny(t.Interface, "/ ") {
		report(at+".interface", fmt.Sprintf("%q is no name of an interface", t.Interface), "see: ip link")
	}
	for i, p := range t.ALPN {
		if p == "" || len(p) > 255 {
			report(fmt.Sprintf("%s.alpn[%d]", at, i), "a protocol has 1 to 255 characters", "such as mqtt or x-amzn-mqtt-ca")
		}
	}
	for k, v := range t.Headers {
		if !validHeader(k, v) {
			report(at+".headers."+k, fmt.Sprintf("%q: no header", k), "write Name: value; a name has letters, digits and -, a value is one line")
		}
	}
}

// validHeader says whether name and value can be a header (RFC 9110 section 5.5).
func validHeader(name, value string) bool {
	token := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}
	return name != "" && strings.TrimFunc(name, token) == "" && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func parseProxy(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("no address of a proxy")
	case u.User != nil:
		return nil, errors.New("user and password do not belong into the address; use proxy_user and proxy_password_file")
	case u.Scheme != "http" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return nil, fmt.Errorf("unknown kind of proxy %q; known are http and socks5", u.Scheme)
	case u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return nil, fmt.Errorf("%q is no address of a proxy", u.Redacted())
	case u.Port() != "" && !isPort(u.Port()):
		return nil, fmt.Errorf("there is no port %s; ports are 1 to 65535", u.Port())
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "3128"}[u.Scheme]+map[string]string{"socks5": "1080", "socks5h": "1080"}[u.Scheme])
	}
	return u, nil
}

// dialer connects over the interface or from the address that is configured. Names with several addresses are tried as RFC 8305 wants it; net.Dialer does that.
func dialer(t Transport) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: 15 * time.Second}
	if t.Source != "" {
		if a, err := netip.ParseAddr(t.Source); err == nil {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		}
	}
	if t.Interface != "" {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			if e := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), t.Interface) }); e != nil {
				return e
			}
			switch {
			case errors.Is(err, unix.ENODEV):
				return fmt.Errorf("there is no interface %q (mqtt.transport.interface): is it up? see: ip link", t.Interface)
			case err != nil:
				return fmt.Errorf("mqtt.transport.interface %q: %w", t.Interface, err)
			}
			return nil
		}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "unix" {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return d.DialContext(ctx, network, address)
	}
}

const maxToken = 64 << 10 // bytes of a password

// password is read anew for each connection: tokens expire.
func (c *Client) password(ctx context.Context) (string, error) {
	cfg := c.opt.Config
	switch {
	case cfg.PasswordFile != "":
		p, err := c.opt.Secret(cfg.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("mqtt.password_file: %w", err)
		}
		return p, nil
	case len(cfg.PasswordCommand) > 0:
		cmd := exec.CommandContext(ctx, cfg.PasswordCommand[0], cfg.PasswordCommand[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		out := &limited{max: maxToken}
		cmd.Stdout = out // standard error is the program's own affair: it may hold secrets
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("mqtt.password_command: %s: %w", cfg.PasswordCommand[0], err)
		}
		p := strings.TrimRight(string(out.b), "\r\n")
		if p == "" || out.over {
			return "", fmt.Errorf("mqtt.password_command: %s printed %s", cfg.PasswordCommand[0], map[bool]string{true: "too much", false: "nothing"}[out.over])
		}
		return p, nil
	}
	return "", nil
}

// limited keeps the first bytes that are written.
type limited struct {
	b    []byte
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.max-len(l.b))
	l.b, l.over = append(l.b, p[:n]...), l.over || n < len(p)
	return len(p), nil
}
