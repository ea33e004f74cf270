// Package remote shows what the device does when it is commanded and configured from afar: in virtual time against an embedded broker,
// with the built binary against mosquitto, and by the transcript in docs/remote-session.md.
package remote
