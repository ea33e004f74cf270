package board

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"fieldagent/sensors"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"
)

// Lines opens GPIO lines through the kernel's character devices, interface v2 (Linux 5.10 or later).
type Lines struct {
	Dev string // folder of the devices; "" is /dev
}

var _ sensors.Lines = Lines{}

const (
	eventBuffer = 1024 // edges the kernel keeps for a line while the agent is busy; its default is 16
	pollEvery   = 5 * time.Millisecond
)

// Input holds an input line. A chip without interrupts is polled every 5 ms.
func (b Lines) Input(spec sensors.LineSpec, want sensors.Edges, edge func(sensors.Edge), lost func(error)) (sensors.InputLine, error) {
	flags := uapi.LineFlagV2Input
	if want&sensors.Rising != 0 {
		flags |= uapi.LineFlagV2EdgeRising
	}
	if want&sensors.Falling != 0 {
		flags |= uapi.LineFlagV2EdgeFalling
	}
	req := request(spec, flags|bias(spec.Pull))
	req.EventBufferSize = eventBuffer
	if spec.Debounce > 0 {
		add(&req, uapi.DebouncePeriod(spec.Debounce).Encode())
	}
	fd, err := b.hold(spec.Line, &req)
	polled := false
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		polled = true
		req = request(spec, uapi.LineFlagV2Input|bias(spec.Pull))
		fd, err = b.hold(spec.Line, &req)
	}
	if err != nil {
		return nil, err
	}
	in := &input{line: line{fd: fd, name: spec.Line}, polled: polled, done: make(chan struct{})}
	if polled {
		level, err := in.Active()
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		in.quit = make(chan struct{})
		go in.poll(spec.Debounce, level, want, edge, lost)
		return in, nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("line %s: %w", spec.Line, err)
	}
	in.file = os.NewFile(uintptr(fd), "gpio line "+spec.Line)
	go in.read(spec.Debounce, edge, lost)
	return in, nil
}

// Output holds an output line; its first level is initial, with no glitch before it.
func (b Lines) Output(spec sensors.LineSpec, initial bool) (sensors.OutputLine, error) {
	flags := uapi.LineFlagV2Output
	if spec.OpenDrain {
		flags |= uapi.LineFlagV2OpenDrain
	}
	req := request(spec, flags)
	add(&req, uapi.OutputValues(uapi.NewLineBitmap(bit(initial))).Encode())
	fd, err := b.hold(spec.Line, &req)
	if err != nil {
		return nil, err
	}
	return &output{line{fd: fd, name: spec.Line}}, nil
}

func (b Lines) dev() string {
	if b.Dev == "" {
		return "/dev"
	}
	return b.Dev
}

// Find returns the chip and the line of that name, and who holds it. It touches nothing.
func (b Lines) Find(name string) (Chip, Line, error) {
	chips, faults := Chips(b.dev())
	chip, l, err := find(chips, name)
	if err != nil && faults != nil {
		err = fmt.Errorf("%w; %w", err, faults)
	}
	return chip, l, err
}

// hold finds the line anew at each call, so that adapters may come and go.
func (b Lines) hold(name string, req *uapi.LineRequest) (int, error) {
	chip, l, err := b.Find(name)
	if err != nil {
		return -1, err
	}
	f, _, err := openChip(chip.Path)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	req.Offsets[0], req.Lines = uint32(l.Offset), 1
	err = uapi.GetLine(f.Fd(), req)
	switch {
	case errors.Is(err, unix.EBUSY):
		who := l.Consumer
		if who == "" {
			who = "the kernel"
		}
		return -1, fmt.Errorf("line %s (%s:%d) is held by %q; end that first, or use another line", name, chip.Label, l.Offset, who)
	case err != nil:
		return -1, fmt.Errorf("line %s (%s:%d): request: %w", name, chip.Label, l.Offset, err)
	}
	return int(req.Fd), nil
}

func request(spec sensors.LineSpec, flags uapi.LineFlagV2) uapi.LineRequest {
	if spec.ActiveLow {
		flags |= uapi.LineFlagV2ActiveLow
	}
	req := uapi.LineRequest{Config: uapi.LineConfig{Flags: flags}}
	copy(req.Consumer[:len(req.Consumer)-1], spec.Consumer)
	return req
}

func add(req *uapi.LineRequest, a uapi.LineAttribute) {
	req.Config.AddAttribute(uapi.LineConfigAttribute{Attr: a, Mask: uapi.NewLineBitMask(1)})
}

func bias(pull string) uapi.LineFlagV2 {
	switch pull {
	case "up":
		return uapi.LineFlagV2BiasPullUp
	case "down":
		return uapi.LineFlagV2BiasPullDown
	case "off":
		return uapi.LineFlagV2BiasDisabled
	}
	return 0
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// line is what inputs and outputs share: a request's file descriptor.
type line struct {
	name string
	mu   sync.Mutex
	fd   int // -1 once closed
}

// Active returns the logical level of the line now; it never changes the direction.
func (l *line) Active() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return false, os.ErrClosed
	}
	v := uapi.LineValues{Mask: uapi.NewLineBitMask(1)}
	if err := uapi.GetLineValuesV2(uintptr(l.fd), &v); err != nil {
		return false, l.fault("read", err)
	}
	return v.Get(0) == 1, nil
}

func (l *line) fault(what string, err error) error {
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("line %s: %s: %w", l.name, what, sensors.ErrLineGone)
	}
	return fmt.Errorf("line %s: %s: %w", l.name, what, err)
}

type output struct{ line }

func (o *output) Set(active bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd < 0 {
		return os.ErrClosed
	}
	if err := uapi.SetLineValuesV2(uintptr(o.fd), uapi.LineValues{Bits: uapi.NewLineBitmap(bit(active)), Mask: uapi.NewLineBitMask(1)}); err != nil {
		return o.fault("set", err)
	}
	return nil
}

func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd < 0 {
		return os.ErrClosed
	}
	fd := o.fd
	o.fd = -1
	return unix.Close(fd)
}

type input struct {
	line
	polled bool
	file   *os.File      // with interrupts
	quit   chan struct{} // polled
	done   chan struct{} // closed when no edge will come any more
}

func (in *input) Polled() bool { return in.polled }

// read passes edges on until the line is closed or its chip goes away. The kernel stamps a debounced edge when the level has held; the edge itself was earlier.
func (in *input) read(debounce time.Duration, edge func(sensors.Edge), lost func(error)) {
	defer close(in.done)
	const size = 48 // sizeof(struct gpio_v2_line_event), <linux/gpio.h>
	buf := make([]byte, 64*size)
	for {
		n, err := in.file.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && lost != nil {
				lost(in.fault("read edges", err))
			}
			return
		}
		for b := buf[:n]; len(b) >= size; b = b[size:] {
			if edge != nil {
				edge(sensors.Edge{
					At:     time.Duration(binary.NativeEndian.Uint64(b)) - debounce,
					Active: uapi.LineEventID(binary.NativeEndian.Uint32(b[8:])) == uapi.LineEventRisingEdge,
					Seq:    binary.NativeEndian.Uint32(b[20:]), // line_seqno
				})
			}
		}
	}
}

// poll makes edges out of levels for chips without interrupts.
func (in *input) poll(debounce time.Duration, level bool, want sensors.Edges, edge func(sensors.Edge), lost func(error)) {
	defer close(in.done)
	if err := poll(in.quit, in.Active, sensors.Monotonic, debounce, level, want, edge); err != nil && !errors.Is(err, os.ErrClosed) && lost != nil {
		lost(err)
	}
}

// poll reads levels until quit is closed, or until one cannot be read.
func poll(quit <-chan struct{}, read func() (bool, error), clock func() time.Duration, debounce time.Duration, level bool, want sensors.Edges, edge func(sensors.Edge)) error {
	d := sensors.NewDebouncer(debounce, level)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	emit := func(e sensors.Edge, ok bool) {
		wanted := e.Active && want&sensors.Rising != 0 || !e.Active && want&sensors.Falling != 0
		if ok && wanted && edge != nil {
			edge(e)
		}
	}
	for last := level; ; {
		select {
		case <-quit:
			return nil
		case <-tick.C:
		}
		now := clock()
		level, err := read()
		if err != nil {
			return err
		}
		if level != last {
			last = level
			emit(d.Feed(sensors.Edge{Active: level, At: now}))
		}
		emit(d.Settle(now))
	}
}

// Close lets the line go; no edge is reported after it returns. It must not be called from an edge function.
func (in *input) Close() error {
	in.mu.Lock()
	if in.fd < 0 {
		in.mu.Unlock()
		return os.ErrClosed
	}
	fd := in.fd
	in.fd = -1
	in.mu.Unlock()
	var err error
	if in.file != nil {
		err = in.file.Close() // wakes the reader
		<-in.done
		return err
	}
	close(in.quit)
	<-in.done
	return unix.Close(fd)
}
