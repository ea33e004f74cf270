package broker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type mosquitto struct {
	dir  string
	opt  Options
	cmd  *exec.Cmd
	died chan struct{}
}

func (b *mosquitto) Name() string { return "mosquitto" }
func (b *mosquitto) Addr() string { return addr(b.opt.Port) }

func (b *mosquitto) PID() int {
	if b.cmd == nil {
		return 0
	}
	return b.cmd.Process.Pid
}

func (b *mosquitto) config() string {
	lines := []string{
		"user root", // it would give up its rights to a user who cannot write here
		"allow_anonymous true",
		"persistence true",
		"persistence_location " + b.dir + "/",
		"max_queued_messages 0",
		"max_queued_bytes 0",
		"set_tcp_nodelay true",
		"log_dest stderr",
		"log_type error", "log_type warning", "log_type notice",
	}
	if !strings.Contains(strings.Join(b.opt.Lines, "\n"), "listener ") {
		lines = append(lines, fmt.Sprintf("listener %d 127.0.0.1", b.opt.Port))
	}
	if b.opt.InFlight > 0 {
		lines = append(lines, fmt.Sprintf("max_inflight_messages %d", b.opt.InFlight))
	}
	if b.opt.Autosave {
		lines = append(lines, "autosave_on_changes true", "autosave_interval 1")
	}
	return strings.Join(append(lines, b.opt.Lines...), "\n") + "\n"
}

func (b *mosquitto) Start() error {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto" // not in a plain user's PATH
	}
	conf := filepath.Join(b.dir, "mosquitto.conf")
	if err := os.WriteFile(conf, []byte(b.config()), 0o600); err != nil {
		return err
	}
	logName := filepath.Join(b.dir, "mosquitto.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, "-c", conf)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := start(cmd); err != nil {
		return fmt.Errorf("start mosquitto: %w (install it: apt-get install mosquitto)", err)
	}
	died := make(chan struct{})
	go func() { cmd.Wait(); close(died) }()
	b.cmd, b.died = cmd, died
	address := b.Addr()
	if strings.Contains(strings.Join(b.opt.Lines, "\n"), "cafile") {
		return awaitPort(address, died)
	}
	if err := await(address, died); err != nil {
		return fmt.Errorf("mosquitto: %w\n%s", err, tail(logName))
	}
	return nil
}

func (b *mosquitto) Stop() error { return b.end(syscall.SIGTERM) }
func (b *mosquitto) Kill() error { return b.end(syscall.SIGKILL) }

func (b *mosquitto) end(sig syscall.Signal) error {
	if b.cmd == nil {
		return nil
	}
	cmd, died := b.cmd, b.died
	b.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-died:
		return nil
	case <-time.After(60 * time.Second):
		cmd.Process.Kill()
		<-died
		return fmt.Errorf("mosquitto did not end within a minute of %v", sig)
	}
}

func (b *mosquitto) Close() error { return b.Stop() }
