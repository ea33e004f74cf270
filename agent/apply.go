package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"fieldagent/agent/config"
	"fieldagent/agent/mqtt"
	"fieldagent/sensors"
)

// ConfigOptions are what config.Load needs to read a Config: the options of each driver, and what it can do.
func ConfigOptions(drivers []sensors.Driver) config.Options {
	return config.Options{Union: func(_, value string) (any, []string) {
		var known []string
		for _, d := range drivers {
			if d.Name == value {
				if d.Options == nil {
					return &struct{}{}, nil
				}
				return d.Options(), nil
			}
			known = append(known, d.Name)
		}
		return nil, known
	}, Check: func(v any, report func(path, message, hint string)) {
		if c, ok := v.(*sensors.Config); ok {
			sensors.Check(*c, drivers, report)
		}
	}}
}

func (a *Agent) config() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

func (a *Agent) localConfig() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.local
}

func (a *Agent) hasSources() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.sources) > 0
}

func (a *Agent) localHash() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []byte
	for _, s := range a.sources {
		all = append(all, s.Data...)
	}
	return hashOf(all)
}

// Effective returns the configuration in force as YAML, without secrets.
func (a *Agent) Effective() ([]byte, error) {
	cfg := a.config()
	return config.YAML(&cfg)
}

// effective returns the configuration that a remote document makes of the local one, checked as far as that goes. nil or an empty one is the local one.
func (a *Agent) effective(doc *remoteDoc) (Config, error) {
	a.mu.Lock()
	local, sources := a.local, a.sources
	a.mu.Unlock()
	if doc == nil || len(doc.Body) == 0 {
		return local, nil
	}
	cfg, err := layered(local, sources, a.opt.Drivers, doc.Body)
	if err != nil {
		return Config{}, err
	}
	return cfg, a.check(cfg)
}

// layered lays a remote document over the local file.
func layered(local Config, sources []config.Source, drivers []sensors.Driver, body []byte) (cfg Config, err error) {
	if err = config.Overlay(&cfg, ConfigOptions(drivers), sources, config.Source{Name: "config/set", Data: body}, remoteKeys); err == nil {
		err = weaker(local.MQTT, cfg.MQTT)
	}
	return cfg, err
}

// weaker refuses a remote configuration whose TLS is not what the local one has. The keys are local anyway; this says it once more, of the whole.
func weaker(local, next BrokerConfig) error {
	was, is := local.TLS, next.TLS
	was.ServerName, is.ServerName = "", ""
	if was != is || local.PasswordFile != next.PasswordFile || !slices.Equal(local.PasswordCommand, next.PasswordCommand) || !reflect.DeepEqual(local.PerServer, next.PerServer) {
		return errors.New("mqtt.tls, mqtt.password_file: files and the check of certificates can only be set in the local file")
	}
	if len(local.Servers) == 0 {
		return nil // no address, so nothing to be weaker than
	}
	for _, s := range next.Servers {
		if p, err := mqtt.ParseServer(s); err == nil && p.Scheme == "unix" && !slices.Contains(local.Servers, s) {
			return fmt.Errorf("mqtt.servers: %s is a file of the device: it can only be named in the local file", p)
		}
	}
	for _, s := range local.Servers {
		if p, err := mqtt.ParseServer(s); err != nil || !p.Secure() {
			return nil
		}
	}
	for _, s := range next.Servers {
		if p, err := mqtt.ParseServer(s); err == nil && !p.Secure() {
			return fmt.Errorf("mqtt.servers: %s is not encrypted, and the local file only has encrypted servers; TLS cannot be weakened remotely", p)
		}
	}
	return nil
}

// first starts what the configuration asks for: the remote one if it is good, else the local one.
func (a *Agent) first(ctx context.Context) error {
	cfg := a.localConfig()
	if s := a.remote.get(); s.Good != nil && cfg.Remote.Remote && a.hasSources() {
		remote, err := a.effective(s.Good)
		if err == nil {
			cfg = remote
		} else {
			a.log.Error("the remote configuration does not fit any more: the local file is in force", "err", err)
		}
		a.remote.setMisfit(err)
	}
	set, client, err := a.build(cfg)
	if err != nil {
		return err
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	a.parts.ctx = ctx
	a.mu.Lock()
	a.cfg = cfg
	a.mu.Unlock()
	a.ownCommands(nil, cfg.Commands)
	a.loadTopics(cfg)
	a.configureReadings(cfg)
	a.runLines(cfg)
	a.runSensors(set)
	a.runClient(client, cfg)
	return nil
}

// apply puts cfg in force. What did not change goes on undisturbed. An error means that nothing changed.
func (a *Agent) apply(ctx context.Context, cfg Config) error {
	set, client, err := a.build(cfg)
	if err != nil {
		return err
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	old := a.config()
	a.mu.Lock()
	a.cfg = cfg
	a.mu.Unlock()
	a.ownCommands(old.Commands, cfg.Commands)
	a.configureReadings(cfg)
	a.runLines(cfg)
	if !reflect.DeepEqual(old.Sensors, cfg.Sensors) {
		a.runSensors(set)
	}
	faultPoint("config half applied")
	switch {
	case !sameBroker(old, cfg) || len(a.subscriptions(old)) != len(a.subscriptions(cfg)):
		a.runClient(client, cfg)
	case !slices.Equal(a.extras(old), a.extras(cfg)):
		a.askExtras(cfg)
	}
	a.retained.set("info", a.info())
	a.discovery.poke(false)
	a.keepTopics(ctx)
	return nil
}

// Reload replaces the local configuration, as on SIGHUP. What did not change goes on undisturbed. An error means that nothing changed.
func (a *Agent) Reload(ctx context.Context, cfg Config, sources []config.Source) error {
	if !a.remote.trying.TryLock() {
		return errors.New("a remote configuration is on trial: reload again when config/state says what became of it")
	}
	defer a.remote.trying.Unlock()
	now := a.localConfig()
	if cfg.Source() != now.Source() {
		return fmt.Errorf("the device id or the topic prefix changed (%s to %s): restart the agent", now.Source(), cfg.Source())
	}
	if cfg.Outbox != now.Outbox {
		return errors.New("outbox: changed; restart the agent")
	}
	if err := a.check(cfg); err != nil {
		return err
	}
	a.mu.Lock()
	a.local, a.sources = cfg, sources
	a.mu.Unlock()
	err := a.remote.change(ctx, func(s *remoteState) { s.Refused = nil }) // what was refused may fit now
	next := cfg
	if s := a.remote.get(); s.Good != nil && cfg.Remote.Remote {
		remote, err := a.effective(s.Good)
		if err == nil {
			next = remote
		} else {
			a.log.Error("the remote configuration does not fit the new local file, which alone is in force", "err", err)
		}
		a.remote.setMisfit(err)
	}
	if err := a.apply(ctx, next); err != nil {
		return err
	}
	a.remote.report()
	return err
}

func (a *Agent) receiveConfig(ctx context.Context, rest, group string, m mqtt.Message) error {
	if rest != "set" {
		a.log.Warn("message on a topic that was not asked for", "topic", strings.TrimPrefix(m.Topic, a.root+"/"))
		return nil
	}
	if !a.localConfig().Remote.Remote || !a.hasSources() {
		return nil
	}
	return a.remote.receive(ctx, group, m)
}
