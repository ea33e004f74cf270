package campaign

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fieldagent/integration/verify"
)

// Report is the outcome of a campaign.
type Report struct {
	Counts    map[string]int // faults by kind
	Verdict   verify.Verdict
	Audit     verify.Audit
	Blames    []verify.Blame // of every event that was lost or doubled
	Readings  uint64         // live ones that came
	Ambiguous uint64         // events that may have come twice, as the agent counts them
}

// Report judges what happened so far.
func (r *Rig) Report(counts map[string]int) (Report, error) {
	if err := r.toAgent.Flush(); err != nil {
		return Report{}, err
	}
	if err := r.toConsumer.Flush(); err != nil {
		return Report{}, err
	}
	rep := Report{Counts: counts, Verdict: r.Judge.Verdict(), Readings: r.readings.Load()}
	var err error
	if rep.Audit, err = verify.AuditLog(r.toAgent.Name()); err != nil {
		return rep, err
	}
	var ids []string
	for _, v := range slices.Concat(rep.Verdict.Lost, rep.Verdict.Doubled, rep.Verdict.Missing) {
		ids = append(ids, eventID(v))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > 0 {
		rep.Blames, err = verify.Explain(r.toAgent.Name(), r.toConsumer.Name(), ids)
	}
	return rep, err
}

// Faults is the number of faults.
func (r Report) Faults() int {
	n := 0
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// Objections are what the agent has to answer for. What the logs prove to be the broker's doing is not among them; excused names further culprits
// of events that were lost or doubled.
//
// An event that came out of order is the broker's doing when the agent's packets break no rule: then they were in order.
func (r Report) Objections(excused ...string) []string {
	v := r.Verdict
	out := slices.Concat(r.Audit.Violations, v.Strange)
	guilty := map[string]bool{} // ids that are somebody else's doing
	for _, b := range r.Blames {
		if b.Culprit == "broker" || slices.Contains(excused, b.Culprit) {
			guilty[b.Event] = true
			continue
		}
		out = append(out, fmt.Sprintf("%s: %s: %s\n    %s", b.Event, b.Culprit, b.Why, strings.Join(b.Story, "\n    ")))
	}
	for _, m := range v.Missing {
		if !guilty[eventID(m)] {
			out = append(out, m+" never came")
		}
	}
	if len(r.Audit.Violations) > 0 {
		out = append(out, v.Disorder...)
	}
	if r.Audit.Clean > 0 {
		out = append(out, fmt.Sprintf("the agent threw its session away %d times", r.Audit.Clean))
	}
	if v.Sessions > 0 {
		out = append(out, fmt.Sprintf("the judge's own session was lost %d times", v.Sessions))
	}
	return out
}

// eventID is the id in "source id" as the judge writes it.
func eventID(s string) string { return s[strings.LastIndexByte(s, ' ')+1:] }

// String is the report as people read it.
func (r Report) String() string {
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, r.Counts[k]))
	}
	s := fmt.Sprintf("%d faults: %s\n%s\n%s\nreadings that came %d", r.Faults(), strings.Join(kinds, ", "), r.Verdict, r.Audit, r.Readings)
	by := map[string]int{}
	for _, b := range r.Blames {
		by[b.Culprit]++
	}
	if len(by) > 0 {
		s += fmt.Sprintf("\nlost or doubled, by culprit: %v", by)
	}
	return s
}
