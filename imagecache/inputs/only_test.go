package inputs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyTheChosenPathsCount(t *testing.T) {
	files := map[string]string{
		"go.mod": "1", "go.sum": "1", "api/main.go": "1", "api/deep/x.go": "1", "api-old/main.go": "1", "web/main.js": "1", "web/a.css": "1",
		"shared": "->lib/v2", "lib/v2/x.go": "1", "lib/v1/x.go": "1", "abs": "->/web/a.css", "sub/abs": "->/web/a.css", "through": "->shared", ".dockerignore": "api/deep\n",
		"conf": "->/shared.d/conf", "shared.d/conf/a.x": "1", "shared.d/conf/a.y": "1", "out": "->../../shared.d", "brackets": "->/[x]", "[x]/1.go": "1", "x/1.go": "1",
	}
	for name, c := range map[string]struct {
		only   []string
		counts string // of these files
		not    string
	}{
		"a directory":       {[]string{"api"}, "api/main.go", "api-old/main.go"},
		"excluded":          {[]string{"api"}, "api/main.go", "api/deep/x.go"},
		"as COPY has it":    {[]string{"/api/", "./go.mod"}, "go.mod", "go.sum"},
		"a pattern":         {[]string{"go.*", "*/main.*"}, "web/main.js", "web/a.css"},
		"a pattern of two":  {[]string{"*/main.*"}, "api-old/main.go", "go.mod"},
		"an optional file":  {[]string{"go.mod", "go.work*"}, "go.mod", "go.sum"},
		"everything":        {[]string{"."}, "web/a.css", "api/deep/x.go"},
		"a link":            {[]string{"shared"}, "lib/v2/x.go", "lib/v1/x.go"},
		"through links":     {[]string{"through/x.go"}, "lib/v2/x.go", "lib/v1/x.go"},
		"a pattern of it":   {[]string{"sha*/x.*"}, "lib/v2/x.go", "lib/v1/x.go"},
		"an absolute link":  {[]string{"abs"}, "web/a.css", "web/main.js"},
		"from further down": {[]string{"sub/abs"}, "web/a.css", "web/main.js"},
		"behind one":        {[]string{"conf/*.x"}, "shared.d/conf/a.x", "shared.d/conf/a.y"},
		"behind one, new":   {[]string{"conf/*.x"}, "shared.d/conf/new.x", "conf.x"},
		"behind an outer":   {[]string{"out/*/a.?"}, "shared.d/conf/a.y", "shared.d/a.x"},
		"of no pattern":     {[]string{"al[i]/deep/?.go", "brackets/*.go"}, "[x]/1.go", "x/1.go"},
		"twice":             {[]string{"api/main.go", "api", "api/main.go"}, "api/main.go", "web/a.css"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, files)
			in := New().Dir(dir, Only(c.only...))
			was := digest(t, in)
			put(t, dir, c.not, "2")
			if digest(t, in) != was {
				t.Errorf("%s counts", c.not)
			}
			put(t, dir, c.counts, "2")
			if digest(t, in) == was {
				t.Errorf("%s does not count", c.counts)
			}
		})
	}
}

func TestALinkThatWasFollowedCountsItself(t *testing.T) {
	dir := write(t, map[string]string{"v1/x": "1", "v2/x": "2", "now": "->v1"})
	in := New().Dir(dir, Only("now/x", "v1", "v2"))
	was := digest(t, in)
	now := filepath.Join(dir, "now")
	if err := errors.Join(os.Remove(now), os.Symlink("v2", now)); err != nil {
		t.Fatal(err)
	}
	if digest(t, in) == was {
		t.Error("it leads elsewhere")
	}
}

func TestAChosenPathThatIsExcludedIsAnError(t *testing.T) {
	dir := write(t, map[string]string{"a": "", "b/c": "", "b/d": "", ".dockerignore": "a\nb/c\n"})
	for _, path := range []string{"a", "b/c"} {
		_, err := New().Dir(dir, Only("b/d", path, path[:len(path)-1]+"?")).Digest(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || e.Path != filepath.Join(dir, filepath.FromSlash(path)) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// A pattern means what is there.
	if _, err := New().Dir(dir, Only("b/*", "x*")).Digest(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPicksCountAsCOPYTakesThem(t *testing.T) {
	files := map[string]string{
		"api/main.go": "1", "api/doc.md": "1", "api/sub/doc.md": "1", "api/sub/x.go": "1", "api/keep.md": "1",
		"crates/a/Cargo.toml": "1", "crates/a/src/lib.rs": "1", "crates/b/Cargo.toml": "1", "a[b]/x": "1", "a*/x": "1", "ab/x": "1",
		"away": "->nowhere", "Dockerfile": "1", ".dockerignore": "Dockerfile\ncrates/b\n",
	}
	for name, c := range map[string]struct {
		picks  []Pick
		counts string
		not    string
	}{
		"but for a pattern":       {[]Pick{{Path: "api", Exclude: []string{"*.md"}}}, "api/sub/doc.md", "api/doc.md"},
		"at any depth":            {[]Pick{{Path: "/api/", Exclude: []string{"**/*.md"}}}, "api/sub/x.go", "api/sub/doc.md"},
		"a directory":             {[]Pick{{Path: ".", Exclude: []string{"api/sub"}}}, "api/doc.md", "api/sub/x.go"},
		"a directory but for one": {[]Pick{{Path: ".", Exclude: []string{"api/sub", "!api/sub/x.go"}}}, "api/sub/x.go", "api/sub/doc.md"},
		"picked by another":       {[]Pick{{Path: "api", Exclude: []string{"**/*.md"}}, {Path: "api/sub"}}, "api/sub/doc.md", "api/doc.md"},
		"picked by one more":      {[]Pick{{Path: "api", Exclude: []string{"**/*.md"}}, {Path: "api", Exclude: []string{"**/*.go"}}}, "api/doc.md", "Dockerfile2"},
		"in any order":            {[]Pick{{Path: "api"}, {Path: "api", Exclude: []string{"**"}}}, "api/doc.md", "ab/x"},
		"what is included":        {[]Pick{{Path: ".", Include: []string{"crates/*/Cargo.toml"}}}, "crates/a/Cargo.toml", "crates/a/src/lib.rs"},
		"included, at any depth":  {[]Pick{{Path: ".", Include: []string{"**/*.rs"}}}, "crates/a/src/lib.rs", "crates/a/Cargo.toml"},
		"included and excluded":   {[]Pick{{Path: "api", Include: []string{"*.md"}, Exclude: []string{"doc.*"}}}, "api/keep.md", "api/doc.md"},
		"a directory included":    {[]Pick{{Path: ".", Include: []string{"api/sub"}}}, "api/sub/x.go", "api/main.go"},
		"literally":               {[]Pick{{Path: "a[b]", Literal: true}}, "a[b]/x", "ab/x"},
		"a star, literally":       {[]Pick{{Path: "a*", Literal: true}}, "a*/x", "ab/x"},
		"a pattern":               {[]Pick{{Path: "a[b]"}}, "ab/x", "a[b]/x"},
		"a dangling link":         {[]Pick{{Path: "a*"}}, "ab/x", "Dockerfile2"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, files)
			in := New().Dir(dir, IgnoreOf("Dockerfile"), Picks(c.picks...))
			was := digest(t, in)
			put(t, dir, c.not, "2")
			if digest(t, in) != was {
				t.Errorf("%s counts", c.not)
			}
			put(t, dir, c.counts, "2")
			if digest(t, in) == was {
				t.Errorf("%s does not count", c.counts)
			}
		})
	}
}

// The Dockerfile is sent also if it is excluded, and copied with the rest.
func TestAnExcludedDockerfileCountsWhereItIsCopied(t *testing.T) {
	dir := write(t, map[string]string{"src/x": "1", "Dockerfile": "1", "notes": "1", ".dockerignore": "Dockerfile\nnotes\n"})
	all, some, one, any := New().Dir(dir, IgnoreOf("Dockerfile")), New().Dir(dir, IgnoreOf("Dockerfile"), Only("src")),
		New().Dir(dir, IgnoreOf("Dockerfile"), Only("Dockerfile")), New().Dir(dir, IgnoreOf("Dockerfile"), Only("*"))
	was := []string{digest(t, all), digest(t, some), digest(t, one), digest(t, any)}
	put(t, dir, "notes", "2")
	for i, in := range []*Inputs{all, some, one, any} {
		if digest(t, in) != was[i] {
			t.Errorf("%d: what is excluded counts", i)
		}
	}
	put(t, dir, "Dockerfile", "2")
	for i, in := range []*Inputs{all, some, one, any} {
		if got := digest(t, in) != was[i]; got != (i != 1) {
			t.Errorf("%d: it counts: %v", i, got)
		}
	}
}

func TestWhatIsIncludedByNameMustBeThere(t *testing.T) {
	dir := write(t, map[string]string{"a/b": "", "a/c": "", ".dockerignore": "a/c\n"})
	for _, p := range []Pick{{Path: ".", Include: []string{"a/x"}}, {Path: "a", Include: []string{"c"}}} {
		_, err := New().Dir(dir, Picks(p)).Digest(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || e.Path != filepath.Join(dir, p.Path, filepath.FromSlash(p.Include[0])) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := New().Dir(dir, Picks(Pick{Path: ".", Include: []string{"a/x*"}}, Pick{Path: ".", Include: []string{"a/b"}})).Digest(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range []Pick{{Path: "a", Include: []string{"["}}, {Path: "a", Exclude: []string{"["}}} {
		if _, err := New().Dir(dir, Picks(p)).Digest(t.Context()); err == nil {
			t.Errorf("%+v is no error", p)
		}
	}
}
