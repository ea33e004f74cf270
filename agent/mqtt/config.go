package mqtt

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Config is the mqtt: section.
type Config struct {
	Servers         []string       `config:"servers" each_like:"mqtts://broker.example.net:8883" each_schema:"^(([Mm][Qq][Tt][Tt][Ss]?|[Tt][Cc][Pp]|[Ss][Ss][Ll]|[Tt][Ll][Ss])://(([A-Za-z0-9._-]|[^\\x00-\\x7F])+|\\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/?|[Ww][Ss][Ss]?://(([A-Za-z0-9._-]|[^\\x00-\\x7F])+|\\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/([^\\x00-\\x20\\x7F?#%]|%[0-9A-Fa-f]{2})*)?|[Uu][Nn][Ii][Xx]:(//)?/([^\\x00-\\x20\\x7F?#%/]|%[0-9A-Fa-f]{2})([^\\x00-\\x20\\x7F?#%]|%[0-9A-Fa-f]{2})*)$" doc:"Brokers, tried in this order: mqtt://, mqtts://, ws:// or wss:// with host and port, or unix:///path. Without one the agent counts and stores, and waits for an address."`
	Version         string         `config:"version" default:"3.1.1" enum:"3.1.1,5" doc:"MQTT version."`
	ClientID        string         `config:"client_id" doc:"MQTT client id; the device id when not given."`
	Username        string         `config:"username" doc:"User name at the broker."`
	PasswordFile    string         `config:"password_file" local:"true" secret:"file" doc:"File with the password, not readable by others; read anew at each connect."`
	PasswordCommand []string       `config:"password_command" local:"true" doc:"Program and arguments that print the password, such as a token that expires; run at each connect, without a shell."`
	Keepalive       time.Duration  `config:"keepalive" default:"30s" min:"0s" max:"18h" doc:"A broken connection is found within one and a half times this; 0 switches it off."`
	ConnectTimeout  time.Duration  `config:"connect_timeout" default:"30s" min:"1s" max:"10m" doc:"Time for name, TCP, TLS and MQTT handshake together."`
	Reconnect       Reconnect      `config:"reconnect" doc:"Pause between attempts: exponential, with full jitter."`
	CleanSession    bool           `config:"clean_session" doc:"Ask for a new session at each connect. Events in flight may then be delivered twice."`
	Window          int            `config:"window" default:"16" min:"1" max:"1000" doc:"Most events in flight at QoS 1 and 2. Many brokers lose messages above 20."`
	MaxPacket       int64          `config:"max_packet" default:"128KiB" min:"96KiB" max:"16MiB" unit:"bytes" doc:"Largest message that is taken from the broker."`
	SessionExpiry   time.Duration  `config:"session_expiry" default:"0s" min:"0s" doc:"MQTT 5: how long the broker keeps this device's session while it is away; 0 for ever."`
	ReceiveMaximum  int            `config:"receive_maximum" default:"16" min:"1" max:"1000" doc:"MQTT 5: most commands and configurations that the broker may send before they are confirmed."`
	TopicAlias      bool           `config:"topic_alias" default:"true" doc:"MQTT 5: give the topics of readings numbers, where the broker allows it."`
	Redirect        bool           `config:"redirect" default:"true" local:"true" doc:"MQTT 5: follow the broker to another server that it names, never to a weaker connection."`
	Failover        Failover       `config:"failover" doc:"With several servers."`
	Transport       Transport      `config:"transport" doc:"The way to the brokers: proxy, interface, WebSocket headers and so on."`
	PerServer       []ServerConfig `config:"per_server" local:"true" doc:"What is different for single servers."`
	TLS             TLS            `config:"tls" doc:"For mqtts and wss."`
	Will            Will           `config:"will" doc:"What the broker publishes when the agent is gone."`
}

// Failover says what happens with several servers.
type Failover struct {
	ReturnAfter time.Duration `config:"return_after" default:"10m" min:"0s" max:"24h" doc:"How often another server than the first tries whether the first is back, to return to it; 0 never."`
	Events      string        `config:"events" default:"resend" enum:"resend,hold" doc:"QoS 2 events that one broker has and did not confirm: send them to the next one, marked, or hold everything until the first is back."`
}

// Reconnect bounds the pause between attempts.
type Reconnect struct {
	Min time.Duration `config:"min" default:"1s" min:"10ms" max:"1h" doc:"Upper bound of the first pause."`
	Max time.Duration `config:"max" default:"60s" min:"10ms" max:"24h" doc:"Upper bound of every pause."`
}

// TLS settings.
type TLS struct {
	CAFile             string `config:"ca_file" local:"true" doc:"PEM file with the authorities to trust instead of the system's."`
	CertFile           string `config:"cert_file" local:"true" doc:"PEM file with the client certificate."`
	KeyFile            string `config:"key_file" local:"true" secret:"file" doc:"PEM file with the client's key, not readable by others."`
	ServerName         string `config:"server_name" doc:"Name that the broker's certificate must have, when it is not the host in servers."`
	PSK                string `config:"psk" local:"true" doc:"Not supported: Go's TLS knows no pre-shared keys."`
	InsecureSkipVerify bool   `config:"insecure_skip_verify" local:"true" doc:"Take any certificate. Whoever is on the path can then read and change everything; warned of at each connect."`
}

// Will is the last will (MQTT 3.1.1 section 3.1.2.5).
type Will struct {
	Topic   string `config:"topic" doc:"Defaults to <root>/status."`
	Payload string `config:"payload" default:"offline" doc:"Payload of the will."`
	QoS     int    `config:"qos" default:"1" min:"0" max:"2" doc:"QoS of the will."`
	Retain  bool   `config:"retain" default:"true" doc:"Whether the broker keeps the will."`

	Delay time.Duration `config:"delay" default:"0s" min:"0s" max:"24h" doc:"MQTT 5: how long the broker waits for the device to come back before it publishes the will."`
}

// Check reports what the tags cannot say.
func (c *Config) Check(report func(path, message, hint string)) {
	for i, s := range c.Servers {
		if _, err := ParseServer(s); err != nil {
			report(fmt.Sprintf("servers[%d]", i), err.Error(), `write it like "mqtts://broker.example.net:8883"`)
		}
	}
	if c.Reconnect.Min > c.Reconnect.Max {
		report("reconnect.min,reconnect.max", fmt.Sprintf("%v is more than reconnect.max (%v)", c.Reconnect.Min, c.Reconnect.Max), "make it smaller, or reconnect.max larger")
	}
	whole := func(path string, d time.Duration) {
		if d%time.Second != 0 {
			report(path, fmt.Sprintf("%v is not a whole number of seconds", d), "MQTT counts "+path+" in seconds")
		}
	}
	whole("keepalive", c.Keepalive)
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		report("tls,tls.cert_file,tls.key_file", "cert_file and key_file belong together", "give both or none")
	}
	if c.TLS.PSK != "" {
		report("tls.psk", "TLS with pre-shared keys is not supported: the TLS of this program has none", "use certificates (ca_file, cert_file, key_file), or a tunnel such as stunnel on this device with mqtt://127.0.0.1")
	}
	if c.PasswordFile != "" && len(c.PasswordCommand) > 0 {
		report("password_command,password_file", "there is a password_file too", "give one of them")
	}
	if len(c.PasswordCommand) > 0 && !strings.HasPrefix(c.PasswordCommand[0], "/") {
		report("password_command[0]", "the program must be an absolute path", "write /usr/local/bin/"+c.PasswordCommand[0]+", or wherever it is")
	}
	c.checkTransport(report)
	if len(c.ClientID) > 128 || strings.ContainsAny(c.ClientID, "\x00\n") {
		report("client_id", "too long or with control characters", "128 bytes are the most, in one line")
	}
	if c.Version == "3.1.1" {
		only := func(path string, set bool) {
			if set {
				report(path, "has no meaning with MQTT 3.1.1", `set mqtt.version to "5", or remove it`)
			}
		}
		only("session_expiry", c.SessionExpiry != 0)
		only("will.delay", c.Will.Delay != 0)
	} else {
		whole("session_expiry", c.SessionExpiry)
		whole("will.delay", c.Will.Delay)
	}
	if strings.ContainsAny(c.Will.Topic, "#+\x00") {
		report("will.topic", "a topic to publish to has no wildcards", "remove # and +, or leave it out for <root>/status")
	}
	if strings.Contains(c.Username, "\x00") {
		report("username", "has a NUL in it", "MQTT does not allow it; remove it")
	}
	for path, s := range map[string]string{"username": c.Username, "will.topic": c.Will.Topic, "will.payload": c.Will.Payload} {
		if len(s) > maxText {
			report(path, fmt.Sprintf("%d bytes long, MQTT allows %d", len(s), maxText), "make it shorter")
		}
	}
}

const maxText = 65535 // bytes of a text in a packet (MQTT 3.1.1 section 1.5.3)

// Server is one parsed entry of servers.
type Server struct {
	Scheme string // mqtt, mqtts, ws or wss
	Host   string
	Port   string
	Path   string // of ws and wss; of unix the socket

	origin string // the server of the configuration that it is, or was named by
}

// serverPattern is all that ParseServer takes. The schema has it too.
var serverPattern = regexp.MustCompile(`^(([Mm][Qq][Tt][Tt][Ss]?|[Tt][Cc][Pp]|[Ss][Ss][Ll]|[Tt][Ll][Ss])://(([A-Za-z0-9._-]|[^\x00-\x7F])+|\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/?|[Ww][Ss][Ss]?://(([A-Za-z0-9._-]|[^\x00-\x7F])+|\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/([^\x00-\x20\x7F?#%]|%[0-9A-Fa-f]{2})*)?|[Uu][Nn][Ii][Xx]:(//)?/([^\x00-\x20\x7F?#%/]|%[0-9A-Fa-f]{2})([^\x00-\x20\x7F?#%]|%[0-9A-Fa-f]{2})*)$`)

// ParseServer reads scheme://host[:port][/path]. User and password belong into their own keys.
func ParseServer(s string) (Server, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Server{}, fmt.Errorf("%q is no URL", redactText(s))
	}
	ports := map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}
	alias := map[string]string{"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts"}
	scheme := u.Scheme
	if scheme == "unix" && serverPattern.MatchString(s) {
		server := Server{Scheme: "unix", Path: u.Path}
		server.origin = server.String()
		return server, nil
	}
	if a, ok := alias[scheme]; ok {
		scheme = a
	}
	port, ok := ports[scheme]
	switch {
	case scheme == "unix":
		return Server{}, fmt.Errorf("%q is no socket; write unix:///path", redact(u))
	case !ok:
		return Server{}, fmt.Errorf("%q: unknown scheme %q; known are mqtt, mqtts, ws, wss and unix", redact(u), u.Scheme)
	case u.Hostname() == "":
		return Server{}, fmt.Errorf("%q has no host", redact(u))
	case u.User != nil:
		return Server{}, fmt.Errorf("%q: user and password do not belong into the address; use username and password_file", redact(u))
	case strings.ContainsAny(s, "?#"):
		return Server{}, fmt.Errorf("%q: the part after ? or # has no meaning here", redact(u))
	case (scheme == "mqtt" || scheme == "mqtts") && u.Path != "" && u.Path != "/":
		return Server{}, fmt.Errorf("%q: a path has a meaning only with ws and wss", redact(u))
	case u.Port() != "" && !isPort(u.Port()):
		return Server{}, fmt.Errorf("%q: there is no port %s; ports are 1 to 65535", redact(u), u.Port())
	case !serverPattern.MatchString(s):
		return Server{}, fmt.Errorf("%q is no address of a broker", redact(u))
	}
	if u.Port() != "" {
		port = u.Port()
	}
	path := u.Path
	if path == "" {
		path = "/mqtt"
	}
	server := Server{Scheme: scheme, Host: u.Hostname(), Port: port, Path: path}
	server.origin = server.String()
	return server, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// redactText cuts what may be a password.
func redactText(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

func redact(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

// String is the server as logs and reports show it: no secrets. ParseServer reads it again.
func (s Server) String() string {
	path := (&url.URL{Path: s.Path}).EscapedPath()
	if s.Scheme == "unix" {
		return "unix://" + path
	}
	if !s.WebSocket() {
		path = ""
	}
	host := s.Host
	if strings.Contains(host, ":") {
		host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
	}
	return s.Scheme + "://" + host + ":" + s.Port + path
}

// Secure says whether the connection is encrypted.
func (s Server) Secure() bool { return s.Scheme == "mqtts" || s.Scheme == "wss" }

// WebSocket says whether MQTT runs inside WebSocket.
func (s Server) WebSocket() bool { return s.Scheme == "ws" || s.Scheme == "wss" }
