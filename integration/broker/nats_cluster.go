package broker

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// cluster is three NATS nodes in this process; clients speak with the first. Stop takes the third away, Start brings it back.
type cluster struct {
	dir    string
	opt    Options
	nodes  [3]*server.Server
	routes []*url.URL
	ports  [3]int
}

func (b *cluster) Name() string { return "nats-cluster" }
func (b *cluster) Addr() string { return addr(b.opt.Port) }
func (b *cluster) PID() int     { return 0 }

func (b *cluster) Start() error {
	if b.routes == nil {
		for i := range b.ports {
			port, err := FreePort()
			if err != nil {
				return err
			}
			b.ports[i] = port
			b.routes = append(b.routes, &url.URL{Scheme: "nats", Host: addr(port)})
		}
	}
	for i := range b.nodes {
		if b.nodes[i] != nil {
			continue
		}
		if err := b.start(i); err != nil {
			return err
		}
	}
	for _, n := range b.nodes {
		if !n.ReadyForConnections(time.Minute) {
			return errors.New("a node of the cluster does not become ready within a minute")
		}
	}
	return await(b.Addr(), nil)
}

func (b *cluster) start(i int) error {
	opts := &server.Options{ServerName: fmt.Sprintf("judge-%d", i+1), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: filepath.Join(b.dir, fmt.Sprint(i+1)),
		SyncAlways: true, JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 4 << 30, Routes: b.routes}
	opts.Cluster.Name, opts.Cluster.Host, opts.Cluster.Port = "judges", "127.0.0.1", b.ports[i]
	opts.JetStreamLimits.DefaultMaxConsumers = -1
	opts.MQTT.Host, opts.MQTT.Port = "127.0.0.1", server.RANDOM_PORT
	if i == 0 {
		opts.MQTT.Port = b.opt.Port
	}
	opts.MQTT.StreamReplicas = 3
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	srv.Start()
	b.nodes[i] = srv
	return nil
}

func (b *cluster) Stop() error {
	if n := b.nodes[2]; n != nil {
		n.Shutdown()
		n.WaitForShutdown()
		b.nodes[2] = nil
	}
	return nil
}

func (b *cluster) Kill() error { return b.Stop() }

func (b *cluster) Close() error {
	for i, n := range b.nodes {
		if n != nil {
			n.Shutdown()
			n.WaitForShutdown()
			b.nodes[i] = nil
		}
	}
	return nil
}
