package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
	"fieldagent/sensors"
)

const (
	protocol      = 1            // of the topics; in info
	defaultPrefix = "fieldagent" // first level of all topics
)

// Config is the whole file, /etc/fieldagent/fieldagent.yaml with conf.d.
type Config struct {
	Device        DeviceConfig           `config:"device" local:"true" doc:"Who this device is."`
	MQTT          BrokerConfig           `config:"mqtt" doc:"The broker."`
	Sensors       []sensors.Config       `config:"sensors" doc:"What is read, and how often."`
	Inputs        []sensors.InputConfig  `config:"inputs" doc:"Lines that are watched, such as contacts."`
	Meters        []sensors.MeterConfig  `config:"meters" doc:"Lines whose pulses are counted."`
	Outputs       []sensors.OutputConfig `config:"outputs" doc:"Lines that are switched, such as relays."`
	Outbox        OutboxConfig           `config:"outbox" local:"true" doc:"The store of events on disk."`
	Remote        RemoteConfig           `config:"config" local:"true" doc:"Configuration over MQTT."`
	HomeAssistant HomeAssistantConfig    `config:"home_assistant" doc:"Discovery by Home Assistant."`
	Commands      []CommandConfig        `config:"commands" local:"true" doc:"The owner's own commands; they can only be defined in the local file."`
}

// DeviceConfig names the device.
type DeviceConfig struct {
	ID     string            `config:"id" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the device in topics and events; the host name when not given."`
	Labels map[string]string `config:"labels" doc:"Labels for people and for groups: site: north is the group site-north, whose topics are <prefix>/group/site-north/…."`
}

// BrokerConfig is the connection with what the agent itself needs to know about the broker.
type BrokerConfig struct {
	mqtt.Config    `config:",inline"`
	Prefix         string           `config:"prefix" default:"fieldagent" local:"true" pattern:"^[a-zA-Z0-9_-]+(/[a-zA-Z0-9_-]+)*$" doc:"First level of all topics: <prefix>/<device id>."`
	Properties     PropertiesConfig `config:"properties" doc:"MQTT 5: what messages carry beside their payload."`
	AllowDowngrade bool             `config:"allow_downgrade" local:"true" doc:"Deliver QoS 2 events at QoS 1 when the broker cannot do better. Otherwise they are held until one can."`
}

// OutboxConfig bounds the store.
type OutboxConfig struct {
	MaxSize       int64 `config:"max_size" default:"256MiB" unit:"bytes" min:"4MiB" max:"64GiB" doc:"Bytes that all files together may take; at most 512 MiB on 32-bit boards."`
	KeepDelivered int   `config:"keep_delivered" default:"1000" min:"0" max:"1000000" doc:"How many delivered events 'outbox show' still knows."`
	MaxRecord     int64 `config:"max_record" default:"256KiB" unit:"bytes" min:"1KiB" max:"4MiB" doc:"Bytes of one event's data."`
}

// RemoteConfig says whether the device takes a configuration over MQTT.
type RemoteConfig struct {
	Remote        bool          `config:"remote" default:"true" doc:"Take a configuration from <root>/config/set."`
	ConfirmWithin time.Duration `config:"confirm_within" default:"2m" min:"5s" max:"1h" doc:"A new configuration that does not reach its broker in this time is taken back."`
	Groups        bool          `config:"groups" default:"true" doc:"Obey the topics of groups too: <prefix>/all/… and <prefix>/group/<label>-<value>/…."`
	Spread        time.Duration `config:"spread" default:"30s" min:"0s" max:"24h" doc:"What a group is asked for is done at a moment of each device's own within this time; 0 does it at once."`
}

// HomeAssistantConfig switches discovery on.
type HomeAssistantConfig struct {
	Discovery bool   `config:"discovery" doc:"Announce sensors, inputs, meters and outputs to Home Assistant."`
	Prefix    string `config:"prefix" default:"homeassistant" pattern:"^[a-zA-Z0-9_-]+(/[a-zA-Z0-9_-]+)*$" doc:"Home Assistant's discovery prefix."`
}

// birth is where Home Assistant says that it has started.
func (c HomeAssistantConfig) birth() string { return c.Prefix + "/status" }

// CommandConfig is a command of the owner's: a program that runs without a shell.
type CommandConfig struct {
	Name       string               `config:"name,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the command; its topic is <root>/cmd/<name>."`
	Argv       []string             `config:"argv,required" doc:"Program and arguments; {x} stands for the argument x. No shell sees them."`
	Args       map[string]ArgConfig `config:"args" doc:"Arguments that a caller may give."`
	Timeout    time.Duration        `config:"timeout" default:"30s" min:"100ms" max:"24h" doc:"The program and its children are killed after this time."`
	Repeatable bool                 `config:"repeatable" doc:"Running it twice does no harm: after a crash in the middle it runs again instead of answering unknown."`
	User       string               `config:"user" doc:"User to run it as; the agent's own when not given. Needs the right to change users."`
	Output     int64                `config:"max_output" default:"16KiB" unit:"bytes" min:"0" max:"128KiB" doc:"Bytes of its output that are sent back."`
}

// ArgConfig declares one argument of a command.
type ArgConfig struct {
	Type     string   `config:"type" default:"string" enum:"string,integer,number,boolean" doc:"What the value is."`
	Min      *float64 `config:"min" doc:"Smallest number."`
	Max      *float64 `config:"max" doc:"Largest number."`
	Pattern  string   `config:"pattern" doc:"Regular expression that the whole string must match."`
	Values   []string `config:"values" doc:"Allowed strings."`
	Default  string   `config:"default" doc:"Value when the caller gives none; without it the argument must be given."`
	Optional bool     `config:"optional" doc:"May be left out; then the elements of argv that name it are left out too."`
}

// ID returns the device's id: as configured, else made from the host name.
func (c Config) ID() string {
	if c.Device.ID != "" {
		return c.Device.ID
	}
	host, err := os.Hostname()
	if err != nil {
		return "device"
	}
	return idFrom(host)
}

// idFrom makes a valid id of a host name.
func idFrom(host string) string {
	short, _, _ := strings.Cut(strings.ToLower(host), ".")
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, short)
	id = strings.TrimLeft(id, "-_")
	if id == "" || id == everyone || id == "group" {
		return "device"
	}
	return id[:min(len(id), 63)]
}

// Source is the CloudEvents source and the topic root: <prefix>/<device id>.
func (c Config) Source() string {
	prefix := c.MQTT.Prefix
	if prefix == "" {
		prefix = defaultPrefix
	}
	return prefix + "/" + c.ID()
}

// builtin are the commands that every device has; the owner's cannot take their names.
var builtin = []string{"ping", "read", "set", "pulse", "meter-exchange", "publish-info", "config-rollback", "restart"}

var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// Check reports what single values cannot show: two things with one name, or on one line.
func (c *Config) Check(report func(path, message, hint string)) {
	names := func(seen map[string]string, kind string, n int, name func(int) string) {
		for i := range n {
			if name(i) == "" {
				continue // said already
			}
			at := fmt.Sprintf("%s[%d]", kind, i)
			if first, twice := seen[name(i)]; twice {
				report(at+".name", fmt.Sprintf("%q is the name of %s already", name(i), first), "give each its own name")
				continue
			}
			seen[name(i)] = at
		}
	}
	things := map[string]string{} // read and set find each of them by its name alone
	names(things, "sensors", len(c.Sensors), func(i int) string { return c.Sensors[i].Name })
	names(things, "inputs", len(c.Inputs), func(i int) string { return c.Inputs[i].Name })
	names(things, "meters", len(c.Meters), func(i int) string { return c.Meters[i].Name })
	names(things, "outputs", len(c.Outputs), func(i int) string { return c.Outputs[i].Name })
	names(map[string]string{}, "commands", len(c.Commands), func(i int) string { return c.Commands[i].Name })
	sensors.Clashes(c.Sensors, func(i, other int, at sensors.Place) {
		report(fmt.Sprintf("sensors[%d].address", i), fmt.Sprintf("sensor %s is at address %#x of %s already (sensors[%d])", c.Sensors[other].Name, at.Address, at.Bus, other),
			"one address is one chip; correct it, move the chip to another bus, or remove one of them")
	})
	if c.Device.ID == everyone || c.Device.ID == "group" {
		report("device.id", fmt.Sprintf("%q is the first level of group topics", c.Device.ID), "choose another id")
	}
	c.checkLines(report)
	c.checkOutputs(report)
	for i, cmd := range c.Commands {
		cmd.check(fmt.Sprintf("commands[%d]", i), report)
	}
}

func (c *Config) checkLines(report func(path, message, hint string)) {
	holder := map[string]string{}
	use := func(path, line, what string) {
		if strings.TrimSpace(line) == "" {
			return // said already
		}
		if other, taken := holder[sameLine(line)]; taken {
			report(path, fmt.Sprintf("line %s is used by %s already", line, other), "one line can only do one thing; correct the number, or remove one of them")
			return
		}
		holder[sameLine(line)] = what
	}
	for i, x := range c.Inputs {
		use(fmt.Sprintf("inputs[%d].line", i), x.Line, "input "+x.Name)
	}
	for i, x := range c.Meters {
		use(fmt.Sprintf("meters[%d].line", i), x.Line, "meter "+x.Name)
	}
	for i, x := range c.Outputs {
		use(fmt.Sprintf("outputs[%d].line", i), x.Line, "output "+x.Name)
	}
}

// sameLine writes a line so that two ways to write an offset are one.
func sameLine(line string) string {
	if chip, offset, ok := strings.Cut(line, ":"); ok {
		if n, err := strconv.Atoi(offset); err == nil {
			return fmt.Sprintf("%s:%d", chip, n)
		}
	}
	return line
}

func (c *Config) checkOutputs(report func(path, message, hint string)) {
	known := map[string]bool{}
	for _, o := range c.Outputs {
		known[o.Name] = true
	}
	for i, o := range c.Outputs {
		for j, other := range o.Excludes {
			if !known[other] || other == o.Name {
				report(fmt.Sprintf("outputs[%d].excludes[%d]", i, j), fmt.Sprintf("no other output is called %q", other), "name an output of this file")
			}
		}
		for j, before := range c.Outputs[:i] {
			if o.Initial == "ON" && before.Initial == "ON" && (slices.Contains(o.Excludes, before.Name) || slices.Contains(before.Excludes, o.Name)) {
				report(fmt.Sprintf("outputs[%[1]d].initial,outputs[%[2]d].initial", i, j), fmt.Sprintf("%s (outputs[%d]) is ON at the start too, and the two exclude each other", before.Name, j), `set one of them to "OFF"`)
			}
		}
	}
}

func (c CommandConfig) check(path string, report func(path, message, hint string)) {
	for _, b := range builtin {
		if c.Name == b {
			report(path+".name", fmt.Sprintf("%q is a built-in command", c.Name), "choose another name")
		}
	}
	if c.Argv != nil && len(c.Argv) == 0 {
		report(path+".argv", "is empty", "name the program, such as [/usr/local/bin/"+c.Name+"]")
	}
	if len(c.Argv) > 0 && strings.TrimSpace(c.Argv[0]) == "" {
		report(path+".argv[0]", "the program is empty", "write it in full, such as /usr/local/bin/"+c.Name)
	}
	if len(c.Argv) > 0 && strings.TrimSpace(c.Argv[0]) != "" && !strings.ContainsAny(c.Argv[0][:1], "/{") {
		report(path+".argv", "the program must be an absolute path", "write /usr/local/bin/"+c.Argv[0]+", or wherever it is")
	}
	used := map[string]bool{}
	for i, a := range c.Argv {
		for _, m := range placeholder.FindAllStringSubmatch(a, -1) {
			used[m[1]] = true
			switch _, ok := c.Args[m[1]]; {
			case i == 0:
				report(path+".argv[0]", "the program itself cannot be an argument", "name it in full")
			case !ok:
				report(fmt.Sprintf("%s.argv[%d]", path, i), fmt.Sprintf("{%s} is not declared", m[1]), "declare it under args")
			}
		}
	}
	for name, a := range c.Args {
		at := path + ".args." + name
		a.check(at, report)
		if !used[name] {
			report(at, "no element of argv uses it", "add {"+name+"} to argv, or remove it")
		}
	}
}

func (a ArgConfig) check(at string, report func(path, message, hint string)) {
	numeric := a.Type == "integer" || a.Type == "number"
	_, err := regexp.Compile(a.Pattern)
	if err != nil {
		report(at+".pattern", err.Error(), "see https://pkg.go.dev/regexp/syntax")
	}
	if a.Type == "string" && a.Pattern == "" && len(a.Values) == 0 {
		report(fmt.Sprintf("%[1]s,%[1]s.type,%[1]s.pattern,%[1]s.values", at), "any string would be allowed", "give a pattern, or a list of values")
	}
	if (a.Min != nil || a.Max != nil) && !numeric {
		report(at+","+at+".type", "min and max are for numbers", "set type to integer or number, or remove them")
	}
	if a.Min != nil && a.Max != nil && *a.Min > *a.Max {
		report(at+".min,"+at+".max", fmt.Sprintf("%v is more than max (%v): no number is allowed", *a.Min, *a.Max), "make it smaller, or max larger")
		return
	}
	if a.Default == "" || err != nil {
		return
	}
	raw := json.RawMessage(a.Default)
	if a.Type == "string" {
		raw = mustJSON(a.Default)
	}
	_, err = a.value(raw)
	if err == nil && string(raw) == "null" {
		err = errors.New("null is no " + a.Type)
	}
	if err != nil {
		report(fmt.Sprintf("%[1]s.default,%[1]s.type,%[1]s.values,%[1]s.min,%[1]s.max", at), fmt.Sprintf("%q would be refused from a caller: %v", a.Default, err), "write a value that a caller may give")
	}
}

// QueueOptions returns how the store is to be opened.
func (c OutboxConfig) QueueOptions() queue.Options {
	keep := c.KeepDelivered
	if keep == 0 {
		keep = -1 // none
	}
	return queue.Options{MaxSize: c.MaxSize, KeepDelivered: keep, MaxRecord: int(c.MaxRecord), KeepTrying: true}
}

// goodbye is what the device's status says when it is gone, by the will or by the device itself.
func (c Config) goodbye() string {
	if w := c.MQTT.Will; w.Payload != "" && (w.Topic == "" || w.Topic == c.Source()+"/status") {
		return w.Payload
	}
	return "offline"
}
