package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
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
