package queue

import (
	"encoding/json"
	"fmt"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"
)

// JobState is how far a command has come.
type JobState string

// States of a command. A crash in JobStarted leaves the outcome unknown.
const (
	JobReceived JobState = "received"
	JobStarted  JobState = "started"
	JobDone     JobState = "done"
)

// Job is a command in the inbox, known by its id.
type Job struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Body       []byte          `json:"body,omitempty"` // dropped when done
	State      JobState        `json:"state"`
	Order      uint64          `json:"order"` // of receipt
	At         time.Time       `json:"at"`    // of the last change of state
	Received   Stamp           `json:"received"`
	Result     *ID             `json:"result,omitempty"` // of the stored result row
	ResultData json.RawMessage `json:"data,omitempty"`
}

// Receive notes a command. fresh is false when its id is known already; then the stored job is returned, with its result when it is done.
func (tx *Tx) Receive(id, name string, body []byte) (j Job, fresh bool, err error) {
	if j, ok, err := tx.job(id); ok || err != nil {
		return j, false, err
	}
	j = Job{ID: id, Name: name, Body: body, State: JobReceived, Order: tx.gen<<16 | uint64(len(tx.puts)&0xffff), At: tx.now.Wall, Received: tx.now}
	if err := tx.putJob(j); err != nil {
		return Job{}, false, err
	}
	return j, true, tx.expireJobs()
}

// Start notes that the command's effect is under way.
func (tx *Tx) Start(id string) error {
	j, ok, err := tx.job(id)
	if err = known(ok, err); err != nil {
		return fmt.Errorf("start command %q: %w", id, err)
	}
	j.State, j.At = JobStarted, tx.now.Wall
	return tx.putJob(j)
}

// Finish stores the result as an event and the command as done, both or neither.
func (tx *Tx) Finish(id string, result Event) (ID, error) {
	j, ok, err := tx.job(id)
	if err = known(ok, err); err != nil {
		return ID{}, fmt.Errorf("finish command %q: %w", id, err)
	}
	rid, err := tx.Append(result)
	if err != nil {
		return ID{}, err
	}
	j.State, j.At, j.Body, j.Result, j.ResultData = JobDone, tx.now.Wall, nil, &rid, result.Data
	return rid, tx.putJob(j)
}

func known(ok bool, err error) error {
	if err == nil && !ok {
		return ErrNotFound
	}
	return err
}

// Unfinished returns the commands that are received or started, in order of receipt.
func (tx *Tx) Unfinished() ([]Job, error) {
	jobs, err := tx.Jobs()
	var out []Job
	for _, j := range jobs {
		if j.State != JobDone {
			out = append(out, j)
		}
	}
	return out, err
}

// Jobs returns all commands that are remembered, in order of receipt.
func (tx *Tx) Jobs() ([]Job, error) {
	keys, err := tx.Keys(Kind(inInbox))
	if err != nil {
		return nil, err
	}
	var jobs []Job
	for _, k := range keys {
		v, err := tx.get(inInbox, []byte(k))
		if err != nil {
			return nil, err
		}
		var j Job
		if err := json.Unmarshal(v, &j); err != nil {
			return nil, fmt.Errorf("%w: command %x", errDamaged, k)
		}
		jobs = append(jobs, j)
	}
	sort.Slice(jobs, func(a, b int) bool { return jobs[a].Order < jobs[b].Order })
	return jobs, nil
}

// expireJobs forgets finished commands by number, age and size. It looks only now and then: the bounds are not exact.
func (tx *Tx) expireJobs() error {
	o := tx.q.opt
	n := 0
	if err := tx.look(func(b *bolt.Tx) error { n = b.Bucket(bucketName[inInbox]).Stats().KeyN; return nil }); err != nil {
		return err
	}
	if n <= o.KeepJobs+o.KeepJobs/8 && tx.gen%64 != 0 {
		return nil
	}
	jobs, err := tx.Jobs()
	if err != nil {
		return err
	}
	over, size := len(jobs)-o.KeepJobs, int64(0)
	for _, j := range jobs {
		size += int64(len(j.ResultData))
	}
	for _, j := range jobs { // oldest first
		old := tx.now.Clock != ClockUnsynced && tx.now.Wall.Sub(j.At) > o.KeepJobsFor
		if j.State == JobDone && (over > 0 || old || size > o.MaxSize/16) {
			over--
			size -= int64(len(j.ResultData))
			if err := tx.remove(inInbox, jobKey(j.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (tx *Tx) job(id string) (Job, bool, error) {
	v, err := tx.get(inInbox, jobKey(id))
	if v == nil || err != nil {
		return Job{}, false, err
	}
	var j Job
	if err := json.Unmarshal(v, &j); err != nil {
		return Job{}, false, fmt.Errorf("%w: command %q", errDamaged, id)
	}
	return j, true, nil
}

func (tx *Tx) putJob(j Job) error {
	v, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return tx.put(inInbox, jobKey(j.ID), v)
}

func jobKey(id string) []byte { return []byte(id) }
