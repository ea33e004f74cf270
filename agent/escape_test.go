package agent

import (
	"testing"
	"time"
)

// TestEscape plays connections that end, one word each: c closed right after the row, a closed after it went alone, s silent, l closed late, n closed before the row went, p with progress, o another row.
func TestEscape(t *testing.T) {
	for _, c := range []struct {
		ends                     string
		forget, isolate, condemn bool
	}{
		{"cccc", false, false, false},
		{"ccccc", false, true, false},
		{"cccccccc", true, true, false}, // five together, three alone: the session goes first
		{"ccccccccccc", true, true, true},
		{"ccccccccpccc", true, false, false}, // a sign that it is not the row
		{"ssssssssssssssss", false, false, false},
		{"llllllllllll", false, false, false},
		{"ccccpcccc", false, false, false},
		{"ccccocccc", false, false, false},
		{"ccccccncccnccn", true, true, false}, // a line that drops without the row proves nothing against it
		{"ccccccncncncc", false, true, false},
	} {
		var e escape
		forgot := false
		for _, w := range c.ends {
			x := ending{first: 7, sent: true, after: time.Millisecond, hungUp: true}
			switch w {
			case 's':
				x.hungUp = false
			case 'l':
				x.after = time.Minute
			case 'n':
				x.first, x.sent = 0, false
			case 'p':
				x.progress = true
			case 'o':
				x.first = 8
			}
			forgot = e.ended(x) || forgot
		}
		if forgot != c.forget || e.isolated != c.isolate || e.condemn != c.condemn {
			t.Errorf("%s: session thrown away %t, row alone %t, row condemned %t; want %t, %t, %t", c.ends, forgot, e.isolated, e.condemn, c.forget, c.isolate, c.condemn)
		}
	}
}
