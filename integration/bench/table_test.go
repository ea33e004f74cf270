package bench

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
)

// bound says on which side of a floor a figure must be.
type bound string

const (
	atLeast bound = "≥"
	atMost  bound = "≤"
)

type row struct {
	what, limits string
	got, floor   float64
	side         bound
	unit         string
}

func (r row) held() bool {
	if r.side == atLeast {
		return r.got >= r.floor
	}
	return r.got <= r.floor
}

var (
	rowsMu sync.Mutex
	rows   = map[string][]row{}
)

// report notes a figure: as a metric of the benchmark, and for the table.
func report(b *testing.B, r row) {
	b.Helper()
	b.ReportMetric(r.got, strings.ReplaceAll(r.unit, " ", "-"))
	rowsMu.Lock()
	defer rowsMu.Unlock()
	rows[r.what] = append(rows[r.what], r)
}

// table shows the median of every figure.
func table() string {
	rowsMu.Lock()
	defer rowsMu.Unlock()
	if len(rows) == 0 {
		return ""
	}
	names := make([]string, 0, len(rows))
	for n := range rows {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-64s %12s   %-14s %-6s %s\n", "what", "measured", "floor", "", "what limits it")
	for _, n := range names {
		all := rows[n]
		sort.Slice(all, func(i, j int) bool { return all[i].got < all[j].got })
		r := all[len(all)/2]
		word := "held"
		if !r.held() {
			word = "MISSED"
		}
		fmt.Fprintf(&b, "%-64s %12s   %-14s %-6s %s\n", n, fmt.Sprintf("%.4g %s", r.got, r.unit), fmt.Sprintf("%s %.4g", r.side, r.floor), word, r.limits)
	}
	return b.String()
}

// TestTableTellsMisses shows that a figure on the wrong side is called so.
func TestTableTellsMisses(t *testing.T) {
	rowsMu.Lock()
	old := rows
	rows = map[string][]row{"slow": {{what: "slow", got: 1, floor: 2, side: atLeast}}, "small": {{what: "small", got: 1, floor: 2, side: atMost}}}
	rowsMu.Unlock()
	text := table()
	rowsMu.Lock()
	rows = old
	rowsMu.Unlock()
	if strings.Count(text, "MISSED") != 1 || strings.Count(text, "held") != 1 {
		t.Errorf("one held, one missed:\n%s", text)
	}
}
