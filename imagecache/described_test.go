package imagecache

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

// twice is what a plan of two images of one tag with these builds is refused for.
func twice(t *testing.T, a, b BuildFunc) string {
	t.Helper()
	_, err := newPlan([]Image{{Tag: "app", Build: a}, {Tag: "app", Build: b}})
	if err == nil {
		return ""
	}
	return expect.As[*TwiceError](t, err).What
}

func TestCommandsThatDoDifferentThingsAreDifferentBuilds(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	made := func(change func(*Command)) Command {
		c := Command{Args: []string{"make", "image"}, Dir: "a", Env: []string{"V=1"}}
		change(&c)
		return c
	}
	one := made(func(*Command) {})
	for name, c := range map[string]struct {
		other Command
		same  bool
	}{
		"the same again":        {made(func(*Command) {}), true},
		"a dir spelled longer":  {made(func(c *Command) { c.Dir = filepath.Join(here, "b", "..", "a") }), true},
		"what is only shown":    {made(func(c *Command) { c.Grace, c.Progress = 5, t.Output() }), true},
		"another dir":           {made(func(c *Command) { c.Dir = "b" }), false},
		"other args":            {made(func(c *Command) { c.Args = []string{"make", "other"} }), false},
		"args cut elsewhere":    {made(func(c *Command) { c.Args = []string{"make image"} }), false},
		"another environment":   {made(func(c *Command) { c.Env = []string{"V=2"} }), false},
		"an argument as a name": {made(func(c *Command) { c.Args, c.Env = []string{"make"}, []string{"image", "V=1"} }), false},
	} {
		if got := twice(t, one.Build, c.other.Build) == ""; got != c.same {
			t.Errorf("%s: the same is %v", name, got)
		}
	}
	if twice(t, Command{}.Build, Command{Dir: here}.Build) != "" {
		t.Error("the directory of this process is another when it is named")
	}
}

func TestDescribedBuildsAreWhatTheySay(t *testing.T) {
	s := newStore(t)
	of := func(parts ...string) BuildFunc {
		return Described(func(_ context.Context, b *Build) error { return s.put(b.Reference) }, parts...)
	}
	if what := twice(t, of("copy", "a"), of("copy", "a")); what != "" {
		t.Errorf("two that say the same differ in %s", what)
	}
	plain := func(context.Context, *Build) error { return errors.New("plain") }
	for name, other := range map[string]BuildFunc{
		"another part": of("copy", "b"), "parts cut elsewhere": of("copya"), "nothing": of(), "one that says nothing": plain,
		"no build": nil, "a command": Command{}.Build,
	} {
		if twice(t, of("copy", "a"), other) != "Build" || twice(t, other, of("copy", "a")) != "Build" {
			t.Errorf("%s is the same", name)
		}
	}
	if Described(nil, "x") != nil {
		t.Error("nothing was made a build")
	}
	// It builds what it was made of, and asked it builds nothing.
	c := openCache(t, s)
	results, err := c.EnsureAll(t.Context(), []Image{{Tag: "app", Build: of("x")}, {Tag: "app", Build: of("x")}})
	if err != nil || results[0].Outcome != Built || results[0].Attempt != 1 {
		t.Errorf("%+v, %v", results, err)
	}
}

type maker struct{}

func (maker) One(context.Context, *Build) error { return nil }
func (maker) Two(context.Context, *Build) error { return nil }

func TestValuesOfTwoMethodsAreTwoBuilds(t *testing.T) {
	if twice(t, maker{}.One, maker{}.One) != "" || twice(t, maker{}.One, maker{}.Two) != "Build" {
		t.Error("values of methods are not told apart")
	}
}
