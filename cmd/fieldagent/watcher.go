package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"fieldagent/agent/config"
	"fieldagent/agent/mqtt"
)

// watch shows every message of a device, one line each.
func (p *program) watch(ctx context.Context, device string) error {
	cfg, _, err := p.load()
	if err != nil {
		return p.tell(err)
	}
	if len(cfg.MQTT.Servers) == 0 {
		return badConfig{fmt.Errorf("mqtt.servers: there is no broker to watch at; name one in %s", p.config)}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	root := cfg.Source()
	if device != "" {
		root = strings.TrimSuffix(root, cfg.ID()) + device
	}
	j := &judge{last: map[string]uint64{}, seen: map[string]bool{}}
	var mu sync.Mutex
	mc := cfg.MQTT.Config
	var id [4]byte
	_, _ = rand.Read(id[:])
	mc.ClientID, mc.CleanSession, mc.Will = "fieldagent-watch-"+hex.EncodeToString(id[:]), true, mqtt.Will{Topic: "fieldagent-watch/none"}
	client, err := mqtt.New(mqtt.Options{Config: mc, Secret: config.Secret, Log: newLogger(p.stderr, false), Message: func(m mqtt.Message) {
		m.Ack()
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintf(p.stdout, "%s %-32s %s%s\n", time.Now().Format("15:04:05"), strings.TrimPrefix(m.Topic, root+"/"), printable(m.Payload), j.note(m.Payload))
		if err != nil { // nobody sees it any more
			stop()
		}
	}})
	if err != nil {
		return badConfig{err}
	}
	return client.Run(ctx, func(ctx context.Context, s *mqtt.Session) error {
		if err := s.Subscribe(ctx, mqtt.Subscription{Filter: root + "/#", QoS: 2}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
}

func printable(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(b))
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

// judge finds gaps and doubles in the sequences of events.
type judge struct {
	last map[string]uint64 // by source
	seen map[string]bool
}

func (j *judge) note(payload []byte) string {
	var e struct{ Source, ID, Sequence string }
	if json.Unmarshal(payload, &e) != nil || e.Sequence == "" {
		return ""
	}
	n, err := strconv.ParseUint(e.Sequence, 10, 64)
	if err != nil {
		return ""
	}
	key := e.Source + " " + e.ID
	last, known := j.last[e.Source]
	switch {
	case j.seen[key]:
		return "   << DOUBLE"
	case known && n > last+1:
		j.last[e.Source], j.seen[key] = n, true
		return fmt.Sprintf("   << GAP: %d missing before it", n-last-1)
	case known && n < last:
		j.seen[key] = true
		return "   << LATE: out of order"
	}
	j.last[e.Source], j.seen[key] = max(n, last), true
	if len(j.seen) > 100000 {
		j.seen = map[string]bool{}
	}
	return ""
}
