package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"os/user"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// ownCommands teaches the commands of the local file, in place of those that were taught before.
func (a *Agent) ownCommands(old, next []CommandConfig) {
	for _, c := range old {
		a.commands.handle(c.Name, nil)
	}
	for _, c := range next {
		a.commands.handle(c.Name, &command{run: c.run, pure: c.Repeatable, timeout: c.Timeout})
	}
}

// killAfter is how long a program may take to end by itself once it was asked to.
const killAfter = time.Second

// outcome is what a program answers.
type outcome struct {
	Exit      int    `json:"exit"`
	Output    string `json:"output"`
	Truncated bool   `json:"truncated,omitempty"`
}

// run runs the program: no shell, its own process group, nothing but the declared arguments.
func (c CommandConfig) run(ctx context.Context, args json.RawMessage) (any, error) {
	argv, err := c.argv(args)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	// The program ends with the agent, even one that is killed: a repeatable one must not run twice at a time. The kernel ties it to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != "" {
		if cmd.SysProcAttr.Credential, err = credential(c.User); err != nil {
			return nil, err
		}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	out := &capped{max: int(c.Output)}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // children it left behind
	}
	o := outcome{Output: strings.ToValidUTF8(out.buf.String(), "\uFFFD"), Truncated: out.cut}
	if cmd.ProcessState != nil {
		o.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return o, nil
	case ctx.Err() != nil:
		return o, fmt.Errorf("stopped: %w", context.Cause(ctx))
	case errors.As(err, &exit):
		return o, fmt.Errorf("%s: %v", argv[0], exit)
	}
	return nil, err
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// capped keeps the beginning of an output and lets the rest go.
type capped struct {
	buf bytes.Buffer
	max int
	cut bool
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.max-c.buf.Len())
	c.buf.Write(p[:n])
	c.cut = c.cut || n < len(p)
	return len(p), nil
}

// argv checks a caller's arguments against the declared ones and puts them in their places.
func (c CommandConfig) argv(args json.RawMessage) ([]string, error) {
	given := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(args)) > 0 {
		if err := json.Unmarshal(args, &given); err != nil {
			return nil, fmt.Errorf("args: %w", err)
		}
	}
	for name := range given {
		if _, ok := c.Args[name]; !ok {
			return nil, fmt.Errorf("args: %q is not declared for %s", name, c.Name)
		}
	}
	values := map[string]string{}
	for name, a := range c.Args {
		raw, ok := given[name]
		switch {
		case ok:
			v, err := a.value(raw)
			if err != nil {
				return nil, fmt.Errorf("args: %s: %w", name, err)
			}
			values[name] = v
		case a.Default != "":
			values[name] = a.Default
		case !a.Optional:
			return nil, fmt.Errorf("args: %s is missing", name)
		}
	}
	var argv []string
	for _, element := range c.Argv {
		left := false
		out := placeholder.ReplaceAllStringFunc(element, func(m string) string {
			v, ok := values[m[1:len(m)-1]]
			left = left || !ok
			return v
		})
		if !left {
			argv = append(argv, out)
		}
	}
	return argv, nil
}

// value checks one argument and returns it as the program sees it.
func (a ArgConfig) value(raw json.RawMessage) (string, error) {
	switch a.Type {
	case "integer", "number":
		return a.number(raw)
	case "boolean":
		var v bool
		if err := json.Unmarshal(raw, &v); err != nil {
			return "", errors.New("want true or false")
		}
		return strconv.FormatBool(v), nil
	}
	var v string
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", errors.New("want a string")
	}
	if strings.ContainsRune(v, 0) || !utf8.ValidString(v) || len(v) > 4096 {
		return "", errors.New("too long, or not text")
	}
	if len(a.Values) > 0 && !slices.Contains(a.Values, v) {
		return "", fmt.Errorf("want one of %s", strings.Join(a.Values, ", "))
	}
	if a.Pattern != "" {
		re, err := regexp.Compile(`^(?:` + a.Pattern + `)$`)
		if err != nil {
			return "", err
		}
		if !re.MatchString(v) {
			return "", fmt.Errorf("must match %s", a.Pattern)
		}
	}
	return v, nil
}

func (a ArgConfig) number(raw json.RawMessage) (string, error) {
	var v float64
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", errors.New("want a number")
	}
	if a.Type == "integer" && (v != math.Trunc(v) || math.Abs(v) > 1<<53) {
		return "", errors.New("want a whole number")
	}
	if a.Min != nil && v < *a.Min || a.Max != nil && v > *a.Max {
		return "", fmt.Errorf("%v is outside the allowed range", v)
	}
	return strconv.FormatFloat(v, 'f', -1, 64), nil
}
