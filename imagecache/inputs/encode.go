package inputs

import (
	"encoding/binary"
	"io"
	"io/fs"
)

// What is hashed can be read back, so that no two lists of inputs are the same
// bytes. It begins with its version, and is a list of records:
//
//	t TEXT            a text
//	a KEY VALUE       an argument; they come last and sorted
//	f NODE            a file
//	d DOCKERFILE NODE… '.'   a directory; DOCKERFILE is '-', or '+' and the
//	                  SHA-256 of its content
//
// where TEXT, KEY and VALUE are strings, each behind its length (8 bytes, big
// endian), and a NODE is one of
//
//	f NAME FLAGS SUM  a regular file; FLAGS are a byte, SUM is the SHA-256 of
//	                  its content
//	l NAME TARGET     a symbolic link
//	d NAME            a directory
//
// whose NAME is slash-separated and relative. The nodes of a directory begin with
// the links that [Only] has followed; the rest is in the order of the names, byte by
// byte, in each directory, a directory before what is in it.
//
// A change of any of it makes all images stale that were built before: it needs a
// new version, and a word in the changelog.
const version = "imagelock inputs 1\n"

const (
	kindText = 't'
	kindArg  = 'a'
	kindFile = 'f'
	kindDir  = 'd'
	kindLink = 'l'
	kindEnd  = '.'
	without  = '-'
	with     = '+'
)

// The flags of a regular file.
const (
	flagExec = 1 << iota
	flagSetuid
	flagSetgid
	flagSticky
)

type sum [32]byte

// node is a file, link or directory.
type node struct {
	kind   byte
	name   string // slash-separated
	flags  byte
	sum    sum
	target string
	info   fs.FileInfo
}

// encoder writes records to a hash, whose Write does not fail.
type encoder struct {
	w   io.Writer
	buf [8]byte
}

func (e *encoder) begin() { io.WriteString(e.w, version) }

func (e *encoder) kind(k byte) {
	e.buf[0] = k
	e.w.Write(e.buf[:1])
}

func (e *encoder) string(s string) {
	binary.BigEndian.PutUint64(e.buf[:], uint64(len(s)))
	e.w.Write(e.buf[:])
	io.WriteString(e.w, s)
}

func (e *encoder) dockerfile(s *sum) {
	if s == nil {
		e.kind(without)
		return
	}
	e.kind(with)
	e.w.Write(s[:])
}

func (e *encoder) node(n *node) {
	e.kind(n.kind)
	e.string(n.name)
	switch n.kind {
	case kindFile:
		e.kind(n.flags)
		e.w.Write(n.sum[:])
	case kindLink:
		e.string(n.target)
	}
}
