// Package expect has what the tests of several packages wait for and look for.
package expect

import (
	"errors"
	"testing"
	"time"
)

// patience is how long something may take that another process or goroutine
// brings about, on a machine that is busy.
const patience = 30 * time.Second

// Eventually polls until ok says so, and fails the test if it does not in time.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// As returns the error of type T in err's tree, and fails the test without one.
func As[T error](t testing.TB, err error) T {
	t.Helper()
	target, ok := errors.AsType[T](err)
	if !ok {
		t.Fatalf("error %v (%T) is no %T", err, err, target)
	}
	return target
}
