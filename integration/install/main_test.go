package install

import (
	"os"
	"testing"
)

// scratch holds the packages of one run.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "install-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
