package docker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/contextdir"
)

func TestABuildHasItsArgsLabelsTargetAndTag(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"sub/My.Dockerfile": `
FROM scratch AS wanted
ARG WHAT=nothing
ARG KEPT=default
COPY helper /helper
ENV GOT=$WHAT-$KEPT
RUN ["/helper", "env", "GOT"]
FROM not-there/at-all AS other
RUN ["/helper", "fail", "1", "0"]
`})
	var progress lockedBuffer
	text, err := buildOf(t, t.Context(), s, ref, ContextBuild{
		Dir: dir, Dockerfile: "sub/My.Dockerfile", Target: "wanted", NoCache: true, Progress: &progress,
		Args: map[string]string{"WHAT": "a b"}, Labels: map[string]string{"org.imagelock.test": "x y"},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !strings.Contains(text, "env GOT=a b-default\n") {
		t.Errorf("the build args did not arrive:\n%s", text)
	}
	if progress.String() != text {
		t.Errorf("progress and log differ:\n%s\n---\n%s", progress.String(), text)
	}
	img, err := s.Client().ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := img.Config.Labels["org.imagelock.test"]; got != "x y" {
		t.Errorf("label %q", got)
	}
	p, err := s.Probe(t.Context(), ref)
	if err != nil || p != (imagecache.Presence{State: imagecache.Present, ID: img.ID}) {
		t.Errorf("probe: %+v, %v", p, err)
	}
	if !strings.Contains(text, "built "+ref+" as "+img.ID) {
		t.Errorf("the log does not name the image:\n%s", text)
	}
}

func TestContextsThatMakeDifferentImagesAreDifferentBuilds(t *testing.T) {
	s := realEngine(t)
	c, err := imagecache.Open(t.Context(), s, imagecache.WithDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tag := newRef(t, s)
	of := func(change func(*ContextBuild)) imagecache.BuildFunc {
		spec := ContextBuild{Dir: "testdata", Args: map[string]string{"A": "1", "B": "2"}, Labels: map[string]string{"l": "1"}}
		change(&spec)
		return s.BuildContext(spec)
	}
	for name, change := range map[string]func(*ContextBuild){
		"":             func(b *ContextBuild) { b.Dir, b.Dockerfile, b.Progress = "./testdata/.", "Dockerfile", io.Discard },
		"directory":    func(b *ContextBuild) { b.Dir = "elsewhere" },
		"Dockerfile":   func(b *ContextBuild) { b.Dockerfile = "Other" },
		"an argument":  func(b *ContextBuild) { b.Args["A"] = "2" },
		"one argument": func(b *ContextBuild) { delete(b.Args, "B") },
		"a label":      func(b *ContextBuild) { b.Labels["l"] = "2" },
		"the target":   func(b *ContextBuild) { b.Target = "x" },
		"the network":  func(b *ContextBuild) { b.NetworkMode = "none" },
		"the cache":    func(b *ContextBuild) { b.NoCache = true },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that nothing is built
		_, err := c.EnsureAll(ctx, []imagecache.Image{
			{Tag: tag, Build: of(func(*ContextBuild) {})}, {Tag: tag, Build: of(change)},
		})
		if refused := errors.Is(err, imagecache.ErrBadPlan); refused != (name != "") {
			t.Errorf("with another %q: %v", name, err)
		}
	}
}

func TestProgressReadsLikeDockersOwn(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"Dockerfile": `
FROM scratch
COPY helper /helper
RUN ["/helper", "say", "one", "two", "unfinished"]
RUN ["/helper", "sleep", "150ms"]
`})
	text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir, NoCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text)
	for _, want := range []string{
		`(?m)^#\d+ \[2/3\] RUN \["/helper", "say", "one", "two", "unfinished"\]$`,
		`(?m)^#\d+ 0\.\d{3} one$`, `(?m)^#\d+ 0\.\d{3} two$`, `(?m)^#\d+ 0\.\d{3} unfinished$`,
		`(?m)^#\d+ DONE 0\.[1-9]s$`,
	} {
		match(t, text, want)
	}
	again, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	match(t, again, `(?m)^#\d+ \[3/3\] RUN .*\n#\d+ CACHED$`)
	for line := range strings.Lines(text + again) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "built ") && !strings.HasPrefix(line, "Successfully tagged ") {
			t.Errorf("odd line %q", line)
		}
	}
}

func TestTheStepsOfABuildAreTold(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN [\"/helper\", \"say\", \"x\"]\n"})
	var told []string
	var log lockedBuffer
	err := s.BuildContext(ContextBuild{Dir: dir, NoCache: true, NetworkMode: "none"})(t.Context(), &imagecache.Build{
		Reference: ref, Attempt: 1, Log: &log, LogPath: "x",
		Step: func(n, total int, name string) {
			if n != len(told)+1 || total < n {
				t.Errorf("step %d/%d after %d", n, total, len(told))
			}
			told = append(told, name)
		},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	match(t, strings.Join(told, "\n"), `(?m)^\[1/2\] COPY helper /helper\n(.*\n)*\[2/2\] RUN .*say`)
}

func TestTheContextArrivesAsItIsWithoutWhatIsIgnored(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{
		"Dockerfile":         "FROM scratch\nCOPY helper /helper\nCOPY . /ctx/\nRUN [\"/helper\", \"tree\", \"/ctx\"]\n",
		".dockerignore":      "helper2\n*.md\n!keep.md\nsecret\ntrees\n!trees/oak/leaf\n!**/deep.keep\n# a comment\n",
		"a.md":               "no",
		"keep.md":            "yes",
		"secret/key":         "no",
		"secret/x/deep.keep": "yes",
		"trees/oak/leaf":     "yes",
		"trees/oak/bark":     "no",
		"trees/fir/leaf":     "no",
		"empty/":             "",
		"bin/tool":           "#!",
		"bin/link":           "-> tool",
		"bin/dangling":       "-> ../nowhere/at/all",
		"bin/absolute":       "-> /etc/hostname",
		"with space/ü.txt":   "ü",
	})
	for name, mode := range map[string]os.FileMode{"bin/tool": 0o4751, "empty": 0o700, "trees": 0o711, "keep.md": 0o600} {
		bits := mode.Perm()
		if mode&0o4000 != 0 {
			bits |= fs.ModeSetuid
		}
		if err := os.Chmod(filepath.Join(dir, name), bits); err != nil {
			t.Fatal(err)
		}
	}
	text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir, NoCache: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := []string{
		`.dockerignore `, `Dockerfile `, `bin drwx`,
		`bin/absolute Lrwxrwxrwx 0:0 -> /etc/hostname`,
		`bin/dangling Lrwxrwxrwx 0:0 -> ../nowhere/at/all`,
		`bin/link Lrwxrwxrwx 0:0 -> tool`,
		`bin/tool urwxr-x--x 0:0 "#!"`,
		`empty drwx------ 0:0`, `helper `,
		`keep.md -rw------- 0:0 "yes"`,
		`secret drwxr-xr-x 0:0`, `secret/x drwxr-xr-x 0:0`, `secret/x/deep.keep -rw-r--r-- 0:0 "yes"`,
		`trees drwx--x--x 0:0`, `trees/oak drwxr-xr-x 0:0`, `trees/oak/leaf -rw-r--r-- 0:0 "yes"`,
		`with space drwxr-xr-x 0:0`, `with space/ü.txt -rw-r--r-- 0:0 "ü"`,
	}
	var got []string
	for line := range strings.Lines(text) {
		if _, after, ok := strings.Cut(line, " tree "); ok && !strings.HasPrefix(after, ". ") {
			got = append(got, strings.TrimSuffix(after, "\n"))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("in the image:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestADockerfileThatIsExcludedOrALinkIsUsedAllTheSame(t *testing.T) {
	s := realEngine(t)
	for name, files := range map[string]map[string]string{
		"excluded": {
			"build/Dockerfile": "FROM scratch\nCOPY helper /helper\n", ".dockerignore": "build\n.dockerignore\n",
		},
		"link": {
			"build/Dockerfile": "-> ../real/file", "real/file": "FROM scratch\nCOPY helper /helper\n",
		},
		"own ignore file": {
			"build/Dockerfile": "FROM scratch\nCOPY helper /helper\n", ".dockerignore": "helper\n", "build/Dockerfile.dockerignore": "nothing\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := buildOf(t, t.Context(), s, newRef(t, s), ContextBuild{Dir: contextOf(t, s, files), Dockerfile: "build/Dockerfile"})
			if err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

func TestAFailingStepIsNamedWithItsLastLines(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"Dockerfile": `
FROM scratch
COPY helper /helper
RUN ["/helper", "say", "innocent", ""]
RUN ["/helper", "fail", "42", "30"]
`})
	text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir})
	var serr *StepError
	if !errors.As(err, &serr) {
		t.Fatalf("got %v, want a *StepError\n%s", err, text)
	}
	t.Log(err)
	if serr.Step != `[3/3] RUN ["/helper", "fail", "42", "30"]` || serr.ExitCode != 42 || serr.Reference != ref {
		t.Errorf("step %q, exit code %d, reference %q", serr.Step, serr.ExitCode, serr.Reference)
	}
	if len(serr.Lines) != 20 || serr.Lines[0] != "line 11" || serr.Lines[19] != "line 30" {
		t.Errorf("last lines %q", serr.Lines)
	}
	match(t, text, `(?m)^#\d+ ERROR: .*exit code: 42$`)
	absent(t, s, ref)
}

func TestAStepThatCannotBeginIsNamedToo(t *testing.T) {
	s := realEngine(t)
	for step, dockerfile := range map[string]string{
		"COPY nope /":   "FROM scratch\nCOPY nope /\n",
		`RUN ["/nope"]`: "FROM scratch\nCOPY helper /helper\nRUN [\"/nope\"]\n",
	} {
		text, err := buildOf(t, t.Context(), s, newRef(t, s), ContextBuild{Dir: contextOf(t, s, map[string]string{"Dockerfile": dockerfile})})
		var serr *StepError
		if !errors.As(err, &serr) || !strings.HasSuffix(serr.Step, step) {
			t.Errorf("got %v (%T), want a *StepError for %s\n%s", err, err, step, text)
		}
		t.Log(err)
	}
}

func TestAFullDiskIsRecognised(t *testing.T) {
	s := realEngine(t)
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN [\"/helper\", \"full\"]\n"})
	_, err := buildOf(t, t.Context(), s, newRef(t, s), ContextBuild{Dir: dir})
	var serr *StepError
	if !errors.As(err, &serr) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want a *StepError that is ENOSPC", err)
	}
}

func TestADockerfileTheEngineCannotUseIsNamedWithItsLine(t *testing.T) {
	s := realEngine(t)
	for name, c := range map[string]struct {
		dockerfile, target string
		line               int
	}{
		"syntax":    {dockerfile: "FROM scratch\n\nFOO bar\n", line: 3},
		"empty":     {dockerfile: ""},
		"no stage":  {dockerfile: "RUN [\"/x\"]\n"},
		"no target": {dockerfile: "FROM scratch\nCOPY helper /\n", target: "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			ref := newRef(t, s)
			dir := contextOf(t, s, map[string]string{"My.Dockerfile": c.dockerfile})
			_, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir, Dockerfile: "My.Dockerfile", Target: c.target})
			var derr *DockerfileError
			if !errors.As(err, &derr) || derr.Line != c.line || derr.Dockerfile != "My.Dockerfile" || derr.Message == "" {
				t.Errorf("got %v, want a *DockerfileError for line %d", err, c.line)
			}
			t.Log(err)
			absent(t, s, ref)
		})
	}
}

func TestABaseThatIsMissingOrOfAnotherPlatformBuildsNothing(t *testing.T) {
	s := realEngine(t)
	base := newRef(t, s)
	mustBuild(t, s, base, "FROM scratch\nCOPY helper /helper\n")
	foreign := newRef(t, s)
	mustBuild(t, realEngine(t, WithPlatform("linux/s390x")), foreign, "FROM scratch\nCOPY Dockerfile /\n")
	missing := "imagelock-test/missing-" + unique()
	for name, c := range map[string]struct {
		dockerfile string
		want       error
		line       int
		base       string
	}{
		"from":       {"FROM " + missing + "\nCOPY helper /\n", ErrMissingBase, 1, missing},
		"copy":       {"FROM " + base + "\n# x\nCOPY --from=" + missing + " / /\n", ErrMissingBase, 3, missing},
		"mount":      {"FROM " + base + "\nRUN --mount=type=bind,from=" + missing + ",target=/x [\"/helper\"]\n", ErrMissingBase, 2, missing},
		"arg":        {"ARG B=" + missing + "\nFROM ${B}:v${V:-7}\nCOPY helper /\n", ErrMissingBase, 2, missing + ":v7"},
		"unresolved": {"ARG B=x\nFROM ${B#y}\nCOPY helper /\n", ErrUnresolvedBase, 2, "${B#y}"},
		"no name":    {"FROM Not/A:Name:At:All\nCOPY helper /\n", ErrUnresolvedBase, 1, "Not/A:Name:At:All"},
		"platform":   {"FROM " + foreign + "\nCOPY helper /\n", nil, 1, foreign},
	} {
		t.Run(name, func(t *testing.T) {
			ref := newRef(t, s)
			text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: contextOf(t, s, map[string]string{"Dockerfile": c.dockerfile})})
			var berr *BaseError
			if !errors.As(err, &berr) || berr.Line != c.line || berr.Base != c.base {
				t.Fatalf("got %v, want a *BaseError for %s in line %d", err, c.base, c.line)
			}
			t.Log(err)
			var perr *PlatformError
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &perr) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if text != "" {
				t.Errorf("the build began:\n%s", text)
			}
		})
	}
}

func TestBasesInTheStoreAreUsed(t *testing.T) {
	s := realEngine(t)
	base, tool := newRef(t, s), newRef(t, s)
	mustBuild(t, s, base, "FROM scratch\nCOPY helper /helper\n")
	mustBuild(t, s, tool, "FROM scratch\nCOPY helper /tool\n")
	img, err := s.Client().ImageInspect(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	ref := newRef(t, s)
	mustBuild(t, s, ref, "ARG BASE="+base+"\nFROM --platform=$TARGETPLATFORM $BASE AS x\n"+
		"FROM x\nCOPY --from="+tool+" /tool /tool\nCOPY --from=0 /helper /again\nRUN [\"/tool\", \"env\", \"x\"]\n")
	child, err := s.Client().ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if child.RootFS.Layers[0] != img.RootFS.Layers[0] {
		t.Errorf("layers %v are not on top of %v", child.RootFS.Layers, img.RootFS.Layers)
	}
}

func TestABadContextIsRefused(t *testing.T) {
	// No engine is needed: nothing is asked of it.
	s := &Store{}
	good := contextOf(t, nil, map[string]string{"Dockerfile": "FROM scratch\n", "sub/Dockerfile": "FROM scratch\n", "out": "-> ../../etc/passwd", "dir/": ""})
	file := filepath.Join(good, "Dockerfile")
	for name, c := range map[string]struct {
		dir, dockerfile string
		want            error
	}{
		"none":           {"", "", nil},
		"missing":        {filepath.Join(good, "nope"), "", fs.ErrNotExist},
		"a file":         {file, "", contextdir.ErrNotADir},
		"no Dockerfile":  {good, "nope", fs.ErrNotExist},
		"above":          {filepath.Join(good, "sub"), "../Dockerfile", contextdir.ErrOutside},
		"absolute":       {good, file, contextdir.ErrOutside},
		"a link outside": {good, "out", nil},
		"a directory":    {good, "dir", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := buildOf(t, t.Context(), s, "docker.io/library/x:y", ContextBuild{Dir: c.dir, Dockerfile: c.dockerfile})
			var cerr *ContextError
			if !errors.As(err, &cerr) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want a *ContextError that is %v", err, c.want)
			}
			t.Log(err)
		})
	}
}

func TestADockerfileMayBeAText(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	spec := ContextBuild{
		Dir:        contextOf(t, nil, map[string]string{"Dockerfile": "broken", "content": "x", "excluded": "", ".dockerignore": "excluded\n"}),
		Dockerfile: ".other", DockerfileText: "FROM scratch AS a\nCOPY content /\nFROM scratch AS b\n", Target: "a",
	}
	if _, err := buildOf(t, t.Context(), s, ref, spec); err != nil {
		t.Fatal(err)
	}
	first, err := spec.Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spec.DockerfileText += "COPY missing /\n"
	if other, err := spec.Inputs(t.Context()); err != nil || other == first {
		t.Errorf("%s, %v: the text does not count", other, err)
	}
	for want, bad := range map[error]ContextBuild{
		contextdir.ErrOutside: {Dir: spec.Dir, Dockerfile: "../x", DockerfileText: "FROM scratch\n"},
		nil:                   {Dir: spec.Dir, DockerfileText: strings.Repeat("#", contextdir.Limit+1)},
	} {
		_, err := buildOf(t, t.Context(), s, ref, bad)
		var cerr *ContextError
		if !errors.As(err, &cerr) || want != nil && !errors.Is(err, want) {
			t.Errorf("got %v, want a *ContextError that is %v", err, want)
		}
	}
}

func TestACancelledBuildEndsHereAndInTheEngine(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	mark := unique()
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN [\"/helper\", \"sleep\", \"60s\", \"" + mark + "\"]\n"})
	before := runtime.NumGoroutine()
	why := errors.New("enough of it")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var progress lockedBuffer
	done := make(chan error, 1)
	go func() {
		_, err := buildOf(t, ctx, s, ref, ContextBuild{Dir: dir, Progress: &progress})
		done <- err
	}()
	waitFor(t, "the step to run", func() bool { return strings.Contains(progress.String(), "sleeping") })
	local := len(processes(mark)) > 0
	start := time.Now()
	cancel(why)
	var err error
	select {
	case err = <-done:
	case <-time.After(2 * time.Second):
		t.Fatal("the build did not return within two seconds")
	}
	t.Logf("returned after %v: %v", time.Since(start), err)
	var eerr *EngineError
	if !errors.As(err, &eerr) || !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an *EngineError that is %v and context.Canceled", err, why)
	}
	if local { // the engine's processes can be seen
		waitFor(t, "the step to be stopped", func() bool { return len(processes(mark)) == 0 })
		t.Logf("stopped after %v", time.Since(start))
	}
	absent(t, s, ref)
	s.Close()
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func TestACancelledContextBuildsNothing(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := buildOf(t, ctx, s, ref, ContextBuild{Dir: contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /\n"})})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	absent(t, s, ref)
}

type failingWriter struct{ writes int }

func (w *failingWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, errors.New("terminal is gone")
}

func TestAFailingProgressWriterDoesNotFailTheBuild(t *testing.T) {
	s := realEngine(t)
	w := &failingWriter{}
	text, err := buildOf(t, t.Context(), s, newRef(t, s), ContextBuild{
		Dir:      contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN [\"/helper\", \"say\", \"x\", \"y\"]\n"}),
		Progress: w, NoCache: true,
	})
	if err != nil || w.writes != 1 {
		t.Errorf("%v, after %d writes", err, w.writes)
	}
	match(t, text, `(?m)^#\d+ \d\.\d+ x$`)
}

type stoppedWriter struct{ begun, release chan struct{} }

func (w stoppedWriter) Write(b []byte) (int, error) {
	close(w.begun)
	<-w.release
	return len(b), nil
}

func TestAStoppedTerminalDoesNotKeepACancelledBuildFromReturning(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	w := stoppedWriter{make(chan struct{}), make(chan struct{})}
	defer close(w.release)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\n"})
	done := make(chan error, 1)
	go func() {
		_, err := buildOf(t, ctx, s, ref, ContextBuild{Dir: dir, Progress: w})
		done <- err
	}()
	<-w.begun
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the build did not return")
	}
}

func TestAFileThatCannotBeReadLeavesNoImage(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /\n", "zz/Dockerfile": ""})
	fifo(t, filepath.Join(dir, "zz", "pipe"))
	_, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir})
	var cerr *ContextError
	if !errors.As(err, &cerr) || cerr.Path != "zz/pipe" || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want a *ContextError for zz/pipe", err)
	}
	t.Log(err)
	absent(t, s, ref)
}
