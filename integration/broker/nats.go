package broker

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

type nats struct {
	dir string
	opt Options
	srv *server.Server
}

func (b *nats) Name() string { return "nats" }
func (b *nats) Addr() string { return addr(b.opt.Port) }
func (b *nats) PID() int     { return 0 }

func (b *nats) Start() error {
	opts := &server.Options{
		ServerName:         "judge", // MQTT wants a name of its own
		Host:               "127.0.0.1",
		DontListen:         true, // no NATS clients
		NoSigs:             true,
		NoLog:              true,
		JetStream:          true,
		StoreDir:           b.dir,
		SyncAlways:         true,
		JetStreamMaxMemory: 1 << 30,
		JetStreamMaxStore:  16 << 30,
	}
	opts.JetStreamLimits.DefaultMaxConsumers = -1
	opts.MQTT.Host = "127.0.0.1"
	opts.MQTT.Port = b.opt.Port
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		srv.Shutdown()
		return errors.New("nats does not become ready within 30 s")
	}
	b.srv = srv
	return await(b.Addr(), nil)
}

func (b *nats) Stop() error {
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
		b.srv = nil
	}
	return nil
}

func (b *nats) Kill() error  { return b.Stop() }
func (b *nats) Close() error { return b.Stop() }
