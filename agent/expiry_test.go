package agent

import (
	"strings"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
)

func TestExpiring(t *testing.T) {
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for days, want := range map[int]string{-1: "ended on 2026-11-24", 1: "in 1 days", 30: "in 30 days", 31: ""} {
		got := strings.Join(expiring([]mqtt.Certificate{{What: "the broker's certificate", Name: "CN=b", NotAfter: now.AddDate(0, 0, days)}}, now), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%d days: %q, want %q", days, got, want)
		}
	}
}
