package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Packet ids of the engine: FirstID + sequence mod IDs. Lower ids are for subscriptions and for messages outside the outbox.
const (
	FirstID = 1024
	IDs     = 64512
)

// AckKind is what the broker confirms.
type AckKind byte

// Kinds of acknowledgements.
const (
	Puback  AckKind = typePuback
	Pubrec  AckKind = typePubrec
	Pubcomp AckKind = typePubcomp
)

// String is the packet's name.
func (k AckKind) String() string { return typeNames[k&15] }

// Ack is an acknowledgement as it came from the wire.
type Ack struct {
	Kind   AckKind
	ID     uint16
	Reason byte   // MQTT 5; 0 with 3.1.1
	Text   string // the broker's own words for it
}

// Publish is a message to send at QoS 1 or 2 with a packet id of the caller's, or at QoS 0 without.
type Publish struct {
	ID         uint16
	Dup        bool
	QoS        byte
	Retain     bool
	Topic      string
	Payload    []byte
	Properties *Properties // sent when the broker takes properties
}

// Subscription asks for messages.
type Subscription struct {
	Filter string
	QoS    byte
	Number int  // comes back in Message.Subscription when the broker can do that; 0 none
	Flag   bool // MQTT 5: Message.Retained is true of live messages too that were published with the flag
}

// Limits are what the broker allows.
type Limits struct {
	Window          int  // most messages in flight
	MaxPacket       int  // bytes of a packet to the broker; 0 unlimited. Send knows how large a packet becomes, and returns ErrTooLarge
	MaxQoS          byte // 2 unless the broker says less
	Properties      bool // it takes properties
	SubscriptionIDs bool // it says which subscription a message is for
}

// Session is one connection. It ends with its Done channel.
type Session struct {
	g       *guard
	server  string
	key     string
	limits  Limits
	present bool
	acks    chan []Ack
	leave   chan struct{} // closed: the first server is back

	mu    sync.Mutex
	subID uint16
	subs  map[uint16]chan []byte
}

// Present says whether the broker kept the session of the connection before.
func (s *Session) Present() bool { return s.present }

// Server is the broker's address, without secrets.
func (s *Session) Server() string { return s.server }

// Key names the broker's session: marks that belong to another key mean nothing here.
func (s *Session) Key() string { return s.key }

// Leave is closed when the connection should be given up for one to the first server: return ErrReturn from serve once nothing is in flight.
func (s *Session) Leave() <-chan struct{} { return s.leave }

// Limits returns what the broker allows.
func (s *Session) Limits() Limits { return s.limits }

// Done is closed when the connection has ended.
func (s *Session) Done() <-chan struct{} { return s.g.closed }

// Err returns why the connection ended, nil before.
func (s *Session) Err() error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.g.err
}

// Acks hands out acknowledgements in the order of the wire, those that came together in one slice.
func (s *Session) Acks() <-chan []Ack { return s.acks }

// Send takes a message to be written with the next Flush. ErrTooLarge says that the broker does not take it; any other error means that the connection has ended or the broker does not read.
func (s *Session) Send(p Publish) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.g.err != nil {
		return s.g.err
	}
	if len(s.g.out) > maxUnwritten {
		return s.g.failLocked(errBusy)
	}
	return s.g.encode(p, false)
}

// Release takes a PUBREL to be written with the next Flush.
func (s *Session) Release(id uint16) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.g.err != nil {
		return s.g.err
	}
	s.g.out = appendAck(s.g.out, typePubrel, id)
	return nil
}

// Flush lets the writer write. It does not wait.
func (s *Session) Flush() error {
	s.g.signal()
	return s.Err()
}

// Close ends the connection without DISCONNECT: the broker sends the will.
func (s *Session) Close(reason error) { _ = s.g.fail(reason) }

// live sends at QoS 0, or drops when the broker does not read fast enough.
func (s *Session) live(p Publish) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if s.g.err != nil {
		return ErrOffline
	}
	if len(s.g.out) > maxLive {
		return errBusy
	}
	if err := s.g.encode(p, true); err != nil {
		return err
	}
	s.g.signal()
	return nil
}

// AliasSaved is the number of bytes that topic aliases saved on this connection.
func (s *Session) AliasSaved() int64 {
	if s.g.five == nil {
		return 0
	}
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.g.five.saved
}

// Subscribe asks for all filters at once and waits for the answer. A refused or downgraded filter is an error that names it; the others stay subscribed.
func (s *Session) Subscribe(ctx context.Context, subs ...Subscription) error {
	if s.g.five == nil {
		return s.subscribe(ctx, subs...)
	}
	var faults []error
	for _, sub := range subs { // each has an identifier of its own, which belongs to the packet
		if err := s.subscribe(ctx, sub); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (s *Session) subscribe(ctx context.Context, subs ...Subscription) error {
	ch := make(chan []byte, 1)
	s.mu.Lock()
	s.subID = s.subID%100 + 1
	id := 900 + s.subID // some brokers take a low one for that of a message of their own on the way, although the two directions number independently
	s.subs[id] = ch
	s.mu.Unlock()
	s.g.mu.Lock()
	s.g.subs[id] = len(subs)
	if s.g.five == nil {
		s.g.out = appendSubscribe(s.g.out, id, subs)
	} else {
		number := subs[0].Number
		if !s.limits.SubscriptionIDs {
			number = 0
		}
		s.g.out = appendSubscribe5(s.g.out, id, subs[0], number)
	}
	s.g.mu.Unlock()
	s.g.signal()
	select {
	case codes := <-ch:
		var faults []error
		for i, sub := range subs {
			switch {
			case codes[i] == firstFailure:
				faults = append(faults, fmt.Errorf("%w: %s: allow it in the broker's access list", ErrRefused, sub.Filter))
			case codes[i] > firstFailure:
				faults = append(faults, fmt.Errorf("%w: %s: %s", ErrRefused, sub.Filter, Reason(codes[i], "")))
			case codes[i] < sub.QoS:
				faults = append(faults, fmt.Errorf("%w: %s at QoS %d, asked for %d", ErrDowngraded, sub.Filter, codes[i], sub.QoS))
			}
		}
		return errors.Join(faults...)
	case <-ctx.Done():
		return fmt.Errorf("subscribe %s: %w", filters(subs), context.Cause(ctx))
	case <-s.g.closed:
		return fmt.Errorf("subscribe %s: %w", filters(subs), s.Err())
	}
}

func filters(subs []Subscription) string {
	var f []string
	for _, s := range subs {
		f = append(f, s.Filter)
	}
	return strings.Join(f, ", ")
}

func (s *Session) granted(id uint16, codes []byte) {
	s.mu.Lock()
	ch := s.subs[id]
	delete(s.subs, id)
	s.mu.Unlock()
	if ch != nil {
		ch <- codes
	}
}

// Errors of a connection.
var (
	// ErrReturn ends a connection because the first server is back.
	ErrReturn = errors.New("the first server is back")
	// ErrOffline is returned by Live while there is no connection. The reading is dropped; count it.
	ErrOffline = errors.New("not connected")
	// ErrRefused is returned when the broker refuses a subscription.
	ErrRefused = errors.New("subscription refused")
	// ErrDowngraded is returned when the broker grants less QoS than was asked for.
	ErrDowngraded = errors.New("subscription downgraded")
	// ErrSilent ends a connection that nothing comes over any more.
	ErrSilent = errors.New("no sign of life from the broker")
	// ErrForget makes Run throw the broker's session away before the next connection: return it, wrapped, from serve.
	ErrForget = errors.New("the broker's session is of no use any more")
)
