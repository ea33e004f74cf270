package agent

import (
	"fmt"
	"time"

	"fieldagent/agent/mqtt"
)

// expiryAhead is how long before its end a certificate is warned of.
const expiryAhead = 30 * 24 * time.Hour

// expiring says which certificates end soon, in health and status.
func expiring(certs []mqtt.Certificate, now time.Time) (warnings []string) {
	for _, c := range certs {
		switch left := c.NotAfter.Sub(now); {
		case left <= 0:
			warnings = append(warnings, fmt.Sprintf("%s (%s) ended on %s: renew it", c.What, c.Name, c.NotAfter.Format(time.DateOnly)))
		case left <= expiryAhead:
			warnings = append(warnings, fmt.Sprintf("%s (%s) ends on %s, in %d days: renew it", c.What, c.Name, c.NotAfter.Format(time.DateOnly), int(left/(24*time.Hour))))
		}
	}
	return warnings
}

func (a *Agent) warnings(now time.Time) []string {
	if c := a.client.Load(); c != nil {
		return expiring(c.Certificates(), now)
	}
	return nil
}
