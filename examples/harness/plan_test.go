package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imagelock/imagelock/imagecache"
)

const header = "instance_id\trepo\tversion\n"

func TestTheEmbeddedPlanHasManyKindsOfWork(t *testing.T) {
	plan, err := LoadPlan("")
	if err != nil {
		t.Fatal(err)
	}
	images := Tags{"r"}.Images(plan)
	if len(plan) != 24 || len(images) != 1+11+24 {
		t.Errorf("%d instances and %d images, want 24 and 36", len(plan), len(images))
	}
	for _, img := range images {
		if _, err := imagecache.Normalize(img.Tag); err != nil {
			t.Error(err)
		}
	}
}

func TestABrokenLineIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		line int
		kind error
		says string
	}{
		"empty file":      {"", 1, ErrPlanEmpty, "at least one row"},
		"header only":     {header, 2, ErrPlanEmpty, "at least one row"},
		"no header":       {"a\tb\tc\n", 1, ErrPlanSyntax, "expected the header"},
		"two fields":      {header + "a\tb\n", 2, ErrPlanSyntax, "expected 3 fields"},
		"four fields":     {header + "a\tb\tc\td\n", 2, ErrPlanSyntax, "got 4"},
		"empty line":      {header + "a\tb\tc\n\nd\te\tf\n", 3, ErrPlanSyntax, "got 1"},
		"spaces for tabs": {header + "a b c\n", 2, ErrPlanSyntax, "separated by tabs"},
		"empty field":     {header + "a\t\tc\n", 2, ErrPlanSyntax, "repo"},
		"padded field":    {header + "a\tb\t c\n", 2, ErrPlanSyntax, "version"},
		"control":         {header + "a\x07\tb\tc\n", 2, ErrPlanSyntax, "control"},
		"not UTF-8":       {header + "a\xff\tb\tc\n", 2, ErrPlanSyntax, "UTF-8"},
		"long field":      {header + strings.Repeat("a", 256) + "\tb\tc\n", 2, ErrPlanSyntax, "longer"},
		"long line":       {header + strings.Repeat("a", bufio.MaxScanTokenSize), 2, ErrPlanSyntax, "shorter"},
		"twice":           {header + "a\tb\tc\nd\tb\tc\na\tb\te\n", 4, ErrPlanDuplicate, "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePlan("my.tsv", strings.NewReader(c.text))
			var pe *PlanError
			if !errors.As(err, &pe) || !errors.Is(err, c.kind) {
				t.Fatalf("got %v, want a PlanError of kind %v", err, c.kind)
			}
			if pe.File != "my.tsv" || pe.Line != c.line || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, want line %d and %q", err, c.line, c.says)
			}
			if len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\t\x07") {
				t.Errorf("message is not fit to print: %q", err)
			}
		})
	}
}

func TestAReadErrorIsNoEndOfThePlan(t *testing.T) {
	r := io.MultiReader(strings.NewReader(header+"a\tb\tc\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := ParsePlan("p", r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, err := LoadPlan(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := LoadPlan(t.TempDir()); err == nil {
		t.Error("a directory was taken for a plan")
	}
}

func TestTagsAreValidAndTellNamesApart(t *testing.T) {
	long := strings.Repeat("a", 250)
	names := []string{
		"astropy/astropy", "astropy__astropy", "Astropy/astropy", "a+b", "a b", "a/b", "a//b", "/a", "a/", "ä", "ö",
		"..", ".", "-", "_", "a.", "a..b", "a___b", long, long + "b", long[:200] + "/" + long[:50], component("a+b"),
	}
	seen := map[string]string{}
	for _, name := range names {
		for _, in := range []Instance{{"i", name, "1"}, {"i", "r", name}, {name, "r", "1"}} {
			tags := []string{(Tags{"run"}).Env(in), (Tags{"run"}).Instance(in)}
			for _, tag := range tags {
				ref, err := imagecache.Normalize(tag)
				if err != nil {
					t.Errorf("%q: %v", name, err)
				}
				if short(ref) != tag {
					t.Errorf("%q became %q", tag, ref)
				}
			}
		}
		tag := Tags{"run"}.Env(Instance{"i", name, "1"})
		if other, ok := seen[tag]; ok {
			t.Errorf("%q and %q share %q", name, other, tag)
		}
		seen[tag] = name
	}
	if got, want := (Tags{"run"}).Env(Instance{"i", "astropy/astropy", "4.2"}), "imagelock-harness/run/env/astropy/astropy:4.2"; got != want {
		t.Errorf("got %q, want the plain name %q", got, want)
	}
}

func TestEveryProcessWalksTheWholePlanInAnOrderOfItsOwn(t *testing.T) {
	plan, err := LoadPlan("")
	if err != nil {
		t.Fatal(err)
	}
	orders := map[string]bool{}
	for k := range 8 {
		order := walk(plan, k, 1)
		seen := map[string]bool{}
		for _, in := range order {
			seen[in.ID] = true
		}
		if len(order) != len(plan) || len(seen) != len(plan) {
			t.Errorf("process %d walks %d instances, %d of them distinct, want %d", k, len(order), len(seen), len(plan))
		}
		orders[fmt.Sprint(order)] = true
	}
	if len(orders) != 8 {
		t.Errorf("8 processes have %d orders", len(orders))
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(defaultPlan)
	f.Add(header + "a\tb\tc\n")
	f.Add(header + "a+b/ö\tB//..\t1.0 beta\r\nb\tb\tb")
	f.Add("\xef\xbb\xbf" + header)
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := ParsePlan("p", strings.NewReader(text))
		if err != nil {
			var pe *PlanError
			if !errors.As(err, &pe) || pe.Line < 1 || plan != nil {
				t.Fatalf("got %v and %v", plan, err)
			}
			return
		}
		images := Tags{"run"}.Images(plan)
		keys := map[string]bool{}
		for _, img := range images {
			ref, err := imagecache.Normalize(img.Tag)
			if err != nil {
				t.Fatal(err)
			}
			keys[ref] = true
		}
		envs := map[[2]string]bool{}
		for _, in := range plan {
			envs[[2]string{in.Repo, in.Version}] = true
		}
		if want := 1 + len(envs) + len(plan); len(images) != want || len(keys) != want {
			t.Fatalf("%d images with %d names, want %d", len(images), len(keys), want)
		}
	})
}
