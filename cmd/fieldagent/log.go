package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// newLogger writes for people and for the journal: no time stamps of its own there, and a priority in front (sd-daemon(3)).
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if !isJournal(w) {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	h := &journal{w: w, mu: &sync.Mutex{}, buf: &bytes.Buffer{}}
	h.Handler = slog.NewTextHandler(h.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}})
	return slog.New(h)
}

// isJournal says whether w is the stream that JOURNAL_STREAM names.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

type journal struct {
	slog.Handler
	w   io.Writer
	mu  *sync.Mutex
	buf *bytes.Buffer
}

func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.Reset()
	if err := j.Handler.Handle(ctx, r); err != nil {
		return err
	}
	priority := "<6>"
	switch {
	case r.Level >= slog.LevelError:
		priority = "<3>"
	case r.Level >= slog.LevelWarn:
		priority = "<4>"
	case r.Level < slog.LevelInfo:
		priority = "<7>"
	}
	_, err := j.w.Write(append([]byte(priority), j.buf.Bytes()...))
	return err
}

func (j *journal) WithAttrs(a []slog.Attr) slog.Handler {
	return &journal{j.Handler.WithAttrs(a), j.w, j.mu, j.buf}
}

func (j *journal) WithGroup(g string) slog.Handler {
	return &journal{j.Handler.WithGroup(g), j.w, j.mu, j.buf}
}
