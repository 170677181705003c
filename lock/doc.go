// Package lock gives keyed locks that exclude each other over all processes of
// a host, and tells those who wait who holds them.
//
//	locks, err := lock.Open(dir)
//	…
//	held, err := locks.Acquire(ctx, "docker.io/library/app:v1", lock.Exclusive)
//	if err != nil {
//		return err // names key, lockfile, time waited and the holder
//	}
//	defer held.Release()
//	// Check again: another process may have done the work while we waited.
//
// # How it works
//
// A key is locked with flock(2) on <dir>/<SHA-256 of the key in hex>.lock. The
// kernel lets go of it when its holder ends, however it ends; there is no stale
// lock, no time to live and no clean-up. Any program that takes flock(2) on that
// path takes part. Within a process the waiters of a key stand in a queue, first
// come first served, and one of them at a time tries for the file: a thousand
// goroutines wait with one descriptor and no thread. A waiter is woken by the
// file's events where the system has them, and by a jittered timer where it has
// none or one was missed.
//
// # Rules that make it safe
//
//   - A lock is only ever tried for, never waited for in the kernel: a blocking
//     flock costs a thread and cannot be cancelled.
//   - After every grant the locked descriptor's inode is compared with the
//     path's. Should somebody unlink a lockfile, nobody goes on with a lock on a
//     file that is no longer there.
//   - A release unlocks before it closes. A close alone leaves the file locked
//     while another goroutine's fork holds a copy of the descriptor.
//   - Lockfiles are empty and are never unlinked by this package.
//   - A directory in which two descriptors do not exclude each other, or whose
//     filesystem is known to lie about it, is refused when it is opened.
//
// # What it does not do
//
// It does not reach over hosts: put the directory on a local filesystem. It is
// not re-entrant. Between processes there is no order of arrival.
package lock
