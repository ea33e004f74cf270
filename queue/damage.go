package queue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Damage tells what was lost to a damaged file. The store writes an alarm event of it by itself.
type Damage struct {
	SetAside string   `json:"set_aside,omitempty"` // name of the damaged file, kept beside the new one
	Cause    string   `json:"cause"`               // what was wrong
	Rows     int      `json:"rows_saved"`          // undelivered events that were saved from it
	Lost     []string `json:"lost"`                // what is known to be lost, for people
}

// String says it in one line.
func (d *Damage) String() string {
	return fmt.Sprintf("state damaged (%s); kept as %q; %d undelivered events saved; lost: %s", d.Cause, d.SetAside, d.Rows, strings.Join(d.Lost, "; "))
}

var damageKey = []byte("damage") // in the state bucket: damage that no alarm event tells of yet

const manyDamages = 16

// Damage returns what happened at opening and since; nil when all was well. Each one is returned once.
func (q *Queue) Damage() *Damage {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.damage
	q.damage = nil
	return d
}

// addDamage notes damage and asks for an alarm; the caller holds mu.
func (q *Queue) addDamage(d Damage) {
	q.tellDamage(d)
	if n := len(q.alarms); n < manyDamages {
		q.alarms = append(q.alarms, d)
	} else {
		q.alarms[n-1] = q.alarms[n-1].and(d)
	}
	q.poke()
}

func (q *Queue) tellDamage(d Damage) {
	if q.damage != nil {
		d = q.damage.and(d)
	}
	q.damage = &d
}

func (d Damage) and(e Damage) Damage {
	if d.SetAside == "" {
		d.SetAside = e.SetAside
	}
	d.Rows += e.Rows
	d.Lost = append(slices.Clone(d.Lost), e.Lost...)
	if n := len(d.Lost); n > manyDamages {
		d.Lost = append(d.Lost[:manyDamages-1], "and more")
	}
	if len(d.Cause) < 500 {
		d.Cause += "; " + e.Cause
	}
	return d
}

// alarmEvents adds an event of each damage that none tells of yet.
func (o *owner) alarmEvents(b *batch) error {
	for _, d := range b.alarms {
		data, err := json.Marshal(struct {
			Alarm string `json:"alarm"`
			Damage
		}{"state damaged", d})
		if err != nil {
			return err
		}
		if _, err := b.tx.add(Event{Type: "alarm", QoS: 1, Data: data, At: b.tx.now}); err != nil {
			return err
		}
	}
	if len(b.alarms) > 0 {
		return b.tx.remove(inState, damageKey)
	}
	return nil
}
