package memo

import (
	"errors"
	"strconv"
	"testing"
)

func TestResultsAreRememberedAndErrorsAreNot(t *testing.T) {
	var m Memo[int]
	calls := 0
	f := func(s string) (int, error) {
		calls++
		return strconv.Atoi(s)
	}
	for range 3 {
		if n, err := m.Get("7", f); n != 7 || err != nil {
			t.Error(n, err)
		}
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
	for range 2 {
		if _, err := m.Get("x", f); !errors.Is(err, strconv.ErrSyntax) {
			t.Error(err)
		}
	}
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var m Memo[int]
	for i := range 3 * limit {
		s := strconv.Itoa(i)
		if n, err := m.Get(s, strconv.Atoi); n != i || err != nil {
			t.Fatal(n, err)
		}
		if len(m.seen) > limit {
			t.Fatalf("%d results", len(m.seen))
		}
	}
}
