package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func ExampleDir_Acquire() {
	dir, err := os.MkdirTemp("", "locks-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	locks, err := lock.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer locks.Close()

	held, err := locks.Acquire(context.Background(), "dataset", lock.Exclusive, lock.WaitLimit(time.Minute))
	if err != nil {
		log.Fatal(err) // names key, lockfile, time waited and the holder
	}
	// Check again: another process may have done the work while we waited.
	fmt.Println("have", held.Key(), held.Mode())
	if err := held.Release(); err != nil {
		log.Fatal(err)
	}
	// Output: have dataset exclusive
}

func ExampleDir_TryAcquire() {
	dir, err := os.MkdirTemp("", "locks-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	locks, err := lock.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer locks.Close()
	ctx := context.Background()

	reader, err := locks.TryAcquire(ctx, "dataset", lock.Shared)
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Release()
	_, err = locks.TryAcquire(ctx, "dataset", lock.Exclusive)
	fmt.Println("a writer beside a reader:", errors.Is(err, lock.ErrHeld))
	another, err := locks.TryAcquire(ctx, "dataset", lock.Shared)
	fmt.Println("another reader:", err)
	another.Release()
	// Output:
	// a writer beside a reader: true
	// another reader: <nil>
}

func ExampleWithHeld() {
	dir, err := os.MkdirTemp("", "locks-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	locks, err := lock.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer locks.Close()

	// refresh locks what it works on, as it should: it is called from everywhere.
	refresh := func(ctx context.Context) error {
		held, err := locks.Acquire(ctx, "dataset", lock.Exclusive)
		if err != nil {
			return err
		}
		return held.Release()
	}

	ctx := context.Background()
	held, err := locks.Acquire(ctx, "dataset", lock.Shared)
	if err != nil {
		log.Fatal(err)
	}
	// Whoever is called with this context learns that the key is held.
	err = refresh(lock.WithHeld(ctx, held))
	fmt.Println("under the lock:", errors.Is(err, lock.ErrReentry))
	fmt.Println("an upgrade:", errors.Is(err, lock.ErrUpgrade))

	held.Release()
	fmt.Println("after it:", refresh(lock.WithHeld(ctx, held)))
	// Output:
	// under the lock: true
	// an upgrade: true
	// after it: <nil>
}

func ExampleEnviron() {
	dir, err := os.MkdirTemp("", "locks-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	locks, err := lock.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer locks.Close()
	held, err := locks.Acquire(context.Background(), "dataset", lock.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	defer held.Release()

	cmd := exec.Command("make", "dataset")
	cmd.Env = append(os.Environ(), lock.Environ(held)...)
	// Should make run a program that acquires "dataset", that is told at once.
	name, _, _ := strings.Cut(cmd.Env[len(cmd.Env)-1], "=")
	fmt.Println(name)
	// Output: IMAGELOCK_HELD
}

func ExampleAcquireAll() {
	locks, done := open()
	defer done()

	// Whatever the order, nobody deadlocks with another who wants the same.
	set, err := lock.AcquireAll(context.Background(), locks, []lock.Want{
		{Key: "results", Mode: lock.Exclusive},
		{Key: "dataset", Mode: lock.Shared},
	}, lock.WaitLimit(time.Minute))
	if err != nil {
		log.Fatal(err) // nothing is held
	}
	defer set.Release()
	for _, held := range set.Held() {
		fmt.Println(held.Key(), held.Mode())
	}
	// Output:
	// dataset shared
	// results exclusive
}

func ExampleAcquireAny() {
	locks, done := open()
	defer done()

	// At most two at a time, over all processes.
	slots := []string{"slot:0", "slot:1"}
	ctx := context.Background()
	a, err := lock.AcquireAny(ctx, locks, slots, lock.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	b, err := lock.AcquireAny(ctx, locks, slots, lock.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	_, err = lock.AcquireAny(ctx, locks, slots, lock.Exclusive, lock.WaitLimit(time.Millisecond))
	fmt.Println(a.Key(), b.Key(), errors.Is(err, lock.ErrWaitLimit))
	a.Release()
	c, err := lock.AcquireAny(ctx, locks, slots, lock.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Key())
	b.Release()
	c.Release()
	// Output:
	// slot:0 slot:1 true
	// slot:0
}

// open opens a directory for an example.
func open() (locks *lock.Dir, done func()) {
	dir, err := os.MkdirTemp("", "locks-")
	if err != nil {
		log.Fatal(err)
	}
	locks, err = lock.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	return locks, func() { locks.Close(); os.RemoveAll(dir) }
}
