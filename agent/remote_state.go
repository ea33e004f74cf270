package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// remoteDoc is a document from config/set. An empty one means the local file alone.
type remoteDoc struct {
	Body     []byte `json:"body,omitempty"`
	Hash     string `json:"hash"`
	Revision uint64 `json:"revision"`
	At       string `json:"at"`
	From     string `json:"from,omitempty"` // the group it was sent to; "": the device itself
}

// rank says whose documents go first: the device's own, then a group's, then everyone's.
func rank(from string) int {
	switch from {
	case "":
		return 2
	case everyone:
		return 0
	}
	return 1
}

// remoteState is all that is kept of the remote configuration: one value, so that a power cut finds one configuration or the other, whole.
type remoteState struct {
	Revision uint64         `json:"revision"`          // rises with every document that is tried
	Good     *remoteDoc     `json:"good,omitempty"`    // confirmed; nil: the local file
	Before   *remoteDoc     `json:"before,omitempty"`  // confirmed before that, for config-rollback
	Pending  *remoteDoc     `json:"pending,omitempty"` // on trial
	Next     *remoteDoc     `json:"next,omitempty"`    // arrived during a trial
	Last     *ConfigAttempt `json:"last,omitempty"`
	Refused  []string       `json:"refused,omitempty"` // hashes
	Cut      string         `json:"cut,omitempty"`     // hash of the document whose trial was cut short
	Cuts     int            `json:"cuts,omitempty"`
	Early    earlyEnds      `json:"early,omitzero"`
	Local    string         `json:"local,omitempty"` // hash of the local files that this belongs to
}

// earlyEnds counts runs in a row with a confirmed remote configuration that ended, not by request, before they had lasted calmAfter.
type earlyEnds struct {
	Boot uint32 `json:"boot,omitempty"`
	Here int    `json:"here,omitempty"` // in this boot: the agent crashes
	All  int    `json:"all,omitempty"`  // over boots: the board crashes, or somebody plays with its switch
}

func (s *remoteState) refuse(hash string) {
	if hash == "" || slices.Contains(s.Refused, hash) {
		return
	}
	s.Refused = append(s.Refused, hash)
	s.Refused = s.Refused[max(0, len(s.Refused)-maxRefused):]
}

// known says why a document need not be tried, or "".
func (s *remoteState) known(hash string, retained bool) string {
	switch {
	case s.Pending != nil && s.Pending.Hash == hash && s.Next == nil:
		return "on trial already"
	case s.Pending == nil && s.Good != nil && s.Good.Hash == hash, s.Pending == nil && s.Good == nil && hash == "":
		return "in force already"
	case !slices.Contains(s.Refused, hash):
		return ""
	case retained, s.Last != nil && s.Last.Hash == hash:
		return "refused before"
	}
	return ""
}

func hashOf(body []byte) string {
	if len(body) == 0 {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// outranked says why a document has to give way to the one that is in force or on its way, or "".
func (s *remoteState) outranked(doc *remoteDoc, retained bool) string {
	now := s.Good
	if s.Pending != nil {
		now = s.Pending
	}
	if s.Next != nil {
		now = s.Next
	}
	switch {
	case now == nil || len(now.Body) == 0:
		return ""
	case rank(now.From) > rank(doc.From):
		return "this device has one that is more its own"
	case now.From != doc.From && len(doc.Body) == 0 && doc.From != "":
		return "the one in force is not from there"
	case now.From != doc.From && rank(now.From) == rank(doc.From) && retained:
		return "another group's is in force; send it without the retain flag to take its place"
	}
	return ""
}
