package lock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/internal/reexec"
)

// replaceOnce grants the first lock when another file has just been put into the
// place of the locked one, as a collector and a newcomer do it.
const replaceOnce = unix.Errno(1 << 20)

// mountFUSE mounts a filesystem of the given kind ("fuse.sshfs") in memory, which
// answers every flock(2) with answer, and returns its directory. It is real to the
// kernel and to all that look at it. Its server is a process of its own: one that
// serves itself cannot end, for the kernel asks the server when it closes files.
func mountFUSE(t *testing.T, kind string, answer unix.Errno) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	c := reexec.Start(t, "fuse", kind, dir, strconv.Itoa(int(answer)))
	if got := c.Next(); got != "mounted" {
		t.Skipf("cannot mount FUSE here: %s", got)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		c.Kill()
	})
	return dir
}

func init() { roles["fuse"] = fuseRole }

// fuseRole: KIND DIR ERRNO. Serves the filesystem until its input ends.
func fuseRole(args []string, in <-chan string) error {
	errno, _ := strconv.Atoi(args[2])
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
		err = unix.Mount("imagelock-test", args[1], args[0], unix.MS_NOSUID|unix.MS_NODEV, opts)
	}
	if err != nil {
		reexec.Say("%v", err)
		return nil
	}
	s := &fuseServer{fd: fd, setlk: unix.Errno(errno), nodes: map[uint64]*fuseNode{1: {mode: unix.S_IFDIR | 0o700, names: map[string]uint64{}}}, last: 1}
	go s.serve()
	reexec.Say("mounted")
	for range in {
	}
	_ = unix.Unmount(args[1], unix.MNT_DETACH) // or its parent has
	return nil
}

type fuseServer struct {
	fd    int
	setlk unix.Errno
	nodes map[uint64]*fuseNode
	last  uint64
}

type fuseNode struct {
	mode  uint32
	links uint32
	data  []byte
	names map[string]uint64 // of a directory
}

// Operations of the FUSE protocol, see <linux/fuse.h>.
const (
	fuseLookup, fuseForget, fuseGetattr, fuseSetattr              = 1, 2, 3, 4
	fuseMkdir, fuseUnlink, fuseRmdir, fuseLink, fuseOpen          = 9, 10, 11, 13, 14
	fuseRead, fuseWrite, fuseStatfs, fuseRelease, fuseFsync       = 15, 16, 17, 18, 20
	fuseFlush, fuseInit, fuseOpendir, fuseReaddir, fuseReleasedir = 25, 26, 27, 28, 29
	fuseSetlk, fuseSetlkw, fuseCreate, fuseInterrupt, fuseDestroy = 32, 33, 35, 36, 38
	fuseBatchForgets                                              = 42

	fuseFlockLocks = 1 << 10
)

func (s *fuseServer) serve() {
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(s.fd, buf)
		if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			return // unmounted
		}
		op, unique := binary.NativeEndian.Uint32(buf[4:]), buf[8:16]
		out, errno := s.answer(op, binary.NativeEndian.Uint64(buf[16:]), buf[40:n])
		if op == fuseForget || op == fuseBatchForgets || op == fuseInterrupt {
			continue
		}
		var reply bytes.Buffer
		put(&reply, uint32(16+len(out)), -int32(errno))
		reply.Write(unique)
		reply.Write(out)
		_, _ = unix.Write(s.fd, reply.Bytes())
	}
}

func put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		_ = binary.Write(b, binary.NativeEndian, v)
	}
}

func (s *fuseServer) answer(op uint32, id uint64, in []byte) ([]byte, unix.Errno) {
	var out bytes.Buffer
	node := s.nodes[id]
	name := func(skip int) string {
		text, _, _ := strings.Cut(string(in[skip:]), "\x00")
		return text
	}
	attr := func(id uint64) {
		n := s.nodes[id]
		put(&out, id, uint64(len(n.data)), uint64(0))
		now := uint64(time.Now().Unix())
		put(&out, now, now, now, uint32(0), uint32(0), uint32(0))
		put(&out, n.mode, n.links, uint32(0), uint32(0), uint32(0), uint32(4096), uint32(0))
	}
	entry := func(id uint64) {
		put(&out, id, uint64(0), uint64(0), uint64(0), uint32(0), uint32(0))
		attr(id)
	}
	open := func() { put(&out, uint64(0), uint32(0), uint32(0)) }
	add := func(name string, mode uint32) uint64 {
		s.last++
		s.nodes[s.last] = &fuseNode{mode: mode, links: 1}
		if mode&unix.S_IFMT == unix.S_IFDIR {
			s.nodes[s.last].names = map[string]uint64{}
		}
		node.names[name] = s.last
		return s.last
	}
	switch op {
	case fuseInit:
		put(&out, uint32(7), uint32(31), uint32(0), uint32(fuseFlockLocks), uint16(0), uint16(0), uint32(1<<16), uint32(1), uint16(0), uint16(0), [8]uint32{})
	case fuseLookup:
		there, ok := node.names[name(0)]
		if !ok {
			return nil, unix.ENOENT
		}
		entry(there)
	case fuseGetattr, fuseSetattr:
		if op == fuseSetattr {
			valid, mode := binary.NativeEndian.Uint32(in), binary.NativeEndian.Uint32(in[68:])
			if valid&1 != 0 {
				node.mode = node.mode&unix.S_IFMT | mode&^unix.S_IFMT
			}
		}
		put(&out, uint64(0), uint32(0), uint32(0))
		attr(id)
	case fuseMkdir:
		entry(add(name(8), unix.S_IFDIR|binary.NativeEndian.Uint32(in)&0o7777))
	case fuseCreate:
		entry(add(name(16), unix.S_IFREG|binary.NativeEndian.Uint32(in[4:])&0o7777))
		open()
	case fuseLink:
		old := binary.NativeEndian.Uint64(in)
		if _, ok := node.names[name(8)]; ok {
			return nil, unix.EEXIST
		}
		node.names[name(8)] = old
		s.nodes[old].links++
		entry(old)
	case fuseUnlink, fuseRmdir:
		gone, ok := node.names[name(0)]
		if !ok {
			return nil, unix.ENOENT
		}
		s.nodes[gone].links--
		delete(node.names, name(0))
	case fuseOpen, fuseOpendir:
		open()
	case fuseRead:
		at, size := binary.NativeEndian.Uint64(in[8:]), binary.NativeEndian.Uint32(in[16:])
		if at < uint64(len(node.data)) {
			out.Write(node.data[at:min(at+uint64(size), uint64(len(node.data)))])
		}
	case fuseWrite:
		at, data := binary.NativeEndian.Uint64(in[8:]), in[40:]
		if end := int(at) + len(data); end > len(node.data) {
			node.data = append(node.data, make([]byte, end-len(node.data))...)
		}
		copy(node.data[at:], data)
		put(&out, uint32(len(data)), uint32(0))
	case fuseReaddir:
		if binary.NativeEndian.Uint64(in[8:]) > 0 {
			break // all in one answer
		}
		at := uint64(0)
		for name, id := range node.names {
			at++
			put(&out, id, at, uint32(len(name)), s.nodes[id].mode>>12)
			out.WriteString(name)
			out.Write(make([]byte, (8-len(name)%8)%8))
		}
	case fuseStatfs:
		put(&out, [10]uint64{})
	case fuseSetlk:
		if s.setlk != replaceOnce {
			return nil, s.setlk
		}
		s.setlk = 0
		node = s.nodes[1]
		for name, there := range node.names {
			if there == id {
				add(name, s.nodes[id].mode)
			}
		}
	case fuseSetlkw, // an unlock
		fuseRelease, fuseReleasedir, fuseFlush, fuseFsync, fuseForget, fuseBatchForgets, fuseInterrupt, fuseDestroy:
	default:
		return nil, unix.ENOSYS
	}
	return out.Bytes(), 0
}

func TestAFilesystemThatGrantsALockTwiceIsRefused(t *testing.T) {
	dir := filepath.Join(mountFUSE(t, "fuse.generous", 0), "locks")
	wantUnsafe(t, dir, nil, "it grants a lock twice", "fuse.generous", "local disk")
	// Nobody can say that this is fine.
	wantUnsafe(t, dir, []Option{AllowNetworkFilesystem()}, "it grants a lock twice", "fuse.generous", "local disk")
}

func TestAFilesystemWithoutLocksIsRefused(t *testing.T) {
	for _, no := range []unix.Errno{unix.ENOSYS, unix.ENOLCK, unix.EOPNOTSUPP} {
		dir := mountFUSE(t, "fuse.lockless", no)
		wantUnsafe(t, dir, nil, "it has no locks", "fuse.lockless", "choose a directory on another", no.Error())
		if left := listing(t, dir); strings.Contains(left, recordDir+"/") {
			t.Errorf("left %s", left)
		}
	}
}

func TestAFilesystemThatReachesOverHostsIsRefusedUnlessAllowed(t *testing.T) {
	dir := mountFUSE(t, "fuse.sshfs", 0)
	wantUnsafe(t, dir, nil, "fuse.sshfs may grant one lock to several hosts", "local disk", "AllowNetworkFilesystem")
	if left := listing(t, dir); strings.TrimSpace(left) != "" {
		t.Errorf("left %s", left)
	}
}

// The moment between open and lock, in which a file can be unlinked and made anew.
func TestAFileReplacedBetweenOpenAndLockIsNotTakenForTheLock(t *testing.T) {
	dir := mountFUSE(t, "fuse.replacing", replaceOnce)
	p := filepath.Join(dir, "k.lock")
	touch(t, p)
	before, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	d := openDir(t, t.TempDir())
	l, err := d.tryFile(p, Exclusive, true, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.release()
	after, err := os.Stat(p)
	if err != nil || os.SameFile(before, after) {
		t.Fatalf("the file was not replaced, the test proved nothing: %v", err)
	}
	if same, err := isAt(l, p); !same || err != nil {
		t.Errorf("a lock on a file that is no longer there was granted: %v", err)
	}
}

// wantUnsafe wants Open to refuse dir with an error of which texts are part.
func wantUnsafe(t *testing.T, dir string, opts []Option, texts ...string) {
	t.Helper()
	d, err := Open(dir, opts...)
	if err == nil {
		d.Close()
		t.Fatal("it was opened")
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, dir) {
			t.Errorf("%s is still open", to)
		}
	}
	for _, text := range append(texts, dir) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}
	if !errors.Is(err, ErrUnsafeFilesystem) {
		t.Errorf("got %v", err)
	}
}
