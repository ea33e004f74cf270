package mqtt

import (
	"context"
	"errors"
)

// Reach opens a connection to s up to the point where MQTT begins (TCP, TLS, WebSocket) and closes it. Its error says what mends it.
func (c *Client) Reach(ctx context.Context, s Server) error {
	conn, err := c.dial(ctx, s)
	if err != nil {
		return errors.New(c.explain(s, err))
	}
	return conn.Close()
}
