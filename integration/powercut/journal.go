package powercut

import (
	"encoding/json"
	"sync"
)

// Kind of an operation in a journal.
type Kind byte

// Operations. Those of names belong to a folder and become durable with SyncDir, those of contents to a file and become durable with Sync.
const (
	Write Kind = iota + 1
	Truncate
	Sync
	Link   // a name for a new file, or for one that comes from another folder
	Unlink // also of a folder
	Rename // within one folder, replacing what has the name: one step
	SyncDir
	Note // a fact about the workload, not of the disk
)

// Op is one operation.
type Op struct {
	Kind  Kind
	Node  uint64 // the file, or the folder of the name
	Child uint64 // what the name stands for
	Off   int64  // of a Write; the new size of a Truncate
	Data  []byte
	Name  string
	To    string // new name of a Rename
	Fact  Fact
}

// Fact is something that the workload knows at a moment. What must be there is noted after it was promised, what may be there before it was asked for.
type Fact struct {
	What  string `json:"what"`
	Seq   uint64 `json:"seq,omitempty"`
	Store uint32 `json:"store,omitempty"`
	Token string `json:"token,omitempty"`
	Key   string `json:"key,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

func (f Fact) String() string {
	b, err := json.Marshal(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Journal is a disk's first content and what happened since.
type Journal struct {
	Base   Image
	Sector int64 // bytes that a cut leaves whole or not at all; 512 when less

	mu  sync.Mutex
	ops []Op
}

// Note writes a fact into the journal, at this moment.
func (j *Journal) Note(f Fact) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ops = append(j.ops, Op{Kind: Note, Fact: f})
}

// Ops returns what was written down so far.
func (j *Journal) Ops() []Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ops[:len(j.ops):len(j.ops)]
}
