package broker

import (
	"errors"
	"net"
	"os/exec"
	"runtime"
	"time"
)

var starter = func() chan func() {
	jobs := make(chan func())
	go func() {
		// Pdeathsig fires when the thread that forked ends, not the process: all children come from one thread that stays.
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
}()

// start starts a process that the kernel ends with this one.
func start(cmd *exec.Cmd) error {
	done := make(chan error)
	starter <- func() { done <- cmd.Start() }
	return <-done
}

// StartChild starts cmd from a thread that never ends, so that SysProcAttr.Pdeathsig means the death of this process.
func StartChild(cmd *exec.Cmd) error { return start(cmd) }

// awaitPort waits for a listener that does not speak plain MQTT.
func awaitPort(address string, died <-chan struct{}) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-died:
			return errors.New("the broker ended at once")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
