package broker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// rabbitmq is Debian's, with everything of its own below dir: node, ports, cookie, port mapper. No service is touched.
type rabbitmq struct {
	dir   string
	opt   Options
	ports [3]int // AMQP, distribution, port mapper
	cmd   *exec.Cmd
	died  chan struct{}
}

const rabbitmqServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

func (b *rabbitmq) Name() string { return "rabbitmq" }
func (b *rabbitmq) Addr() string { return addr(b.opt.Port) }
func (b *rabbitmq) PID() int     { return 0 }

func (b *rabbitmq) Start() error {
	for i := range b.ports {
		if b.ports[i] != 0 {
			continue
		}
		port, err := FreePort()
		if err != nil {
			return err
		}
		b.ports[i] = port
	}
	conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nmqtt.listeners.tcp.1 = 127.0.0.1:%d\nmqtt.allow_anonymous = true\nloopback_users = none\nlog.file.level = warning\n", b.ports[0], b.opt.Port)
	if err := errors.Join(os.WriteFile(filepath.Join(b.dir, "rabbit.conf"), []byte(conf), 0o600), os.WriteFile(filepath.Join(b.dir, "plugins"), []byte("[rabbitmq_mqtt].\n"), 0o600)); err != nil {
		return err
	}
	logName := filepath.Join(b.dir, "out.log")
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(rabbitmqServer)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+b.dir, fmt.Sprintf("RABBITMQ_NODENAME=judge%d@localhost", b.opt.Port), "RABBITMQ_MNESIA_BASE="+filepath.Join(b.dir, "mnesia"),
		"RABBITMQ_LOG_BASE="+filepath.Join(b.dir, "log"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(b.dir, "plugins"), "RABBITMQ_CONFIG_FILE="+filepath.Join(b.dir, "rabbit"),
		"RABBITMQ_PID_FILE="+filepath.Join(b.dir, "pid"), fmt.Sprintf("RABBITMQ_DIST_PORT=%d", b.ports[1]), fmt.Sprintf("ERL_EPMD_PORT=%d", b.ports[2]), "ERL_EPMD_ADDRESS=127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := start(cmd); err != nil {
		return fmt.Errorf("start RabbitMQ: %w (install it: apt-get install --no-install-recommends rabbitmq-server)", err)
	}
	died := make(chan struct{})
	go func() { cmd.Wait(); close(died) }()
	b.cmd, b.died = cmd, died
	for try := range 6 { // it is slow to start
		if err = await(b.Addr(), died); err == nil {
			return nil
		}
		select {
		case <-died:
			return fmt.Errorf("RabbitMQ, try %d: %w\n%s", try, err, tail(logName))
		default:
		}
	}
	return fmt.Errorf("RabbitMQ: %w\n%s", err, tail(logName))
}

func (b *rabbitmq) Stop() error { return b.end(syscall.SIGTERM) }
func (b *rabbitmq) Kill() error { return b.end(syscall.SIGKILL) }

func (b *rabbitmq) end(sig syscall.Signal) error {
	if b.cmd == nil {
		return nil
	}
	cmd, died := b.cmd, b.died
	b.cmd = nil
	_ = syscall.Kill(-cmd.Process.Pid, sig)
	select {
	case <-died:
	case <-time.After(2 * time.Minute):
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) { // what is left of the group
		return err
	}
	return nil
}

func (b *rabbitmq) Close() error {
	err := b.Stop()
	epmd := exec.Command("epmd", "-port", fmt.Sprint(b.ports[2]), "-kill")
	epmd.Env = append(os.Environ(), "ERL_EPMD_ADDRESS=127.0.0.1")
	_ = epmd.Run() // it serves this broker only
	return err
}
