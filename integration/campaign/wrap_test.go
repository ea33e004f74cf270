package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"fieldagent/integration/verify"
	"fieldagent/queue"
)

// TestPacketIDsWrap drains a backlog that is longer than there are packet ids, at both QoS, while the agent is killed again and again: no id meets itself.
func TestPacketIDsWrap(t *testing.T) {
	const rows = 66000
	r := rig(t, Setup{Broker: "mosquitto"})
	q, err := queue.Open(r.Device.State(), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	for n := 0; n < rows; {
		var ids []queue.ID
		err := q.Update(ctx, func(tx *queue.Tx) error {
			ids = nil
			for i := range 1000 {
				e := queue.Event{Type: "vend", QoS: byte(1 + (n+i)/500%2), Data: fmt.Appendf(nil, `{"p":1,"n":%d}`, n+i+1)}
				id, err := tx.Append(e)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			n++
			r.Judge.Accept(source, id.String(), verify.Mark{Producer: 1, Number: n})
		}
	}
	cancel()
	if err := errors.Join(<-ended, q.Close()); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed(t), 0))
	kills := 0
	for r.Judge.Missing() > 0 {
		if kills == 400 {
			t.Fatalf("%d rows have not come in 400 lives", r.Judge.Missing())
		}
		kills++
		if err := r.Device.Start(""); err != nil {
			t.Fatal(err)
		}
		for end, before := time.Now().Add(between(rnd, 500*time.Millisecond, 4*time.Second)), r.Judge.Missing(); r.Judge.Missing() > 0; <-time.After(5 * time.Millisecond) {
			if time.Now().After(end) && r.Judge.Missing() < before { // some progress in each life
				break
			}
		}
		r.Device.Kill()
	}
	if err := r.Heal(time.Minute); err != nil {
		t.Error(err)
	}
	rep, err := r.Report(map[string]int{"killed at random": kills})
	t.Log(rep)
	if err != nil {
		t.Fatal(err)
	}
	object(t, rep)
	if rep.Verdict.Delivered != rows {
		t.Errorf("%d rows delivered, want %d", rep.Verdict.Delivered, rows)
	}
}
