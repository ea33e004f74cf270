package powercut

import (
	"bytes"
	"encoding/binary"
)

// Document is a configuration of a version: the number, then as many bytes as the version says.
func Document(version uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, version)
	return append(b, bytes.Repeat([]byte{byte(version)}, int(version%50)*40)...)
}

// DocumentVersion tells which version a document is; 0 for none and for one that is harmed.
func DocumentVersion(doc []byte) uint64 {
	if len(doc) < 8 {
		return 0
	}
	v := binary.BigEndian.Uint64(doc)
	if !bytes.Equal(doc, Document(v)) {
		return 0
	}
	return v
}
