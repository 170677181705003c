package imagecache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

func (s *stock) ensure(name string) Result {
	s.Helper()
	res, err := s.c.Ensure(s.Context(), Image{Tag: name, Build: s.builder(name, "id-"+name)})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { res.Release() })
	return res
}

func TestWhoeverBuildsKeepsTheBudget(t *testing.T) {
	s := newStock(t, WithBudget(30))
	for i := range 6 {
		s.ensure(fmt.Sprint("i", i)).Release()
		if i == 4 {
			another := &stock{t, s.shelf, openCache(t, s.shelf, WithDir(s.c.Dir()))}
			another.use("i2").Release()
		}
	}
	expectText(t, "left", s.left(), "i2 i4 i5")
	nothingLocked(t, s.c, pruneKey)
}

func TestBudgetIsKeptAsSoonAsWhatIsInUseIsReleased(t *testing.T) {
	s := newStock(t, WithBudget(20))
	var held []Result
	for i := range 5 {
		held = append(held, s.ensure(fmt.Sprint("i", i)))
	}
	expectText(t, "left while in use", s.left(), "i0 i1 i2 i3 i4")
	for _, res := range held {
		res.Release()
	}
	expect.Eventually(t, "the budget is kept", func() bool { return len(strings.Fields(s.left0())) == 2 })
}

func TestPlanKeepsTheBudgetWhileItIsCarriedOut(t *testing.T) {
	s := newStock(t, WithBudget(40), WithSlots(2))
	var images []Image
	images = append(images, Image{Tag: "base", Build: s.builder("base", "id-base")})
	for i := range 20 {
		name := fmt.Sprint("i", i)
		images = append(images, Image{Tag: name, Parents: []string{"base"}, Build: s.builder(name, "id-"+name)})
	}
	_, err := s.c.EnsureAll(t.Context(), images)
	if err != nil {
		t.Fatal(err)
	}
	// What was in use at the last build goes when it is released.
	expect.Eventually(t, "the budget is kept", func() bool {
		left := s.left0()
		return len(strings.Fields(left)) == 4 && strings.Contains(left, ref("base"))
	})
}

// left0 is left without a look at the shelf, which changes.
func (s *stock) left0() string {
	acc := s.c.newAccounts()
	if _, err := acc.refresh(); err != nil {
		s.Error(err)
	}
	var names []string
	for _, img := range acc.images {
		names = append(names, img.Reference)
	}
	return strings.Join(names, " ")
}

func TestBudgetOfNothingKeepsOnlyWhatIsInUse(t *testing.T) {
	s := newStock(t, WithBudget(0))
	res := s.ensure("a")
	s.ensure("b").Release()
	expect.Eventually(t, "b is gone", func() bool { return s.left0() == ref("a") })
	res.Release()
	expect.Eventually(t, "a is gone", func() bool { return s.left0() == "" })
}

func TestBudgetThatCantBeKeptIsNoErrorOfTheBuild(t *testing.T) {
	s := newStock(t, WithBudget(10), WithProbeLimit(50*time.Millisecond))
	s.ensure("a").Release()
	s.answer(func(r string) error {
		if r == ref("a") {
			return errors.New("no answer")
		}
		return nil
	})
	s.ensure("b").Release()
	expectText(t, "left", s.left(), "a b")
	s.answer(nil)
	s.ensure("c").Release()
	expectText(t, "left", s.left(), "c")
}

func TestBudgetThatMakesNoSenseIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		store Store
		bytes int64
		want  error
	}{
		"negative":                  {newShelf(t), -1, ErrBadOption},
		"a store that can't remove": {newStore(t), 10, ErrUnsupported},
	} {
		_, err := Open(context.Background(), c.store, WithDir(t.TempDir()), WithBudget(c.bytes))
		if !errors.Is(err, c.want) || !errors.Is(err, ErrBadOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCloseWaitsForThePruningOfWhatWasReleased(t *testing.T) {
	s := newStock(t, WithBudget(10))
	asked, answer := make(chan struct{}), make(chan struct{})
	s.step = func(step string) error {
		if step == "asked" {
			close(asked)
			<-answer
		}
		return nil
	}
	a, b := s.ensure("a"), s.ensure("b")
	b.Release() // which is used just now
	a.Release()
	<-asked
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := s.c.Close(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-closed:
		t.Error("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	<-closed
	if n := len(strings.Fields(s.left())); n != 1 {
		t.Errorf("%d images are left", n)
	}
}
