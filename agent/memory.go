package agent

import (
	"bytes"
	"context"

	"fieldagent/queue"
)

// sensorMemory keeps what sensors need across restarts, in the store's misc bucket.
type sensorMemory struct{ queue *queue.Queue }

func (m sensorMemory) Load(key string) (value []byte, err error) {
	err = m.queue.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, "sensor/"+key)
		value = bytes.Clone(b)
		return err
	})
	return value, err
}

func (m sensorMemory) Keep(key string, value []byte) error {
	return m.queue.Update(context.Background(), func(tx *queue.Tx) error { return tx.Put(queue.Misc, "sensor/"+key, value) })
}
