//go:build !faultpoints

package agent

// faultPoint marks a place where the kill campaign may end the process; only builds with the tag faultpoints look at it.
func faultPoint(string) {}

// FaultPoint is the hook for queue.Options.Crash: nil, unless built with the tag faultpoints.
var FaultPoint func(point string)
