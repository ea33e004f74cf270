package wire

import "testing"

// The bytes are written out by hand from the standard.
func TestFive(t *testing.T) {
	connect := Make(CONNECT, 0, []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 30, 5, 17, 0, 0, 0, 9, 0, 3, 'd', 'e', 'v'})
	if connect.ClientID() != "dev" || connect.Get(17).Number() != 9 {
		t.Errorf("%q %+v", connect.ClientID(), connect.Properties5())
	}
	publish := Make(PUBLISH, 2, []byte{0, 1, 'a', 0, 7, 20, 1, 1, 3, 0, 2, 'c', 't', 38, 0, 1, 'k', 0, 2, 'v', 'w', 11, 0x80, 1, 35, 0, 4, 'h', 'i'})
	publish.Raw[publish.head+5] = byte(len(publish.body()) - 6 - 2)
	if string(publish.Payload5()) != "hi" || publish.ID() != 7 || publish.Get(1).Number() != 1 || string(publish.Get(3).Value) != "ct" ||
		publish.Get(38).Pair != [2]string{"k", "vw"} || publish.Get(11).Number() != 128 || publish.Get(35).Number() != 4 || publish.Get(2) != nil {
		t.Errorf("%q %+v", publish.Payload5(), publish.Properties5())
	}
}
