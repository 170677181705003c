package imagecache

import "fmt"

// MountPolicy says how builds that share a cache mount are kept from breaking each
// other. It is about mounts that BuildKit lets several builds use at once: locked ones
// it keeps apart itself, and private ones are nobody else's.
type MountPolicy uint8

const (
	// MountByDefault is the cache's policy ([WithMountPolicy]) and, for that,
	// [MountWarm].
	MountByDefault MountPolicy = iota
	// MountWarm lets one build fill a cold cache alone; once one has succeeded all
	// use it at once. A build that fails while it shared the cache is tried again, a
	// few times beside the others as long as they are at it, and then with the cache to
	// itself, before it counts as failed. As safe as locked, nearly as fast as shared,
	// for tools that don't lock.
	MountWarm
	// MountParallel does nothing: for tools that lock or rename by themselves.
	MountParallel
	// MountExclusive lets one build at a time use the mount.
	MountExclusive
	// MountOneAfterAnother lets no other build run that has declared mounts, whichever
	// they are. It is for locked mounts too.
	MountOneAfterAnother
)

// String returns "default", "warm", "parallel", "exclusive" or "one-after-another".
func (p MountPolicy) String() string {
	switch p {
	case MountByDefault:
		return "default"
	case MountWarm:
		return "warm"
	case MountParallel:
		return "parallel"
	case MountExclusive:
		return "exclusive"
	case MountOneAfterAnother:
		return "one-after-another"
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// WithMountPolicy sets the policy for cache mounts that have none of their own
// ([Mount].Policy). Processes that share a cache directory should agree. By default
// it is [MountWarm].
func WithMountPolicy(p MountPolicy) Option {
	return optionFunc(func(c *Cache) error {
		if p > MountOneAfterAnother {
			return fmt.Errorf("%w: WithMountPolicy: %v", ErrBadOption, p)
		}
		c.mountPolicy = p
		return nil
	})
}

// policyOf is the policy by which m is locked.
func (c *Cache) policyOf(m *Mount) MountPolicy {
	switch {
	case m.Policy != MountByDefault:
		return m.Policy
	case c.mountPolicy != MountByDefault:
		return c.mountPolicy
	}
	return MountWarm
}
