package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/imagelock/imagelock/internal/reexec"
)

// makeRole: CACHE SHELF LABEL. Builds "app" and is killed when the image is there and
// not yet on record; with a label if LABEL is not empty.
func makeRole(args []string, _ <-chan string) error {
	s := openShelf(args[1])
	c, err := Open(context.Background(), s, WithDir(args[0]))
	if err != nil {
		return err
	}
	_, err = c.Ensure(context.Background(), Image{Tag: "app", Level: "env", Inputs: "x", Labels: map[string]string{"run": "1"}, Build: func(_ context.Context, b *Build) error {
		err := s.put(b.Reference, "id-made", Layer{"layer-made", 10})
		if args[2] != "" && err == nil {
			err = s.label("id-made", args[2])
		}
		reexec.Say("made %v", err)
		select {}
	}})
	return err
}

// intents counts the builds that have begun and not ended.
func (s *stock) intents() int {
	names, _ := filepath.Glob(filepath.Join(s.c.Dir(), imagesDir, "*"+intentExt))
	return len(names)
}

func TestImageOfABuilderThatWasKilledBeforeItsRecordIsOurs(t *testing.T) {
	s := newStock(t)
	child := reexec.Start(t, "make", s.c.Dir(), s.dir, ref("app"))
	child.Expect("made <nil>")
	// While it is being built nobody takes it.
	if r := s.prune(Budget(0)); len(r.Removed)+len(r.Kept) > 0 || s.intents() != 1 || !s.has("id-made") {
		t.Errorf("while it is built: %+v", r)
	}
	child.Kill()
	if r := s.prune(Budget(0), DryRun()); len(r.Removed) > 0 || s.intents() != 1 {
		t.Errorf("dry: %+v", r)
	}
	r := s.prune(Budget(1 << 30))
	if r.Images != 1 || r.Size != 10 || s.intents() != 0 {
		t.Errorf("%+v, %d intents", r, s.intents())
	}
	if m := s.record("app"); m.Level != "env" || m.Labels["run"] != "1" || m.Inputs != "" {
		t.Errorf("%+v", m.made)
	}
	expectText(t, "removed", removed(s.prune(Labelled("run", "1"))), "app")
	expectText(t, "left", s.left(), "")
}

func (s *stock) intendedAt(at time.Time) {
	if err := os.Chtimes(s.c.files.intentPath(ref("app")), at, at); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
}

func TestImageThatAppearsAfterItsBuilderWasKilledIsOurs(t *testing.T) {
	s := newStock(t)
	if _, err := s.c.files.intend(&intent{made: made{Reference: ref("app")}}); err != nil {
		t.Fatal(err)
	}
	s.prune(Budget(0))
	if err := errors.Join(s.put(ref("app"), "id-late"), s.label("id-late", ref("app"))); err != nil {
		t.Fatal(err)
	}
	expectText(t, "removed", removed(s.prune(Budget(0))), "app")
}

// TestImageOfAKilledBuilderIsNotLostWhenItsTagIsBuiltAgain: nobody has pruned between
// the two builds, and then the tag names another image.
func TestImageOfAKilledBuilderIsNotLostWhenItsTagIsBuiltAgain(t *testing.T) {
	s := newStock(t)
	child := reexec.Start(t, "make", s.c.Dir(), s.dir, ref("app"))
	child.Expect("made <nil>")
	child.Kill()
	res, err := s.c.Ensure(t.Context(), Image{Tag: "app", Inputs: "y", Build: s.builder("app", "id-again")})
	if err != nil || res.ID != "id-again" {
		t.Fatalf("%+v, %v", res, err)
	}
	res.Release()
	expectText(t, "left", s.left(), "app app")
	expectText(t, "removed", removed(s.prune(Budget(0))), "app app")
	expectText(t, "left", s.left(), "")
}

func TestImageOfAKilledBuilderCanBeRemoved(t *testing.T) {
	s := newStock(t)
	child := reexec.Start(t, "make", s.c.Dir(), s.dir, ref("app"))
	child.Expect("made <nil>")
	child.Kill()
	if err := s.c.Remove(t.Context(), "app"); err != nil || s.has("id-made") || s.intents() != 0 {
		t.Errorf("%v, %d intents", err, s.intents())
	}
}

func TestImageThatDoesNotSayItIsOursIsNotAdopted(t *testing.T) {
	for name, label := range map[string]string{"without a label": "", "built on another of ours": ref("other")} {
		t.Run(name, func(t *testing.T) {
			core, logged := observer.New(zap.WarnLevel)
			s := newStock(t, WithLogger(zap.New(core)))
			child := reexec.Start(t, "make", s.c.Dir(), s.dir, label)
			child.Expect("made <nil>")
			child.Kill()
			if r := s.prune(Budget(0)); len(r.Removed) > 0 || s.intents() != 0 || !s.has("id-made") {
				t.Errorf("%+v, %d intents", r, s.intents())
			}
			s.prune(Budget(0))
			all := logged.All()
			if len(all) != 1 || all[0].ContextMap()["tag"] != ref("app") || all[0].ContextMap()["id"] != "id-made" {
				t.Errorf("the log says %v", all)
			}
		})
	}
}

func TestImageThatWasThereBeforeAKilledBuilderIsNotAdopted(t *testing.T) {
	s := newStock(t)
	if err := errors.Join(s.put(ref("app"), "id-before"), s.label("id-before", ref("app"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.c.files.intend(&intent{made: made{Reference: ref("app")}, Before: "id-before"}); err != nil {
		t.Fatal(err)
	}
	for i, age := range []time.Duration{0, time.Hour} {
		s.intendedAt(time.Now().Add(-age))
		if r := s.prune(Budget(0)); len(r.Removed) > 0 || s.intents() != 1-i || !s.has("id-before") {
			t.Errorf("after %v: %+v, %d intents", age, r, s.intents())
		}
	}
}

// While a builder has the tag, or what a killed one has started is still at it, the
// image is theirs to put on record.
func TestIntentOfABuildThatGoesOnIsLeftAlone(t *testing.T) {
	for _, key := range []string{ref("app"), runningKey(ref("app"))} {
		s := newStock(t)
		_, err := s.c.files.intend(&intent{made: made{Reference: ref("app")}})
		err = errors.Join(err, s.put(ref("app"), "id-made"), s.label("id-made", ref("app")))
		if err != nil {
			t.Fatal(err)
		}
		h := holding(t, beside(t, s.c), key)
		if r := s.prune(Budget(1000)); r.Images != 0 || s.intents() != 1 {
			t.Errorf("%s is locked: %+v, %d intents", key, r, s.intents())
		}
		if err := h.Release(); err != nil {
			t.Fatal(err)
		}
		if r := s.prune(Budget(1000)); r.Images != 1 || s.intents() != 0 {
			t.Errorf("%s is free: %+v, %d intents", key, r, s.intents())
		}
	}
}

// An engine may end a killed builder's build a while later. A time in the future is a
// clock's mistake, and does not keep an intent for ever.
func TestIntentOfAnImageThatNeverCameIsWithdrawn(t *testing.T) {
	s := newStock(t)
	for age, want := range map[time.Duration]int{0: 1, time.Minute: 1, -time.Minute: 1, time.Hour: 0, -time.Hour: 0} {
		if _, err := s.c.files.intend(&intent{made: made{Reference: ref("app")}}); err != nil {
			t.Fatal(err)
		}
		s.intendedAt(time.Now().Add(-age))
		if s.prune(Budget(0)); s.intents() != want {
			t.Errorf("after %v: %d intents, want %d", age, s.intents(), want)
		}
	}
}

// As long as the store does not say what became of a build its intent stays.
func TestIntentWaitsForTheStoresAnswer(t *testing.T) {
	for name, silence := range map[string]func(s *stock) (over func() error){
		"about the tag": func(s *stock) func() error {
			s.answer(func(string) error { return errors.New("no answer") })
			return func() error { s.answer(nil); return nil }
		},
		"about the labels": func(s *stock) func() error {
			path := filepath.Join(s.path("images", "id-made"), "label")
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
			return func() error { return errors.Join(os.Remove(path), s.label("id-made", ref("app"))) }
		},
	} {
		s := newStock(t, WithProbeLimit(20*time.Millisecond))
		// What an intent says of layers nobody has measured.
		_, err := s.c.files.intend(&intent{made: made{Reference: ref("app"), Layers: []Layer{{"layer-none", 1000}}}})
		err = errors.Join(err,
			s.put(ref("app"), "id-made", Layer{"layer-made", 10}), s.label("id-made", ref("app")))
		if err != nil {
			t.Fatal(err)
		}
		s.intendedAt(time.Now().Add(-time.Hour))
		over := silence(s)
		if r := s.prune(Budget(5000)); r.Images != 0 || s.intents() != 1 {
			t.Errorf("silent %s: %+v, %d intents", name, r, s.intents())
		}
		if err := over(); err != nil {
			t.Fatal(err)
		}
		s.c.limits.probe = DefaultProbeLimit
		if r := s.prune(Budget(5000)); r.Images != 1 || r.Size != 10 || s.intents() != 0 {
			t.Errorf("silent %s no more: %+v, %d intents", name, r, s.intents())
		}
	}
}

func TestBuildThatIsCancelledOrFailsLeavesNoImageThatIsNobodys(t *testing.T) {
	for name, c := range map[string]struct {
		makes bool
		want  string
	}{"it has made the image": {true, "app"}, "it has not": {false, ""}} {
		for _, how := range []string{"cancelled", "failed"} {
			t.Run(name+" "+how, func(t *testing.T) {
				s := newStock(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, err := s.c.Ensure(ctx, Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
					if c.makes {
						if err := s.put(b.Reference, "id-made"); err != nil {
							t.Error(err)
						}
					}
					if how == "cancelled" {
						cancel()
						<-ctx.Done()
					}
					return errors.New("no")
				}})
				if err == nil {
					t.Fatal("no error")
				}
				if err := s.c.Close(); err != nil { // waits for the attempt
					t.Error(err)
				}
				expectText(t, "on record", s.left(), c.want)
				if s.intents() != 0 {
					t.Errorf("%d intents", s.intents())
				}
			})
		}
	}
}

func TestIntentsThatMakeNoSenseAreLeftAlone(t *testing.T) {
	s := newStock(t)
	for _, name := range []string{"app", "other"} { // both say that they are ours
		if err := errors.Join(s.put(ref(name), "id-"+name), s.label("id-"+name, ref(name))); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(s.c.Dir(), imagesDir)
	hash := s.c.files.hash(ref("app"))
	for name, text := range map[string]string{
		"garbage":        "\x00{",
		"empty":          "",
		"no reference":   `{"reference":""}`,
		"not a full one": `{"reference":"app"}`,
		"of another":     fmt.Sprintf(`{"reference":%q}`, ref("other")),
		"with an ID":     fmt.Sprintf(`{"reference":%q,"id":"id-app"}`, ref("app")),
	} {
		if err := os.WriteFile(filepath.Join(dir, hash+intentExt), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := s.prune(Budget(0)); len(r.Removed)+len(r.Kept) > 0 || !s.has("id-app") || !s.has("id-other") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
