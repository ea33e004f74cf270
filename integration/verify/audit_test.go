package verify

import (
	"strings"
	"testing"
)

const y = "0badcafe-0000000000000002"

// Each rule must be able to fail, and a faithful agent must pass.
func TestAudit(t *testing.T) {
	const (
		present = "\n2 < CONNACK 0 0 0 - present\n"
		first   = "1 > PUBLISH 9 2 0 " + x
		again   = "2 > PUBLISH 9 2 1 " + x
		handed  = "\n1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -"
	)
	for _, c := range []struct{ name, log, want string }{
		{"two handshakes", first + "\n1 > PUBLISH 10 2 0 " + y + handed + "\n1 < PUBREC 10 0 0 -\n1 > PUBREL 10 0 0 -\n1 < PUBCOMP 9 0 0 -", ""},
		{"again with DUP", first + present + again, ""},
		{"PUBREL again after a reconnect", first + handed + present + "2 > PUBREL 9 0 0 -\n2 < PUBCOMP 9 0 0 -", ""},
		{"an answer to an unknown PUBREC", "1 < PUBREC 9 0 0 -\n1 > PUBREL 9 0 0 -", ""},
		{"session lost", first + handed + "\n2 < CONNACK 0 0 0 - absent\n2 > PUBLISH 9 2 0 " + x, ""},
		{"published after PUBREL", first + handed + present + again, "was released"},
		{"without DUP", first + present + "2 > PUBLISH 9 2 0 " + x, "without DUP"},
		{"twice on a connection", first + "\n1 > PUBLISH 9 2 1 " + x, "on this connection already"},
		{"PUBREL without PUBREC", first + "\n1 > PUBREL 9 0 0 -", "without PUBREC"},
		{"out of order", "1 > PUBLISH 9 2 0 " + x + "\n1 > PUBLISH 10 2 0 " + y + present + "2 > PUBLISH 10 2 1 " + y + "\n2 > PUBLISH 9 2 1 " + x, "after 0000000000000002"},
		{"released out of order", first + "\n1 > PUBLISH 10 2 0 " + y + "\n1 < PUBREC 9 0 0 -\n1 < PUBREC 10 0 0 -\n1 > PUBREL 10 0 0 -\n1 > PUBREL 9 0 0 -", "released after"},
		{"another QoS at once", first + "\n1 > PUBLISH 10 1 0 " + y, "is not finished"},
		{"for the first time too late", "1 > PUBLISH 10 2 0 " + y + present + "2 > PUBLISH 9 2 0 " + x, "for the first time after"},
		{"QoS 1 again before a QoS 2 that goes on", "1 > PUBLISH 9 1 0 " + x + "\n1 < PUBACK 9 0 0 -\n1 > PUBLISH 10 2 0 " + y + present + "2 > PUBLISH 9 1 1 " + x, ""},
		{"out of a slow line, after the next connection", first + present + again + "\n2 < PUBREC 9 0 0 -\n2 > PUBREL 9 0 0 -\n1 > PUBLISH 9 2 0 " + x, ""},
		{"the next connection is judged after that", first + present + again + "\n2 < PUBREC 9 0 0 -\n2 > PUBREL 9 0 0 -\n1 > PUBLISH 9 2 0 " + x + "\n" + again, "was released"},
		{"one id for two", first + "\n1 > PUBLISH 9 2 0 " + y, "packet id of event"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := AuditLog(log(t, c.log))
			if err != nil {
				t.Fatal(err)
			}
			switch got := strings.Join(a.Violations, "\n"); {
			case c.want == "" && got != "":
				t.Errorf("faithful, but: %s", got)
			case c.want != "" && (len(a.Violations) != 1 || !strings.Contains(got, c.want)):
				t.Errorf("got %q, want one with %q", got, c.want)
			}
		})
	}
	if first, err := AuditLog(log(t, "1 > CONNECT 0 0 0 - clean\n1 < CONNACK 0 0 0 - absent")); err != nil || first.Clean != 0 {
		t.Errorf("a clean session before the first event: %+v, %v", first, err)
	}
	lost, err := AuditLog(log(t, "1 > CONNECT 0 0 0 -\n1 < CONNACK 0 0 0 - absent\n2 > CONNECT 0 0 0 -\n2 < CONNACK 0 0 0 - absent\n2 > PUBLISH 9 2 0 "+x+"\n3 > CONNECT 0 0 0 - clean\n3 < CONNACK 0 0 0 - absent\n4 < CONNACK 0 0 0 - absent"))
	if err != nil || lost.Lost != 1 || lost.Clean != 1 {
		t.Errorf("sessions: %+v, %v; want one lost, one thrown away", lost, err)
	}
}
