package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// repository is the folder of the Makefile.
const repository = "../.."

var built sync.Map // what was made of this tree in this run, by target

// build makes the .deb of this tree, once in a run, and returns the file.
func build(t *testing.T, target string) string {
	t.Helper()
	once, _ := built.LoadOrStore(target, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp(scratch, target)
		if err != nil {
			return "", err
		}
		return makePackage(repository, target, dir)
	}))
	file, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// makePackage has a tree's own Makefile make the .deb of a target in dir. Variables are Makefile ones.
func makePackage(tree, target, dir string, variables ...string) (string, error) {
	cmd := exec.Command("make", append([]string{"-s", "-C", tree, "package-" + target, "PACKAGERS=deb", "PACKAGE_DIR=" + dir}, variables...)...)
	if err := run(cmd); err != nil {
		return "", err
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(files) != 1 {
		return "", fmt.Errorf("make package-%s made %v", target, files)
	}
	return files[0], nil
}

// export writes the tree of a revision, without its history, into a new folder.
func export(t *testing.T, revision string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	return dir, run(exec.Command("sh", "-c", fmt.Sprintf("git -C %s archive %s | tar -x -C %s", repository, revision, dir)))
}

var older = []string{"PKG_VERSION=0.0.0.1", "VERSION=previous", "SOURCE_DATE_EPOCH=1700000000"}

// previous makes the package of the newest earlier commit that builds, and says which that is. In a clone without history it is
// this tree under a lower version.
func previous(t *testing.T) (file, what string) {
	t.Helper()
	for _, revision := range []string{"HEAD~1", "HEAD~2", "HEAD~3"} {
		tree, err := export(t, revision)
		if err != nil {
			break
		}
		if _, err := os.Stat(filepath.Join(tree, "packaging", "Makefile")); err != nil {
			break
		}
		link(t, tree)
		file, err := makePackage(tree, "amd64", t.TempDir(), older...)
		if err == nil {
			return file, revision
		}
		t.Logf("%s does not build: %.300v", revision, err)
	}
	file, err := makePackage(repository, "amd64", t.TempDir(), older...)
	if err != nil {
		t.Fatal(err)
	}
	return file, "this tree under a lower version: no earlier commit is here"
}

// link gives a tree the packager that is built already: it takes a minute.
func link(t *testing.T, tree string) {
	t.Helper()
	if err := run(exec.Command("make", "-s", "-C", repository, "bin/nfpm")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(repository, "bin", "nfpm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "bin", "nfpm"), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// versionOf reads what a package says it is.
func versionOf(t *testing.T, deb string) string {
	t.Helper()
	out, err := exec.Command("dpkg-deb", "--field", deb, "Version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
