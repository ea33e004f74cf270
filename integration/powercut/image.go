package powercut

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Root is the number of the top folder.
const Root = 1

// Image is the content of a disk: folders and files by number.
type Image struct {
	Dirs  map[uint64]map[string]uint64
	Files map[uint64][]byte
}

// Empty is a disk with nothing on it.
func Empty() Image {
	return Image{Dirs: map[uint64]map[string]uint64{Root: {}}, Files: map[uint64][]byte{}}
}

// Load reads a folder into an image.
func Load(dir string) (Image, error) {
	img := Empty()
	byPath := map[string]uint64{".": Root}
	next := uint64(Root)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		next++
		img.Dirs[byPath[filepath.Dir(path)]][d.Name()] = next
		if d.IsDir() {
			byPath[path], img.Dirs[next] = next, map[string]uint64{}
			return nil
		}
		img.Files[next], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	return img, err
}

// Lay writes the image into a folder, without sync: pages of zeros become holes.
func (img Image) Lay(dir string) error { return img.lay(Root, dir) }

func (img Image) lay(node uint64, dir string) error {
	for name, child := range img.Dirs[node] {
		path := filepath.Join(dir, name)
		if _, ok := img.Dirs[child]; ok {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			if err := img.lay(child, path); err != nil {
				return err
			}
			continue
		}
		data, ok := img.Files[child]
		if !ok {
			return fmt.Errorf("%s stands for node %d, which is not there", path, child)
		}
		if err := writeSparse(path, data); err != nil {
			return err
		}
	}
	return nil
}

var zeros [4096]byte

func writeSparse(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	for at := 0; at < len(data); {
		n := min(len(zeros), len(data)-at)
		if bytes.Equal(data[at:at+n], zeros[:n]) {
			at += n
			continue
		}
		end := at + n
		for end < len(data) {
			n := min(len(zeros), len(data)-end)
			if bytes.Equal(data[end:end+n], zeros[:n]) {
				break
			}
			end += n
		}
		if _, err := f.WriteAt(data[at:end], int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// names of a folder, sorted: what is drawn by chance must not depend on the order of a map.
func names(dir map[string]uint64) []string {
	out := make([]string, 0, len(dir))
	for n := range dir {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
