package imagecache

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Mount is a cache mount of BuildKit (RUN --mount=type=cache) that a build uses. A
// build that declares its mounts ([Image].Mounts) is kept from breaking, and from
// being broken by, other builds of this cache that use the same ones. Nothing is
// known of builds that don't go through it.
//
// Package dockerfile reads them from a Dockerfile.
type Mount struct {
	// ID is the mount's id as BuildKit knows it, variables expanded. By default
	// it is Target, cleaned, as in a Dockerfile.
	ID string
	// Target is the path at which it is mounted.
	Target string
	// Sharing is what the Dockerfile says of builds that use it at the same time.
	// By default they do ([SharingShared]).
	Sharing Sharing
	// Namespace is the build argument BUILDKIT_CACHE_MOUNT_NS, if it is given.
	Namespace string
	// From is the image or stage whose content the cache begins with, if any.
	From string
	// UID, GID and Mode are what the Dockerfile sets of them; nil if it does not.
	// BuildKit keeps a cache of its own for each combination.
	UID, GID *uint64
	Mode     *uint64
	// Run tells apart the instructions that use mounts: the number of the RUN, or its
	// line. Those of one RUN are held at the same time, and BuildKit takes the locked
	// ones of them in the order of their targets. By default all are of one.
	Run int
	// Unresolved says, for people, why ID, From or Namespace is not known. Such a
	// mount may be any: while its build runs no other build runs that has declared
	// mounts.
	Unresolved string

	// Policy says how builds that share the mount are kept from breaking each other.
	// By default it is the cache's ([WithMountPolicy]).
	Policy MountPolicy
	// Version names what the cache's content depends on, such as the digest of
	// Cargo.lock: it is cold for a version that has not been warmed. Only
	// [MountWarm] looks at it. By default there is one for all.
	Version string
}

// Sharing is what BuildKit does with builds that use a cache mount at the same time.
type Sharing uint8

const (
	// SharingShared lets all of them use it at once.
	SharingShared Sharing = iota
	// SharingLocked lets one RUN after the other use it.
	SharingLocked
	// SharingPrivate gives each one of its own.
	SharingPrivate
)

// String returns the Dockerfile's word: "shared", "locked" or "private".
func (s Sharing) String() string {
	switch s {
	case SharingShared:
		return "shared"
	case SharingLocked:
		return "locked"
	case SharingPrivate:
		return "private"
	}
	return fmt.Sprintf("sharing(%d)", uint8(s))
}

// ParseSharing returns the sharing of that name; of the empty one it is
// [SharingShared]. Its error wraps [ErrBadOption].
func ParseSharing(s string) (Sharing, error) {
	switch strings.ToLower(s) {
	case "", "shared":
		return SharingShared, nil
	case "locked":
		return SharingLocked, nil
	case "private":
		return SharingPrivate, nil
	}
	return 0, fmt.Errorf("%w: sharing %q is none of shared, locked and private", ErrBadOption, s)
}

// Key names the cache as BuildKit tells caches apart, as far as a Dockerfile tells: two
// mounts of one directory have the same key. It is not the key of a lock.
func (m *Mount) Key() string {
	id := m.ID
	if id == "" {
		id = path.Clean(m.Target)
	}
	key := m.Namespace + "/" + id
	if m.From != "" {
		// What it is is not told apart: two names may mean one content. So two caches
		// may seem one, which costs waiting, and never one two.
		key += "\x00from"
	}
	if m.UID != nil || m.GID != nil || m.Mode != nil {
		// What is not set is BuildKit's default, and the same cache.
		key += fmt.Sprintf("\x00%s:%s:%s", number(m.UID, 10, 0), number(m.GID, 10, 0), number(m.Mode, 8, 0o755))
	}
	return key
}

func number(n *uint64, base int, otherwise uint64) string {
	if n == nil {
		n = &otherwise
	}
	return strconv.FormatUint(*n, base)
}

// limits of what an image may declare: it is kept in memory for each image of a plan,
// and each mount is a lock.
const (
	maxMounts    = 256
	maxMountText = 64 << 10
)

// checkMounts refuses what can't be a mount.
func (img *Image) checkMounts() error {
	if len(img.Mounts) > maxMounts {
		return fmt.Errorf("%w: %d cache mounts, at most %d", ErrBadOption, len(img.Mounts), maxMounts)
	}
	for i := range img.Mounts {
		m := &img.Mounts[i]
		size := 0
		for _, s := range []string{m.ID, m.Target, m.Namespace, m.From, m.Version, m.Unresolved} {
			size += len(s)
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("%w: cache mount %d: a NUL byte in %.40q", ErrBadOption, i, s)
			}
		}
		switch {
		case m.ID == "" && m.Target == "" && m.Unresolved == "":
			return fmt.Errorf("%w: cache mount %d has neither an id nor a target", ErrBadOption, i)
		case size > maxMountText:
			return fmt.Errorf("%w: cache mount %d: %d bytes of names, at most %d", ErrBadOption, i, size, maxMountText)
		case m.Sharing > SharingPrivate:
			return fmt.Errorf("%w: cache mount %d: %v", ErrBadOption, i, m.Sharing)
		case m.Policy > MountOneAfterAnother:
			return fmt.Errorf("%w: cache mount %d: %v", ErrBadOption, i, m.Policy)
		}
	}
	return nil
}

// sameMounts tells whether two images declare the same mounts.
func sameMounts(a, b []Mount) bool {
	return slices.EqualFunc(a, b, func(a, b Mount) bool {
		return cmp.Compare(a.Key(), b.Key()) == 0 && a.Target == b.Target && a.Sharing == b.Sharing && a.Run == b.Run &&
			a.Policy == b.Policy && a.Version == b.Version && a.Unresolved == b.Unresolved
	})
}
