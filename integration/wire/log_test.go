package wire

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLog(t *testing.T) {
	l, err := CreateLog(filepath.Join(t.TempDir(), "wire.log"))
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"specversion":"1.0","source":"fieldagent/a","id":"0badcafe-0000000000000042","data":{"id":"other"}}`)
	l.Packet(1, ">", Connect("a", false, 1), "")
	l.Packet(1, "<", Make(CONNACK, 0, []byte{1, 0}), "")
	l.Packet(1, ">", Publish(9, "t", body, 2, false), "drop")
	l.Packet(2, "<", Ack(PUBREC, 9), "")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(l.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []Line
	if err := Lines(f, func(l Line) { got = append(got, l) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[1].Note != "present" || got[2].Event != "0badcafe-0000000000000042" || got[2].Note != "drop" ||
		got[2].QoS != 2 || got[3].Kind != "PUBREC" || got[3].ID != 9 || got[3].Conn != 2 || got[3].Event != "" {
		t.Fatalf("%+v", got)
	}
}
