package powercut

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A token names one event for ever and says how long its data is, so that whoever finds the data can tell whether it is unharmed: "life-producer-number-bytes".

// Token makes one.
func Token(life, producer string, number, bytes int) string {
	return fmt.Sprintf("%s-%s-%d-%d", life, producer, number, bytes)
}

// Payload is the data of a token's event.
func Payload(token string) []byte {
	size, err := strconv.Atoi(token[strings.LastIndexByte(token, '-')+1:])
	if err != nil {
		panic("not a token: " + token)
	}
	b := append(append([]byte(`{"token":"`), token...), `","pad":"`...)
	for i := 0; len(b) < size-2; i++ {
		b = append(b, "0123456789abcdef"[(i+len(token)*7+i/61)&15])
	}
	return append(b, `"}`...)
}

// TokenOf finds the token in an event's data; ok says that the data is exactly what the token's event must have.
func TokenOf(data []byte) (token string, ok bool) {
	var body struct{ Token string }
	if json.Unmarshal(data, &body) != nil || strings.Count(body.Token, "-") != 3 {
		return "", false
	}
	if _, err := strconv.Atoi(body.Token[strings.LastIndexByte(body.Token, '-')+1:]); err != nil {
		return "", false
	}
	return body.Token, string(Payload(body.Token)) == string(data)
}
