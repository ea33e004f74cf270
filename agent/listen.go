package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// maxSocket is the longest path of a Unix socket (unix(7)).
const maxSocket = 107

// ListenLocal opens the Unix socket of the local API: mode 0660, group fieldagent where that group exists. A socket that nobody serves is replaced.
func ListenLocal(path string) (net.Listener, error) {
	if len(path) > maxSocket {
		return nil, fmt.Errorf("socket %s: the path has %d bytes, the most is %d; name a shorter one with --socket", path, len(path), maxSocket)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w; name another place with --socket", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("socket %s: another agent serves it; end that, or name another with --socket", path)
	}
	if err := removeSocket(path); err != nil {
		return nil, fmt.Errorf("socket: %w; name another with --socket", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w; name another with --socket", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	if g, err := user.LookupGroup("fieldagent"); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			_ = os.Chown(path, -1, gid) // without the right to, the agent's own group stays
		}
	}
	return l, nil
}

// removeSocket removes a socket that is left behind, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		err = fmt.Errorf("%s is there and is no socket", path)
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

const (
	answerIn = time.Second            // for requests in hand when the agent is being stopped
	takenIn  = 250 * time.Millisecond // for their answers to go out
)

// ServeLocal serves the local API until ctx ends. Then nothing new is taken, and it returns when what was in hand is answered, within answerIn and takenIn:
// an event that is stored has its answer, unless the producer has gone away.
func (a *Agent) ServeLocal(ctx context.Context, l net.Listener) error {
	inHand, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	s := &http.Server{Handler: a.newAPI(ctx), BaseContext: func(net.Listener) context.Context { return inHand }, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)}
	answered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(answered)
		defer time.AfterFunc(answerIn, func() { cut(errStopping) }).Stop()
		end, cancel := context.WithTimeout(context.Background(), answerIn+takenIn)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
	})
	err := s.Serve(l) // returns when Shutdown begins
	if !stop() {
		<-answered
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("local API: %w", err)
	}
	return nil
}
