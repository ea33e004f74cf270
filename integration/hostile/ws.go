package hostile

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// socket is the server's side of a WebSocket (RFC 6455): what is written goes out in binary frames.
type socket struct {
	net.Conn
	in   *bufio.Reader
	left uint64 // bytes of the frame that is being read
	mask [4]byte
	at   int
}

// upgrade answers the handshake.
func upgrade(conn net.Conn) (net.Conn, error) {
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		conn.Close()
		return nil, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return &socket{Conn: conn, in: in}, err
}

// Read takes what is in the client's frames, whatever their kind.
func (s *socket) Read(p []byte) (int, error) {
	for s.left == 0 {
		var head [2]byte
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return 0, err
		}
		s.left = uint64(head[1] & 0x7f)
		size := map[uint64]int{126: 2, 127: 8}[s.left]
		var long [8]byte
		if _, err := io.ReadFull(s.in, long[8-size:]); err != nil {
			return 0, err
		}
		if size > 0 {
			s.left = binary.BigEndian.Uint64(long[:])
		}
		if _, err := io.ReadFull(s.in, s.mask[:]); err != nil {
			return 0, err
		}
		s.at = 0
		if head[0]&15 == 8 {
			return 0, io.EOF
		}
	}
	n, err := s.in.Read(p[:min(uint64(len(p)), s.left)])
	for i := range p[:n] {
		p[i] ^= s.mask[s.at%4]
		s.at++
	}
	s.left -= uint64(n)
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	return len(p), s.frame(2, p)
}

// frame writes one whole frame (section 5.2).
func (s *socket) frame(kind byte, p []byte) error {
	head := []byte{0x80 | kind, 0}
	switch n := len(p); {
	case n < 126:
		head[1] = byte(n)
	case n < 1<<16:
		head[1] = 126
		head = binary.BigEndian.AppendUint16(head, uint16(n))
	default:
		head[1] = 127
		head = binary.BigEndian.AppendUint64(head, uint64(n))
	}
	_, err := s.Conn.Write(append(head, p...))
	return err
}
