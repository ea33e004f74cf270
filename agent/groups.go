package agent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// everyone is the group that every device is in; its topics are <prefix>/all/….
const everyone = "all"

// Groups returns the groups that the device is in besides "all": one for each label, key-value, if that is a name. Labels that are none are for people only.
func (c Config) Groups() []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(c.Device.Labels)) {
		if name := key + "-" + c.Device.Labels[key]; queue.ValidName(name) {
			out = append(out, name)
		}
	}
	return out
}

// prefix is the first part of all topics.
func (c Config) prefix() string { return strings.TrimSuffix(c.Source(), "/"+c.ID()) }

// groupRoots are the topic roots that the device listens on besides its own, by group.
func (c Config) groupRoots() map[string]string {
	if !c.Remote.Groups {
		return nil
	}
	roots := map[string]string{everyone: c.prefix() + "/all"}
	for _, g := range c.Groups() {
		roots[g] = c.prefix() + "/group/" + g
	}
	return roots
}

// groupSubscriptions are asked for apart from the device's own: a broker that refuses them does not cut the device off.
func (a *Agent) groupSubscriptions(cfg Config) []mqtt.Subscription {
	roots := cfg.groupRoots()
	var subs []mqtt.Subscription
	for _, g := range slices.Sorted(maps.Keys(roots)) {
		subs = append(subs, mqtt.Subscription{Filter: roots[g] + "/cmd/+", QoS: 2, Flag: true})
		if cfg.Remote.Remote && a.hasSources() {
			subs = append(subs, mqtt.Subscription{Filter: roots[g] + "/config/set", QoS: 1})
		}
	}
	return subs
}

// receiveGroup takes a message below a group's root; ok is false when the topic belongs to none.
func (a *Agent) receiveGroup(ctx context.Context, m mqtt.Message) (ok bool, err error) {
	for group, root := range a.localConfig().groupRoots() {
		path, below := strings.CutPrefix(m.Topic, root+"/")
		if !below {
			continue
		}
		level, rest, _ := strings.Cut(path, "/")
		switch level {
		case "cmd":
			return true, a.commands.receive(ctx, rest, group, m)
		case "config":
			return true, a.receiveConfig(ctx, rest, group, m)
		}
	}
	return false, nil
}

// spread is this device's share of the time over which a group acts: even over the devices, the same after a restart.
func spread(device, what string, over time.Duration) time.Duration {
	if over <= 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(device + "\x00" + what))
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(over))
}

// receiveOutside takes what comes on topics that are not below the device's root.
func (a *Agent) receiveOutside(ctx context.Context, m mqtt.Message) (ok bool, err error) {
	if cfg := a.config().HomeAssistant; cfg.Discovery && m.Topic == cfg.birth() {
		if string(m.Payload) == "online" && !m.Retained { // on connect it is told anyway
			a.discovery.poke(true)
		}
		return true, nil
	}
	return a.receiveGroup(ctx, m)
}
