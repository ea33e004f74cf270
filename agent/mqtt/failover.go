package mqtt

import (
	"context"
	"time"
)

// watchFirst tries now and then whether the first server can be reached again, up to the point where MQTT begins, and asks the session to leave when it can.
func (c *Client) watchFirst(ctx context.Context, s *Session) {
	every := c.opt.Config.Failover.ReturnAfter
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tctx, cancel := context.WithTimeout(ctx, c.opt.Config.ConnectTimeout)
		nc, err := c.dial(tctx, c.servers[0])
		cancel()
		if err == nil {
			nc.Close()
			c.opt.Log.Info("the first server is back", "server", c.servers[0].String(), "leaving", s.Server())
			close(s.leave)
			return
		}
	}
}
