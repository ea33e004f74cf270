package mqtt

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// Certificate is one that the connection depends on.
type Certificate struct {
	What     string    // "the broker's certificate", "this device's certificate"
	Name     string    // its subject
	NotAfter time.Time // when it ends
}

// Certificates returns those of the newest TLS handshake, the one that ends first in front.
func (c *Client) Certificates() []Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.certs)
}

// noteCertificates keeps what was shown in a handshake: the broker's chain up to its authority, and the device's own.
func (c *Client) noteCertificates(state tls.ConnectionState, own []tls.Certificate) {
	var all []Certificate
	add := func(what string, x *x509.Certificate) {
		all = append(all, Certificate{what, x.Subject.String(), x.NotAfter})
	}
	chain := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		chain = state.VerifiedChains[0]
	}
	for i, x := range chain {
		if i == 0 {
			add("the broker's certificate", x)
		} else {
			add("the broker's authority", x)
		}
	}
	for _, pair := range own {
		if len(pair.Certificate) > 0 {
			if x, err := x509.ParseCertificate(pair.Certificate[0]); err == nil {
				add("this device's certificate (mqtt.tls.cert_file)", x)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Certificate) int { return cmp.Compare(a.NotAfter.Unix(), b.NotAfter.Unix()) })
	c.mu.Lock()
	c.certs = all
	c.mu.Unlock()
}
