package main

import (
	"bytes"
	"regexp"
	"slices"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

const secretWords = `(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|psk)`

// secretPatterns find what looks like a secret wherever it stands; the first group stays.
var secretPatterns = []*regexp.Regexp{
	regexp.MustCompile(`(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]+@`),
	regexp.MustCompile(`(?i)(\bauthorization\b["']?\s*[:=]\s*)[^\r\n]+`),
	// key: value, KEY=value, "key":"value"
	regexp.MustCompile(`(?i)([a-z0-9_-]*` + secretWords + `["']?[ \t]*[:=][ \t]*)(?:"[^"\r\n]*"|'[^'\r\n]*'|[^\s"',;}\]]+)`),
	// --token value, "--token", "value", and the same over two items of a YAML list
	regexp.MustCompile(`(?i)(--[a-z0-9_-]*` + secretWords + `["']?(?:[ \t]+|,\s*|[ \t]*\n[ \t]*-[ \t]*))(?:"[^"\r\n]*"|'[^'\r\n]*'|[^\s"',\]]+)`),
}

// plainWords follow a key in messages, such as "mqtt.password: unknown key".
var plainWords = map[string]bool{"unknown": true, "is": true, "has": true, "can": true, "cannot": true, "must": true, "no": true, "not": true, "a": true, "an": true, "the": true,
	"open": true, "stat": true, "lstat": true, "read": true}

// redact takes the known secrets, and what looks like one, out of text.
func redact(text []byte, known []string) []byte {
	for _, s := range known {
		if s != "" {
			text = bytes.ReplaceAll(text, []byte(s), []byte(redacted))
		}
	}
	for _, p := range secretPatterns {
		text = p.ReplaceAllFunc(text, func(found []byte) []byte {
			key := p.FindSubmatch(found)[1]
			if plainWords[string(found[len(key):])] {
				return found
			}
			return append(slices.Clone(key), redacted...)
		})
	}
	return text
}
