package powercut

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// NoteFile is the file in the top folder that facts are written to, one JSON object with each write. It is not part of the disk.
const NoteFile = ".note"

// Disk is a mounted recording file system.
type Disk struct {
	*Journal
	dir    string
	server *fuse.Server
	last   uint64 // newest number
}

// Mount makes dir a disk with the content of img. It needs root.
func Mount(dir string, img Image) (*Disk, error) {
	d := &Disk{Journal: &Journal{Base: img}, dir: dir, last: Root}
	second := time.Second
	for n := range img.Dirs {
		d.last = max(d.last, n)
	}
	for n := range img.Files {
		d.last = max(d.last, n)
	}
	root := &folder{disk: d, id: Root}
	server, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &second, AttrTimeout: &second, NullPermissions: true, Logger: log.New(io.Discard, "", 0),
		OnAdd:        func(ctx context.Context) { root.fill(ctx, img) },
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powercut", Name: "powercut", MaxWrite: 1 << 20, Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		return nil, fmt.Errorf("mount a recording disk on %s (as root, with /dev/fuse): %w", dir, err)
	}
	d.server = server
	return d, nil
}

// Unmount ends the disk. Every process must have closed its files there.
func (d *Disk) Unmount() error {
	err := d.server.Unmount()
	for i := 0; err != nil && i < 50; i++ { // a process that was killed may still be going
		time.Sleep(20 * time.Millisecond)
		err = d.server.Unmount()
	}
	if err != nil {
		return errorsJoin(err, syscall.Unmount(d.dir, syscall.MNT_DETACH))
	}
	return nil
}

func errorsJoin(a, b error) error {
	if b == nil {
		return nil
	}
	return fmt.Errorf("%w; %w", a, b)
}

// record appends an operation; the caller holds mu, so that the journal has the order in which contents changed.
func (d *Disk) record(op Op) { d.ops = append(d.ops, op) }

func (d *Disk) newID() uint64 { d.last++; return d.last }

type folder struct {
	fs.Inode
	disk *Disk
	id   uint64
}

func (n *folder) fill(ctx context.Context, img Image) {
	for name, child := range img.Dirs[n.id] {
		if _, ok := img.Dirs[child]; ok {
			f := &folder{disk: n.disk, id: child}
			n.AddChild(name, n.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFDIR, Ino: child}), true)
			f.fill(ctx, img)
			continue
		}
		f := &file{disk: n.disk, id: child, data: append([]byte(nil), img.Files[child]...)}
		n.AddChild(name, n.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG, Ino: child}), true)
	}
	if n.id == Root {
		n.AddChild(NoteFile, n.NewPersistentInode(ctx, &notes{disk: n.disk}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: 1 << 40}), true)
	}
}

func (n *folder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	return 0
}

func (n *folder) Setattr(_ context.Context, _ fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	return 0
}

func (n *folder) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree, out.NameLen = 4096, 1<<20, 1<<20, 1<<20, 1<<20, 1<<20, 255
	return 0
}

func (n *folder) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := &folder{disk: n.disk, id: n.disk.newID()}
	n.disk.record(Op{Kind: Link, Node: n.id, Name: name, Child: f.id, Data: nil, Off: -1})
	out.Mode = syscall.S_IFDIR | 0o700
	return n.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFDIR, Ino: f.id}), 0
}

func (n *folder) Create(ctx context.Context, name string, _ uint32, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := &file{disk: n.disk, id: n.disk.newID()}
	n.disk.record(Op{Kind: Link, Node: n.id, Name: name, Child: f.id})
	out.Mode = syscall.S_IFREG | 0o600
	return n.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG, Ino: f.id}), nil, 0, 0
}

func (n *folder) Unlink(_ context.Context, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.disk.record(Op{Kind: Unlink, Node: n.id, Name: name, Child: number(n.GetChild(name))})
	return 0
}

func (n *folder) Rmdir(ctx context.Context, name string) syscall.Errno {
	if c := n.GetChild(name); c != nil && len(c.Children()) > 0 {
		return syscall.ENOTEMPTY
	}
	return n.Unlink(ctx, name)
}

func (n *folder) Rename(_ context.Context, name string, parent fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	into, ok := parent.(*folder)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	child := number(n.GetChild(name))
	if into.id == n.id {
		n.disk.record(Op{Kind: Rename, Node: n.id, Name: name, To: to, Child: child})
		return 0
	}
	n.disk.record(Op{Kind: Link, Node: into.id, Name: to, Child: child})
	n.disk.record(Op{Kind: Unlink, Node: n.id, Name: name, Child: child})
	return 0
}

func (n *folder) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.disk.record(Op{Kind: SyncDir, Node: n.id})
	return 0
}

func number(n *fs.Inode) uint64 {
	if n == nil {
		return 0
	}
	return n.StableAttr().Ino
}

type file struct {
	fs.Inode
	disk *Disk
	id   uint64
	data []byte
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(len(f.data)), uint64(len(f.data)+511)/512
	return 0
}

func (f *file) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		f.disk.mu.Lock()
		f.data = resize(f.data, int64(size))
		f.disk.record(Op{Kind: Truncate, Node: f.id, Off: int64(size)})
		f.disk.mu.Unlock()
	}
	return f.Getattr(ctx, h, out)
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if off >= int64(len(f.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, f.data[off:])]), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	data = append([]byte(nil), data...)
	f.data = put(f.data, off, data)
	f.disk.record(Op{Kind: Write, Node: f.id, Off: off, Data: data})
	return uint32(len(data)), 0
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.record(Op{Kind: Sync, Node: f.id})
	return 0
}

func (f *file) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

// put writes data into a file's content, which grows as needed.
func put(content []byte, off int64, data []byte) []byte {
	if end := off + int64(len(data)); end > int64(len(content)) {
		content = resize(content, end)
	}
	copy(content[off:], data)
	return content
}

func resize(content []byte, size int64) []byte {
	if size <= int64(len(content)) {
		return content[:size]
	}
	if size > int64(cap(content)) {
		grown := make([]byte, len(content), size+size/4)
		copy(grown, content)
		content = grown
	}
	old := len(content)
	content = content[:size]
	clear(content[old:])
	return content
}

// notes is the file that facts are written to.
type notes struct {
	fs.Inode
	disk *Disk
}

func (n *notes) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *notes) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return 0
}

func (n *notes) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	var f Fact
	if err := json.Unmarshal(data, &f); err != nil {
		return 0, syscall.EINVAL
	}
	n.disk.Note(f)
	return uint32(len(data)), 0
}

// Notes writes facts from another process into the journal of the disk that is mounted on dir.
type Notes struct{ file *os.File }

// OpenNotes opens the facts of a disk. A fact is in the journal when Note returns.
func OpenNotes(dir string) (Notes, error) {
	f, err := os.OpenFile(dir+"/"+NoteFile, os.O_WRONLY, 0)
	return Notes{f}, err
}

// Note writes one fact; it ends the process when the disk is gone.
func (n Notes) Note(f Fact) {
	if _, err := n.file.WriteString(f.String()); err != nil {
		fmt.Fprintln(os.Stderr, "note:", err)
		os.Exit(1)
	}
}
