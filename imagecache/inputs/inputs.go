// Package inputs digests what an image is made of, for [imagecache.Image].Inputs:
//
//	digest, err := inputs.New().Dir("services/api").Arg("GO_VERSION", "1.26").Digest(ctx)
//	…
//	cache.Ensure(ctx, imagecache.Image{Tag: "api:v1", Inputs: digest, Build: build})
//
// An image that is there and was made of something else is then built again, once.
// The IDs of an image's parents are none of this package's business: imagecache
// mixes them in by itself, so that a changed parent rebuilds its children.
//
// # What counts
//
// The digest is the same for the same inputs on every machine: it does not know
// where a directory lies, who owns a file and when that was changed. Of a file's
// mode it knows what git does, whether the owner may execute it, and the set-user,
// set-group and sticky bits; other bits come of a umask. A symbolic link is its
// text and is never followed. Sockets are left out, as they are when a directory is
// sent to an engine; devices and pipes are refused. On Windows, which has no such
// bit, every file is one that may be executed: so it is in the image.
//
// Anything that the build uses and that is not given here, such as what it
// downloads, does not count.
package inputs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Inputs are what an image is made of. The order in which files, directories and
// strings are added counts, that of arguments does not. It is to be made by [New],
// and not safe for use by several goroutines at once.
type Inputs struct {
	items []item
	args  []arg
}

// item is one input: it writes its record. Nothing is read before.
type item func(context.Context, *encoder) error

type arg struct{ key, value string }

// New returns no inputs.
func New() *Inputs { return &Inputs{} }

// Text adds a text that counts: a version of the build's own rules, a target, a
// platform.
func (in *Inputs) Text(s string) *Inputs {
	return in.add(func(_ context.Context, e *encoder) error {
		e.kind(kindText)
		e.string(s)
		return nil
	})
}

// Arg adds a named value, such as a build argument. Of several values for one key
// the last counts.
func (in *Inputs) Arg(key, value string) *Inputs {
	in.args = slices.DeleteFunc(in.args, func(a arg) bool { return a.key == key })
	in.args = append(in.args, arg{key, value})
	return in
}

// File adds a file: its base name, its content and whether it may be executed. It
// must be a regular file or a symbolic link to one.
func (in *Inputs) File(path string) *Inputs {
	return in.add(func(ctx context.Context, e *encoder) error {
		info, err := os.Stat(path) // what is named is wanted, wherever it lies
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("is no regular file")
		}
		if err != nil {
			return &Error{Path: path, Err: err}
		}
		n := newNode(filepath.Base(path), info)
		if err := newReader().read(ctx, n, path); err != nil {
			return &Error{Path: path, Err: err}
		}
		e.kind(kindFile)
		e.node(n)
		return nil
	})
}

// Dir adds a directory: the names and the content of all that is in it, but for what
// its .dockerignore excludes. The name of the directory itself does not count.
func (in *Inputs) Dir(path string, opts ...DirOption) *Inputs {
	t := &tree{path: path}
	for _, o := range opts {
		if o != nil { // there is no error to say so
			o.apply(t)
		}
	}
	return in.add(t.encode)
}

func (in *Inputs) add(i item) *Inputs {
	in.items = append(in.items, i)
	return in
}

// Digest reads the inputs and returns their digest, "sha256:" and 64 hexadecimal
// digits. It takes as long as reading the files does, and ends with the error of ctx
// soon after that. Every other error is an [*Error], which wraps what the system
// says ([fs.ErrNotExist], [fs.ErrPermission], …), [ErrChanged], [ErrIrregular] or
// [ErrOutside]. There is no digest then: one of half of the inputs would call an
// image fresh that is not.
//
// A change of a file or a directory while it is read is found, as far as sizes, times
// and names show it. Digest may be called again, and reads again.
func (in *Inputs) Digest(ctx context.Context) (string, error) {
	h := sha256.New()
	if err := in.encode(ctx, &encoder{w: h}); err != nil {
		if ctx.Err() != nil { // no file is to blame
			err = fmt.Errorf("inputs: %w", context.Cause(ctx))
		}
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// encode writes all that counts.
func (in *Inputs) encode(ctx context.Context, e *encoder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.begin()
	for _, i := range in.items {
		if err := i(ctx, e); err != nil {
			return err
		}
	}
	args := slices.Clone(in.args)
	slices.SortFunc(args, func(a, b arg) int { return strings.Compare(a.key, b.key) })
	for _, a := range args {
		e.kind(kindArg)
		e.string(a.key)
		e.string(a.value)
	}
	return nil
}
