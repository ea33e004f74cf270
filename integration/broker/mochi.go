package broker

import (
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// mochi keeps its state in memory only: a stop loses it. It serves demonstrations, never as a judge.
type mochi struct {
	opt Options
	srv *mqtt.Server
}

func (b *mochi) Name() string { return "mochi" }
func (b *mochi) Addr() string { return addr(b.opt.Port) }
func (b *mochi) PID() int     { return 0 }

func (b *mochi) Start() error {
	srv := mqtt.New(&mqtt.Options{Logger: quiet})
	if err := srv.AddHook(new(allowAll), nil); err != nil {
		return err
	}
	if err := srv.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: b.Addr()})); err != nil {
		return err
	}
	if err := srv.Serve(); err != nil {
		return err
	}
	b.srv = srv
	return await(b.Addr(), nil)
}

func (b *mochi) Stop() error {
	if b.srv == nil {
		return nil
	}
	err := b.srv.Close()
	b.srv = nil
	return err
}

func (b *mochi) Kill() error  { return b.Stop() }
func (b *mochi) Close() error { return b.Stop() }

type allowAll struct{ mqtt.HookBase }

func (allowAll) Provides(b byte) bool                                    { return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck }
func (allowAll) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (allowAll) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }
