package verify

import (
	"fmt"
	"strings"
	"testing"
)

func body(n int, producer, number int) []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","source":"fieldagent/a","id":"0badcafe-%016d","sequence":"%016d","type":"t","data":{"p":%d,"n":%d}}`, n, n, producer, number)
}

// The judge must see each kind of fault, and nothing where there is none.
func TestJudge(t *testing.T) {
	type delivery struct {
		n, producer, number int
		qos                 byte
	}
	for _, c := range []struct {
		name     string
		accepted int
		come     []delivery
		want     string
	}{
		{"all well", 3, []delivery{{1, 0, 1, 2}, {2, 0, 2, 2}, {3, 0, 3, 2}}, "lost 0 · doubled 0 · out of order 0 · gaps 0 · strange 0"},
		{"unpromised", 2, []delivery{{1, 0, 1, 2}, {2, 0, 2, 2}, {3, 0, 3, 2}}, "(1 of them unpromised) from 1 outboxes · lost 0 · doubled 0"},
		{"lost at the end", 3, []delivery{{1, 0, 1, 2}, {2, 0, 2, 2}}, "lost 1 · doubled 0 · out of order 0 · gaps 0"},
		{"lost inside", 3, []delivery{{1, 0, 1, 2}, {3, 0, 3, 2}}, "lost 1 · doubled 0 · out of order 0 · gaps 1"},
		{"doubled", 1, []delivery{{1, 0, 1, 2}, {1, 0, 1, 2}}, "lost 0 · doubled 1 · out of order 0"},
		{"redelivered", 1, []delivery{{1, 0, 1, 1}, {1, 0, 1, 1}}, "doubled 0 · out of order 0 · gaps 0 · strange 0 · redelivered at QoS 1 1"},
		{"out of order", 3, []delivery{{1, 0, 1, 2}, {3, 1, 3, 2}, {2, 0, 2, 2}}, "lost 0 · doubled 0 · out of order 1 · gaps 0"},
		{"one act under two ids", 1, []delivery{{1, 0, 1, 2}, {2, 0, 1, 2}}, "lost 0 · doubled 0 · out of order 1"},
		{"another's content", 1, []delivery{{1, 4, 1, 2}}, "strange 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := NewJudge()
			for n := 1; n <= c.accepted; n++ {
				m := Mark{0, n}
				if c.name == "out of order" && n == 3 {
					m = Mark{1, 3}
				}
				j.Accept("fieldagent/a", fmt.Sprintf("0badcafe-%016d", n), m)
			}
			for _, d := range c.come {
				j.Deliver("t", body(d.n, d.producer, d.number), d.qos)
			}
			v := j.Verdict()
			if !strings.Contains(v.String(), c.want) {
				t.Errorf("%s\nwant %s", v, c.want)
			}
			clean := c.name == "all well" || c.name == "unpromised" || c.name == "redelivered"
			if v.Clean() != clean {
				t.Errorf("Clean() = %t: %+v", v.Clean(), v)
			}
		})
	}
}

func TestJudgeStrange(t *testing.T) {
	for _, payload := range []string{"", "{}", `{"specversion":"1.0","source":"s","id":"x","sequence":"y"}`,
		`{"specversion":"1.0","source":"s","id":"0badcafe-0000000000000042","sequence":"0000000000000043"}`} {
		j := NewJudge()
		j.Deliver("t", []byte(payload), 2)
		if v := j.Verdict(); len(v.Strange) != 1 {
			t.Errorf("%q: %v", payload, v)
		}
	}
	j := NewJudge()
	j.Deliver("t", body(1, 0, 1), 2)
	j.Deliver("t", []byte(strings.ReplaceAll(string(body(2, 0, 2)), "0badcafe", "0badcaff")), 2)
	if v := j.Verdict(); len(v.Strange) != 1 || !strings.Contains(v.Strange[0], "new database") {
		t.Errorf("a new database went unseen: %v", v)
	}
}
