package docker

import (
	"maps"
	"testing"
)

func TestTheInputsOfABuildAreWhatTheImageIsMadeOf(t *testing.T) {
	files := map[string]string{"Dockerfile": "FROM scratch\n", "Other": "FROM scratch\n# other\n", "src/a": "1", "notes": "1", ".dockerignore": "notes\nOther\nDockerfile\n"}
	spec := func(change func(*ContextBuild, map[string]string)) ContextBuild {
		b := ContextBuild{Args: map[string]string{"A": "1", "B": "2"}, Labels: map[string]string{"l": "1"}, Target: "build"}
		f := maps.Clone(files)
		change(&b, f)
		b.Dir = contextOf(t, nil, f)
		return b
	}
	digest := func(b ContextBuild) string {
		d, err := b.Inputs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	was := digest(spec(func(*ContextBuild, map[string]string) {}))
	for name, c := range map[string]struct {
		change func(*ContextBuild, map[string]string)
		counts bool
	}{
		"a source":           {func(b *ContextBuild, f map[string]string) { f["src/a"] = "2" }, true},
		"the Dockerfile":     {func(b *ContextBuild, f map[string]string) { f["Dockerfile"] += "#" }, true},
		"another Dockerfile": {func(b *ContextBuild, f map[string]string) { b.Dockerfile = "Other" }, true},
		"an argument":        {func(b *ContextBuild, f map[string]string) { b.Args["A"] = "2" }, true},
		"an argument less":   {func(b *ContextBuild, f map[string]string) { delete(b.Args, "A") }, true},
		"a label":            {func(b *ContextBuild, f map[string]string) { b.Labels["l"] = "2" }, true},
		"a label for an argument": {func(b *ContextBuild, f map[string]string) {
			delete(b.Args, "A")
			b.Labels["A"] = "1"
		}, true},
		"the target":               {func(b *ContextBuild, f map[string]string) { b.Target = "" }, true},
		"what is excluded":         {func(b *ContextBuild, f map[string]string) { f["notes"] = "2" }, false},
		"the Dockerfile's default": {func(b *ContextBuild, f map[string]string) { b.Dockerfile = "Dockerfile" }, false},
		"the network":              {func(b *ContextBuild, f map[string]string) { b.NetworkMode = "none" }, true},
		"the default network":      {func(b *ContextBuild, f map[string]string) { b.NetworkMode = "default" }, false},
		"how it is built":          {func(b *ContextBuild, f map[string]string) { b.NoCache = true }, false},
	} {
		if is := digest(spec(c.change)); (is != was) != c.counts {
			t.Errorf("%s: it was %s and is %s", name, was, is)
		}
	}
}
