package boards

import (
	"bytes"
	"fmt"
	"sort"
)

// initramfs packs files (path without a leading slash → content) as a newc archive, with the folders they need.
func initramfs(files map[string][]byte) []byte {
	var out bytes.Buffer
	ino := 0
	put := func(name string, mode int, data []byte) {
		ino++
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name)
		out.WriteByte(0)
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
		out.Write(data)
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
	}
	var names []string
	dirs := map[string]bool{"dev": true, "proc": true, "sys": true, "run": true, "tmp": true, "state": true}
	for n := range files {
		names = append(names, n)
		for i, r := range n {
			if r == '/' {
				dirs[n[:i]] = true
			}
		}
	}
	sort.Strings(names)
	var folders []string
	for d := range dirs {
		folders = append(folders, d)
	}
	sort.Strings(folders)
	for _, d := range folders {
		put(d, 0o040755, nil)
	}
	for _, n := range names {
		put(n, 0o100755, files[n])
	}
	put("TRAILER!!!", 0, nil)
	return out.Bytes()
}
