package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

const (
	contentEvent = "application/cloudevents+json"
	contentJSON  = "application/json"
	contentText  = "text/plain"
	maxUser      = 32      // user properties of one event
	maxProperty  = 4 << 10 // bytes of one property
)

// PropertiesConfig says what messages carry beside their payload. A broker that speaks MQTT 3.1.1 gets none of it.
type PropertiesConfig struct {
	Describe    bool               `config:"describe" default:"true" doc:"Say what payloads of events and of state are: contentType and payloadFormatIndicator."`
	CloudEvents string             `config:"cloudevents" default:"structured" enum:"structured,binary" doc:"Events as one JSON object, or binary: the payload is the data alone, and all else is in user properties."`
	Labels      bool               `config:"labels" doc:"The device's labels as user properties of events."`
	Sequence    bool               `config:"sequence" doc:"Id and sequence of events as user properties, for those who do not look into payloads."`
	User        map[string]string  `config:"user" doc:"User properties of all events."`
	Readings    ReadingsProperties `config:"readings" doc:"What readings carry; each byte is sent with each reading."`
	Events      []EventProperties  `config:"events" local:"true" doc:"What events of single types carry."`
}

// ReadingsProperties are sent with each reading.
type ReadingsProperties struct {
	Describe bool              `config:"describe" doc:"contentType and payloadFormatIndicator."`
	Expire   time.Duration     `config:"expire" default:"0s" min:"0s" max:"8760h" doc:"The broker throws readings away that it could not deliver in this time; 0 never."`
	User     map[string]string `config:"user" doc:"User properties."`
}

// EventProperties are sent with the events of one type.
type EventProperties struct {
	Type          string            `config:"type,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Type of the events."`
	ContentType   string            `config:"content_type" doc:"contentType, in place of the usual one."`
	ResponseTopic string            `config:"response_topic" doc:"Where an answer to the event is awaited."`
	MayExpire     bool              `config:"may_expire" doc:"Events of this type may be given a lifetime, and are dead letters after it. All others are kept until they are delivered."`
	ExpiresAfter  time.Duration     `config:"expires_after" default:"0s" min:"0s" max:"8760h" doc:"Lifetime of those that were given none; 0 for ever. Needs may_expire."`
	User          map[string]string `config:"user" doc:"User properties."`
}

// Check reports what the tags cannot say, for the connection too.
func (c *BrokerConfig) Check(report func(path, message, hint string)) {
	c.Config.Check(report)
	p := c.Properties
	if c.Version == "3.1.1" && p.CloudEvents == "binary" {
		report("properties.cloudevents", "binary needs MQTT 5", `set mqtt.version to "5"`)
	}
	checkUser("properties.user", p.User, report)
	checkUser("properties.readings.user", p.Readings.User, report)
	seen := map[string]bool{}
	for i, e := range p.Events {
		at := fmt.Sprintf("properties.events[%d]", i)
		if seen[e.Type] {
			report(at+".type", fmt.Sprintf("%q is there already", e.Type), "one entry for each type")
		}
		seen[e.Type] = true
		if e.ExpiresAfter > 0 && !e.MayExpire {
			report(at+".expires_after", "events of this type may not expire", "add may_expire: true, if they may be thrown away")
		}
		if e.ExpiresAfter%time.Second != 0 {
			report(at+".expires_after", "not a whole number of seconds", "")
		}
		if err := checkTopic(e.ResponseTopic); err != nil {
			report(at+".response_topic", err.Error(), "")
		}
		checkUser(at+".user", e.User, report)
	}
}

func checkUser(path string, user map[string]string, report func(path, message, hint string)) {
	for k, v := range user {
		if err := errors.Join(checkText(k), checkText(v)); err != nil || k == "" {
			report(path, fmt.Sprintf("%q: no text for a property", k), "")
		}
	}
}

func checkText(s string) error {
	switch {
	case len(s) > maxProperty:
		return fmt.Errorf("%d bytes, at most %d", len(s), maxProperty)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return errors.New("no text in UTF-8")
	}
	return nil
}

func checkTopic(s string) error {
	if strings.ContainsAny(s, "#+") {
		return fmt.Errorf("%q has wildcards, and is to be published to", s)
	}
	return checkText(s)
}

// parseProperties reads the "properties" of POST /v1/events and returns every fault in them.
func parseProperties(raw json.RawMessage) (p *queue.Properties, faults []string) {
	m, twice, err := fields(raw)
	if err != nil {
		return nil, []string{"properties: " + err.Error()}
	}
	for _, name := range twice {
		faults = append(faults, fmt.Sprintf("properties.%s: is there twice", name))
	}
	p = &queue.Properties{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		var err error
		switch v := m[name]; name {
		case "contentType":
			if err = errors.New(wanted(&p.ContentType)); json.Unmarshal(v, &p.ContentType) == nil {
				err = checkText(p.ContentType)
			}
		case "payloadFormatIndicator":
			if json.Unmarshal(v, &p.PayloadFormat) != nil || p.PayloadFormat == nil || *p.PayloadFormat > 1 {
				err = errors.New("use 0 or 1")
			}
		case "messageExpiryInterval":
			if err = json.Unmarshal(v, &p.Expiry); err != nil || p.Expiry == nil || *p.Expiry == 0 {
				err = errors.New("use whole seconds above 0")
			}
		case "responseTopic":
			if err = errors.New(wanted(&p.ResponseTopic)); json.Unmarshal(v, &p.ResponseTopic) == nil {
				err = checkTopic(p.ResponseTopic)
			}
		case "correlationData":
			if err = json.Unmarshal(v, &p.CorrelationData); err != nil || len(p.CorrelationData) > maxProperty {
				err = fmt.Errorf("write it in base64, at most %d bytes", maxProperty)
			}
		case "userProperties":
			p.User, err = parseUser(v)
		default:
			err = errors.New("unknown; known are contentType, payloadFormatIndicator, messageExpiryInterval, responseTopic, correlationData, userProperties")
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("properties.%s: %v", name, err))
		}
	}
	return p, faults
}

// parseUser reads an object of strings, in its order, or a list of pairs: names may come twice.
func parseUser(raw json.RawMessage) (list [][2]string, err error) {
	shape := errors.New(`write it like {"key":"value"}, or [["key","value"],…] where a key comes twice`)
	d := json.NewDecoder(bytes.NewReader(raw))
	switch t, _ := d.Token(); t {
	case json.Delim('['):
		var pairs [][]string
		if json.Unmarshal(raw, &pairs) != nil {
			return nil, shape
		}
		for _, p := range pairs {
			if len(p) != 2 {
				return nil, shape
			}
			list = append(list, [2]string{p[0], p[1]})
		}
	case json.Delim('{'):
		for d.More() {
			k, err := d.Token()
			v, err2 := d.Token()
			key, _ := k.(string)
			value, ok := v.(string)
			if err != nil || err2 != nil || !ok {
				return nil, shape
			}
			list = append(list, [2]string{key, value})
		}
		if _, err := d.Token(); err != nil && err != io.EOF {
			return nil, shape
		}
	default:
		return nil, shape
	}
	if len(list) > maxUser {
		return nil, fmt.Errorf("%d of them, at most %d", len(list), maxUser)
	}
	for _, u := range list {
		if err := errors.Join(checkText(u[0]), checkText(u[1])); err != nil {
			return nil, fmt.Errorf("%q: %w", u[0], err)
		}
	}
	return list, nil
}

// dresser gives messages their properties. It does not change once made.
type dresser struct {
	describe, binary, sequence bool
	user                       [][2]string
	events                     map[string]EventProperties
	reading, json, text        *mqtt.Properties // of readings, of other JSON, of words
}

func newDresser(cfg Config) *dresser {
	p := cfg.MQTT.Properties
	d := &dresser{describe: p.Describe, binary: p.CloudEvents == "binary", sequence: p.Sequence, user: pairs(p.User), events: map[string]EventProperties{}}
	if p.Labels {
		d.user = append(pairs(cfg.Device.Labels), d.user...)
	}
	for _, e := range p.Events {
		d.events[e.Type] = e
	}
	if p.Describe {
		d.json = &mqtt.Properties{PayloadFormat: 1, ContentType: contentJSON}
		d.text = &mqtt.Properties{PayloadFormat: 1, ContentType: contentText}
	}
	if r := p.Readings; r.Describe || r.Expire > 0 || len(r.User) > 0 {
		d.reading = &mqtt.Properties{Expiry: wholeSeconds(r.Expire), User: pairs(r.User)}
		if r.Describe {
			d.reading.PayloadFormat, d.reading.ContentType = 1, contentJSON
		}
	}
	return d
}

func pairs(m map[string]string) (list [][2]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, [2]string{k, m[k]})
	}
	return list
}

// wholeSeconds rounds up: what lives for half a second lives for one.
func wholeSeconds(d time.Duration) uint32 {
	return uint32(min((max(d, 0)+time.Second-1)/time.Second, math.MaxUint32))
}

// live returns the properties of a message below the root at QoS 0.
func (d *dresser) live(topic string, payload []byte, retain bool) *mqtt.Properties {
	switch {
	case d == nil:
		return nil
	case !retain && strings.HasPrefix(topic, "sensor/"):
		return d.reading
	case len(payload) > 0 && payload[0] == '{':
		return d.json
	}
	return d.text
}

// lifetime returns how long an event may still live; ok is false when it may live for ever. An event lives for ever when nobody can say how old it is.
func (d *dresser) lifetime(r queue.Record, now, accepted queue.Stamp) (left time.Duration, ok bool) {
	t, known := d.events[r.Type]
	limit := t.ExpiresAfter
	if r.Properties != nil && r.Properties.Expiry != nil {
		limit = time.Duration(*r.Properties.Expiry) * time.Second
	}
	switch {
	case !known || !t.MayExpire || limit == 0 || r.Topic != "":
		return 0, false
	case accepted.Boot != now.Boot && (accepted.Clock == queue.ClockUnsynced || now.Clock == queue.ClockUnsynced):
		return limit, true
	}
	return limit - age(now, accepted), true
}

// event writes the properties of an event into p. binary: its payload is the data alone.
func (d *dresser) event(p *mqtt.Properties, source string, r queue.Record, at queue.Stamp, left time.Duration) (binary bool) {
	own, t := r.Properties, d.events[r.Type]
	*p = mqtt.Properties{User: p.User[:0]}
	binary = d.binary && !isReading(r)
	if d.describe {
		p.PayloadFormat, p.ContentType = 1, contentEvent
	}
	if binary && len(r.Data) > 0 || d.describe && isReading(r) {
		p.PayloadFormat, p.ContentType = 1, contentJSON
	}
	p.Expiry = wholeSeconds(left)
	p.ResponseTopic = t.ResponseTopic
	if t.ContentType != "" {
		p.ContentType = t.ContentType
	}
	if own != nil {
		if own.ContentType != "" {
			p.ContentType = own.ContentType
		}
		if own.PayloadFormat != nil {
			p.PayloadFormat = *own.PayloadFormat
		}
		if own.ResponseTopic != "" {
			p.ResponseTopic = own.ResponseTopic
		}
		p.Correlation = own.CorrelationData
		p.User = append(p.User, own.User...)
	}
	if binary {
		p.User = append(p.User, [2]string{"specversion", "1.0"}, [2]string{"source", source}, [2]string{"type", r.Type},
			[2]string{"time", formatTime(at.Wall)}, [2]string{"clock", at.Clock.String()}, [2]string{"boot", bootString(at.Boot)})
	}
	if binary || d.sequence {
		p.User = append(p.User, [2]string{"id", r.ID.String()}, [2]string{"sequence", string(appendSequence(nil, r.ID.Sequence))})
	}
	p.User = append(append(p.User, pairs(t.User)...), d.user...)
	return binary
}
