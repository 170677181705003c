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
// goroutines wait with one descriptor and no thread. Processes stand in line too,
// with a small locked file each, a ticket, and each watches the one before its own:
// a release wakes one of them and not all, and no newcomer overtakes. A waiter is
// woken by the files' events where the system has them, and by a jittered timer
// where it has none or one was missed.
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
//   - Lockfiles are empty. They are never unlinked by this package, but in a
//     directory that was marked for it when it was made ([CheckedClientsOnly]).
//   - A directory in which two descriptors do not exclude each other, or whose
//     filesystem is known to lie about it, is refused when it is opened.
//
// # Who holds a key and asks for it again
//
// A lock is not re-entrant: the second acquire would wait for the first, until the
// wait limit. Nobody can tell by itself which goroutine works for which, so say it:
// [WithHeld] makes a context that carries what is held, and an acquire of such a
// key with that context fails at once with [ErrReentry], also where one of them is
// shared, and also if several keys are wanted ([AcquireAll], [AcquireAny]).
// A shared lock is never made an exclusive one; whoever tries is told so
// ([ErrUpgrade]). [Environ] carries what is held on to a child process, so that a
// program which is run under a lock and asks for it learns the same.
//
// # Who has what
//
// Every process keeps a record of what it holds and waits for, beside the
// lockfiles. [Inspect] lists all keys of a directory from them and from what the
// system shows, [Dir.Holders] tells who has one key. Neither takes a key's lock.
//
// # Several keys
//
// [AcquireAll] takes them in the order of their names and gives back what it had if
// one can't be had: callers who want overlapping sets, in whatever modes, don't
// deadlock, as long as nobody takes a second set while he holds one.
// [AcquireAny] takes one of them, the first that is free or whose turn comes; it
// stands in the line of each. N keys and AcquireAny are a semaphore over all
// processes of which no crash takes a slot away.
//
// # What it does not do
//
// It does not reach over hosts: put the directory on a local filesystem. The order
// of arrival is that of processes: of the goroutines of one, the first stands in
// line for all, and the next one goes to its end. Programs without tickets, such as
// flock(1), come in between.
package lock
