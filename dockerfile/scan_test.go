package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imagelock/imagelock/imagecache"
)

func scanText(t testing.TB, text string, opts Options) *Needs {
	t.Helper()
	n, err := Scan(strings.NewReader(text), opts)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// says is what is known of mounts, short: "id@target", with what is not the rule.
func says(mounts []imagecache.Mount) []string {
	var all []string
	for _, m := range mounts {
		s := m.ID + "@" + m.Target
		if m.Sharing != imagecache.SharingShared {
			s += " " + m.Sharing.String()
		}
		if m.Namespace != "" {
			s += " ns=" + m.Namespace
		}
		if m.From != "" {
			s += " from=" + m.From
		}
		for name, n := range map[string]*uint64{"uid": m.UID, "gid": m.GID} {
			if n != nil {
				s += fmt.Sprintf(" %s=%d", name, *n)
			}
		}
		if m.Mode != nil {
			s += fmt.Sprintf(" mode=%o", *m.Mode)
		}
		if m.Unresolved != "" {
			s += " ? " + m.Unresolved
		}
		all = append(all, s)
	}
	return all
}

func TestMountsAreReadAsBuildKitReadsThem(t *testing.T) {
	const run = "RUN --mount=type=cache,"
	for _, test := range []struct {
		name, file string
		opts       Options
		want       []string
	}{
		{"default id", "FROM scratch\n" + run + "target=/a/../b/ x", Options{}, []string{"/b@/a/../b/"}},
		{"id", "FROM scratch\n" + run + "id=x,dst=/b x", Options{}, []string{"x@/b"}},
		{"relative target", "FROM scratch\nWORKDIR /w\nWORKDIR v\n" + run + "target=b x", Options{}, []string{"b@/w/v/b"}},
		{"relative target, unknown directory", "FROM alpine\n" + run + "target=b x", Options{}, []string{"b@b"}},
		{"several", "FROM scratch\nRUN --mount=type=cache,target=/a,sharing=locked --mount=type=cache,target=/b,sharing=private --mount=type=tmpfs,target=/c x", Options{},
			[]string{"/a@/a locked", "/b@/b private"}},
		{"owner", "FROM scratch\n" + run + "target=/a,uid=7,mode=0700 x", Options{}, []string{"/a@/a uid=7 mode=700"}},
		{"owner of a part", "FROM scratch AS s\nFROM scratch\n" + run + "target=/a,uid=7,from=s,source=/x x", Options{}, []string{"/a@/a from=s"}},
		{"from scratch", "FROM scratch\n" + run + "target=/a,from=scratch x", Options{}, []string{"/a@/a"}},
		{"namespace", "FROM scratch\n" + run + "target=/a x", Options{Args: map[string]string{"BUILDKIT_CACHE_MOUNT_NS": "n"}}, []string{"/a@/a ns=n"}},
		{"argument", "FROM scratch\nARG S=api\n" + run + "id=t-${S},target=/a x", Options{}, []string{"t-api@/a"}},
		{"argument given", "FROM scratch\nARG S=api\n" + run + "id=t-${S},target=/a x", Options{Args: map[string]string{"S": "w"}}, []string{"t-w@/a"}},
		{"argument not declared", "FROM scratch\n" + run + "id=t-${S},target=/a x", Options{Args: map[string]string{"S": "w"}}, []string{"t-@/a"}},
		{"argument of before the first FROM", "ARG S=g\nFROM scratch\n" + run + "id=1$S,target=/a x\nARG S\n" + run + "id=2$S,target=/a x", Options{}, []string{"1@/a", "2g@/a"}},
		{"default of a default", "ARG A=1\nARG B=$A-2\nFROM scratch\nARG B\nARG C=${B:-x}-3\n" + run + "id=$C,target=/a x", Options{}, []string{"1-2-3@/a"}},
		{"ENV before ARG's successor", "FROM scratch\nARG S=a\nENV S=e\n" + run + "id=$S,target=/a x", Options{}, []string{"e@/a"}},
		{"ARG after ENV", "FROM scratch\nENV S=e\nARG S=a\n" + run + "id=$S,target=/a x", Options{}, []string{"a@/a"}},
		{"inherited", "FROM scratch AS b\nARG S=a\nENV E=e\nFROM b\n" + run + "id=$S$E,target=/a x", Options{}, []string{"ae@/a"}},
		{"not inherited", "FROM scratch AS b\nARG S=a\nFROM scratch\nCOPY --from=b /x /\n" + run + "id=1$S,target=/a x", Options{}, []string{"1@/a"}},
		{"platform", "FROM scratch\nARG TARGETARCH\nARG TARGETVARIANT\n" + run + "id=$TARGETARCH-$TARGETVARIANT,target=/a x", Options{Platform: "linux/arm/v7"}, []string{"arm-v7@/a"}},
		{"the base may set it", "FROM rust\n" + run + "target=$CARGO_HOME/registry x", Options{},
			[]string{"/registry@/registry ? the base image may set $CARGO_HOME"}},
		{"nothing but what the base may set", "FROM golang\n" + run + "target=$GOCACHE x", Options{}, []string{".@ ? the base image may set $GOCACHE"}},
		{"the base sets it", "FROM rust\n" + run + "target=$CARGO_HOME/registry x", Options{BaseEnv: func(string, string) ([]string, bool) { return []string{"CARGO_HOME=/cargo"}, true }},
			[]string{"/cargo/registry@/cargo/registry"}},
		{"by way of another", "FROM rust\nENV D=$CARGO_HOME/x\n" + run + "target=$D x", Options{}, []string{"/x@/x ? the base image may set $D"}},
		{"set by the Dockerfile", "FROM rust\nENV CARGO_HOME=/c\n" + run + "target=$CARGO_HOME/registry x", Options{}, []string{"/c/registry@/c/registry"}},
		{"old frontend", "FROM scratch\nARG S=api\n" + run + "id=t-${S},target=/a x", Options{OldFrontend: true}, []string{"t-${S}@/a"}},
		{"old frontend, and a newer one asked for", "# syntax=docker/dockerfile:1.3\nFROM scratch\nARG S=api\n" + run + "id=t-${S},target=/a x", Options{OldFrontend: true}, []string{"t-api@/a"}},
		{"an old one asked for", "# syntax=docker/dockerfile:1.2\nFROM scratch\nARG S=api\n" + run + "id=t-${S},target=/a x", Options{}, []string{"t-${S}@/a"}},
		{"heredoc", "FROM scratch\n" + run + "target=/a <<EOF\nRUN --mount=type=cache,target=/no\nEOF\n" + run + "target=/b x", Options{}, []string{"/a@/a", "/b@/b"}},
		{"continued", "FROM scratch\nRUN \\\n  # a comment\n  --mount=type=cache,target=/a \\\n  x", Options{}, []string{"/a@/a"}},
		{"JSON", "FROM scratch\n" + run + `target=/a ["/x", "--mount=type=cache,target=/no"]`, Options{}, []string{"/a@/a"}},
		{"case", "from scratch\nrun --mount=Type=CACHE,Target=/a,sharing=LOCKED x", Options{}, []string{"/a@/a locked"}},
		{"strange id", "FROM scratch\n" + run + "id=../../etc,target=/a x", Options{}, []string{"../../etc@/a"}},
		{"long id", "FROM scratch\n" + run + "id=" + strings.Repeat("x", 10_000) + ",target=/a x", Options{}, []string{strings.Repeat("x", 10_000) + "@/a"}},
		{"stages that are not needed", "FROM scratch AS a\n" + run + "target=/a x\nFROM scratch AS b\n" + run + "target=/b x", Options{Target: "B"}, []string{"/b@/b"}},
		{"an earlier target", "FROM scratch AS a\n" + run + "target=/a x\nFROM a\n" + run + "target=/b x", Options{Target: "a"}, []string{"/a@/a"}},
		{"ONBUILD of the base", "FROM scratch AS a\nONBUILD RUN --mount=type=cache,target=/o x\nFROM a\n" + run + "target=/b x", Options{},
			[]string{"@ ? line 2: ONBUILD RUN --mount=type=cache,target=/o x", "/b@/b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := says(scanText(t, test.file, test.opts).Mounts()); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestMountsOfOneRunAreTold(t *testing.T) {
	n := scanText(t, "FROM scratch\nRUN --mount=type=cache,target=/a --mount=type=cache,target=/b x\nRUN --mount=type=cache,target=/a x\n", Options{})
	m := n.Mounts()
	if len(m) != 3 || m[0].Run != m[1].Run || m[1].Run == m[2].Run || m[2].Run != 3 {
		t.Errorf("%+v", m)
	}
}

func TestRunsAreToldAsTheyAreWritten(t *testing.T) {
	n := scanText(t, "FROM alpine\nRUN --network=none \\\n # --mount no\n --mount=type=cache,id=a-$X-$NONE,target=/$A/a \\\n --mount=type=tmpfs,target=/t --mount=type=cache,target=/b \\\n make\nFROM scratch\nARG X=1\nRUN --mount=type=cache,id=a-$X-$NONE,target=/c <<E\nmake it\nE\n", Options{})
	runs := n.Stages[0].Runs
	if len(n.Stages) != 1 || len(runs) != 1 || runs[0].Line != 9 || runs[0].Command != "<<E\nmake it\n" {
		t.Fatalf("%+v", n.Stages)
	}
	if m := runs[0].Mounts[0]; m.Line != 9 || m.WrittenID != "a-$X-$NONE" || m.ID != "a-1-" || !slices.Equal(m.Unset, []string{"NONE"}) || m.Literal {
		t.Errorf("%+v", m)
	}
	n = scanText(t, "FROM alpine\nRUN --network=none \\\n # --mount no\n --mount=type=cache,id=a-$X,target=/$A/a \\\n --mount=type=tmpfs,target=/t --mount=type=cache,target=/b \\\n make\n", Options{})
	run := n.Stages[0].Runs[0]
	if run.Line != 2 || run.Command != "make" || len(run.Mounts) != 2 || run.Mounts[0].Line != 4 || run.Mounts[1].Line != 5 {
		t.Fatalf("%+v", run)
	}
	if m := run.Mounts[0]; m.WrittenID != "a-$X" || m.WrittenTarget != "/$A/a" || m.Unset != nil {
		t.Errorf("%+v", m)
	}
}

const workspace = `# syntax=docker/dockerfile:1.7
ARG RUST=1.90
FROM --platform=$BUILDPLATFORM rust:${RUST} AS chef
FROM chef AS planner
COPY Cargo.toml Cargo.lock ./
COPY crates/${NONE}x crates/
FROM chef AS builder
ARG SERVICE
COPY --from=planner /recipe.json .
RUN --mount=type=bind,source=tools,target=/tools --mount=type=cache,target=/registry --mount=type=bind,from=busybox,target=/bb x
FROM alpine AS assets
ADD --exclude=*.md ["https://example.com/x", "assets/", "a b", "/"]
FROM debian
COPY --from=builder /app /
COPY --from=assets / /
COPY --from=nginx:1 /etc/nginx /x
COPY <<F /y
hello
F
`

func TestStagesBasesAndCopiesAreTold(t *testing.T) {
	n := scanText(t, workspace, Options{Args: map[string]string{"RUST": "2"}, Platform: "linux/arm64", BuildPlatform: "linux/amd64"})
	if n.Syntax != "docker/dockerfile:1.7" {
		t.Errorf("syntax %q", n.Syntax)
	}
	var bases []string
	for _, b := range n.Bases() {
		bases = append(bases, strings.TrimSpace(fmt.Sprint(b.Line, " ", b.Reference, " ", b.Platform)))
	}
	if want := []string{"3 rust:2 linux/amd64", "10 busybox", "11 alpine", "13 debian", "16 nginx:1"}; !slices.Equal(bases, want) {
		t.Errorf("bases %q, want %q", bases, want)
	}
	var copies []string
	for _, s := range n.Stages {
		for _, c := range s.Copies {
			from := "context"
			if c.From != nil {
				from = fmt.Sprint(c.From.Stage, c.From.Reference)
			}
			copies = append(copies, fmt.Sprintf("%d %d %s %q%q %s", s.Index, c.Line, from, c.Paths, c.Exclude, c.Unresolved))
		}
	}
	want := []string{
		`1 5 context ["Cargo.toml" "Cargo.lock"][] `,
		`1 6 context ["crates/x"][] the base image may set $NONE`,
		`2 9 1 ["/recipe.json"][] `,
		`2 10 context ["tools"][] `, `2 10 -1busybox ["/"][] `,
		`3 12 context ["assets/" "a b"]["*.md"] `,
		`4 14 2 ["/app"][] `, `4 15 3 ["/"][] `, `4 16 -1nginx:1 ["/etc/nginx"][] `,
	}
	if !slices.Equal(copies, want) {
		t.Errorf("copies\n%s\nwant\n%s", strings.Join(copies, "\n"), strings.Join(want, "\n"))
	}
	if got, want := n.Parallel(), [][2]int{{0, 3}, {1, 3}, {2, 3}}; !reflect.DeepEqual(got, want) {
		t.Errorf("in parallel %v, want %v", got, want)
	}
	if s := n.Stages[2]; s.Name != "builder" || !slices.Equal(s.Needs, []int{0, 1}) || s.Base.Stage != 0 {
		t.Errorf("%+v", s)
	}
}

// bases are images as an engine knows them, by reference and platform: their ONBUILD
// instructions, or why there is no telling.
type bases map[[2]string]any

func (bases) Platform() string      { return "linux/amd64" }
func (bases) BuildPlatform() string { return "linux/arm64" }
func (bases) OldFrontend() bool     { return false }

func (b bases) BaseConfig(_ context.Context, reference, platform string) (env, onBuild []string, err error) {
	switch v := b[[2]string{reference, platform}].(type) {
	case error:
		return nil, nil, v
	case string:
		return []string{"CARGO_HOME=/cargo"}, []string{v}, nil
	}
	return nil, nil, fmt.Errorf("%s: %w", reference, imagecache.ErrMissingBase)
}

// TestWhatAnONBUILDTakesFilesFromIsNeeded: stages and images.
func TestWhatAnONBUILDTakesFilesFromIsNeeded(t *testing.T) {
	const file = "FROM scratch AS one\nFROM two AS two\nRUN --mount=type=cache,target=/c x\nFROM three AS three\nFROM base AS app\n"
	for name, c := range map[string]struct {
		file string
		base any
		want string // the stages, the bases, the mounts
	}{
		"absent":          {file, nil, "[3] [base] 0"},
		"nothing":         {file, "RUN from=two", "[3] [base] 0"},
		"COPY":            {file, "COPY --from=Two / /", "[1 3] [two base] 1"},
		"ADD":             {file, "ADD a /", "[3] [base] 0"},
		"by number":       {file, "COPY --from=1 / /", "[1 3] [two base] 1"},
		"a mount":         {file, "RUN --mount=type=bind,from=two,target=/x y", "[1 3] [two base] 1"},
		"an image":        {file, "COPY --from=nginx / /", "[3] [base nginx] 0"},
		"nobody can tell": {file, "FOO --from=two", "[0 1 2 3] [two three base] 2"},
		"not known":       {file, errors.New("engine is gone"), "[0 1 2 3] [two three base] 2"},
		"of a stage":      {file + "ONBUILD COPY --from=two / /\nFROM app\n", nil, "[1 3 4] [two base] 1"},
		"not of its own":  {file + "ONBUILD COPY --from=two / /\n", nil, "[3] [base] 0"},
	} {
		opts := Options{}.For(t.Context(), bases{{"base", "linux/amd64"}: c.base})
		n := scanText(t, c.file, opts)
		var stages []int
		var names []string
		for _, s := range n.Stages {
			stages = append(stages, s.Index)
		}
		for _, b := range n.Bases() {
			names = append(names, b.Reference)
		}
		if got := fmt.Sprint(stages, " ", names, " ", len(n.Mounts())); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	later := Options{Target: "app"}.For(t.Context(), bases{{"base", "linux/amd64"}: "COPY --from=later / /"})
	if _, err := Scan(strings.NewReader(file+"FROM scratch AS later\n"), later); !errors.Is(err, ErrCycle) {
		t.Errorf("a later stage: %v", err)
	}
}

// TestABaseIsAskedForAsFROMHasIt: for its own platform.
func TestABaseIsAskedForAsFROMHasIt(t *testing.T) {
	engine := bases{{"rust", "linux/arm64"}: "USER x", {"rust", "linux/amd64"}: errors.New("another")}
	n := scanText(t, "FROM --platform=$BUILDPLATFORM rust\nRUN --mount=type=cache,target=$CARGO_HOME x\n", Options{}.For(t.Context(), engine))
	if m := n.Mounts(); len(m) != 1 || m[0].Target != "/cargo" || m[0].Unresolved != "" {
		t.Errorf("%+v", m)
	}
	if u := n.Stages[0].Unknown; len(u) != 1 || u[0].Why != "ONBUILD USER x" {
		t.Errorf("%v", u)
	}
}

// TestAContextIsToldAsItIsWritten: it may have other names than its own.
func TestAContextIsToldAsItIsWritten(t *testing.T) {
	const file = "FROM alpine AS a\nFROM alpine:latest\nCOPY --from=docker.io/library/alpine / /\nRUN --mount=from=library/alpine,target=/x y\nCOPY --from=a / /\n"
	var got []string
	for _, b := range scanText(t, file, Options{Contexts: map[string]string{"alpine": "docker-image://x"}}).Bases() {
		got = append(got, fmt.Sprint(b.Line, " ", b.Reference, " ", b.Context, " ", b.Written))
	}
	want := []string{"1 x alpine alpine", "2 x alpine alpine:latest", "3 x alpine docker.io/library/alpine", "4 x alpine library/alpine"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	for _, test := range []struct {
		name, file string
		opts       Options
		is         error
		line       int
	}{
		{"empty", "", Options{}, ErrSyntax, 0},
		{"no FROM", "ARG X=1\n", Options{}, ErrSyntax, 0},
		{"unknown instruction", "FROM scratch\nFOO bar\n", Options{}, ErrSyntax, 2},
		{"before FROM", "RUN x\nFROM scratch\n", Options{}, ErrSyntax, 1},
		{"mount type", "FROM scratch\nENV A=b\nRUN --mount=type=nonsense,target=/x x\n", Options{}, ErrSyntax, 3},
		{"mount field", "FROM scratch\nRUN --mount=type=cache,tarket=/x x\n", Options{}, ErrSyntax, 2},
		{"sharing", "FROM scratch\nRUN --mount=type=cache,target=/x,sharing=some x\n", Options{}, ErrSyntax, 2},
		{"no target", "FROM scratch\nRUN --mount=type=cache,id=x x\n", Options{}, ErrSyntax, 2},
		{"root", "FROM scratch\nRUN --mount=type=cache,target=/ x\n", Options{}, ErrSyntax, 2},
		{"heredoc without end", "FROM scratch\nRUN <<EOF\nx\n", Options{}, ErrSyntax, 2},
		{"variable without end", "FROM scratch\nRUN --mount=type=cache,target=/x${y x\n", Options{}, ErrSyntax, 2},
		{"empty base", "ARG B\nFROM $B\n", Options{}, ErrSyntax, 2},
		{"platform", "FROM --platform=a/b/c/d scratch\n", Options{}, ErrSyntax, 1},
		{"target", "FROM scratch AS a\nFROM scratch AS b\n", Options{Target: "c"}, ErrNoTarget, 0},
		{"option", "FROM scratch\n", Options{Platform: "a/b/c/d/e"}, ErrBadOption, 0},
		{"itself", "FROM scratch AS a\nCOPY --from=a / /\n", Options{}, ErrCycle, 2},
		{"later", "FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\nRUN x\n", Options{}, ErrCycle, 2},
		{"copies from a variable", "FROM scratch\nCOPY --from=$x / /\n", Options{}, ErrSyntax, 2},
		{"NUL", "FROM scratch\nRUN --mount=type=cache,target=/\x00 x\n\x00", Options{}, ErrSyntax, 3},
		{"too large", "#" + strings.Repeat("x", maxSize), Options{}, ErrTooLarge, 0},
		{"line too long", "FROM scratch\n\nRUN " + strings.Repeat("x", 1<<16) + "\nRUN x\n", Options{}, ErrSyntax, 3},
		{"line too long in a continued one", "FROM scratch\nRUN x \\\n  y " + strings.Repeat("x", 1<<16) + "\n", Options{}, ErrSyntax, 3},
		{"line too long by one", "FROM scratch\nRUN " + strings.Repeat("x", 1<<16-5) + "y\n", Options{}, ErrSyntax, 2},
		{"doubling", "FROM scratch\nENV A=xxxxxxxxxxxxxxxx\n" + strings.Repeat("ENV A=$A$A$A$A\n", 40), Options{}, ErrTooLarge, 11},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Scan(strings.NewReader(test.file), test.opts)
			var e *Error
			if !errors.Is(err, test.is) || !errors.As(err, &e) || e.Line != test.line {
				t.Errorf("%v, want line %d", err, test.line)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Errorf("%q is not fit for a log", err)
			}
		})
	}
	if _, err := Scan(iotest.ErrReader(errors.ErrUnsupported), Options{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// FuzzScan: whatever the file, there is an answer, soon, which imagecache takes.
func FuzzScan(f *testing.F) {
	f.Add(workspace, "", "SERVICE", "api", false)
	f.Add("FROM scratch AS a\nONBUILD RUN --mount=type=cache,target=/o x\nFROM a\nRUN --mount=type=cache,id=$X,target=/x x", "a", "X", "y", true)
	f.Add("# escape=`\nFROM scratch\nRUN --mount=type=cache`\n,target=/a <<EOF\nx\nEOF", "0", "BUILDKIT_CACHE_MOUNT_NS", "n", false)
	f.Fuzz(func(t *testing.T, file, target, arg, value string, old bool) {
		n, err := Scan(strings.NewReader(file), Options{Target: target, Args: map[string]string{arg: value}, OldFrontend: old})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || n != nil {
				t.Fatalf("%v, %v", n, err)
			}
			return
		}
		if len(n.Stages) == 0 {
			t.Fatal("no stages")
		}
		seen := map[int]bool{}
		for _, s := range n.Stages {
			for _, j := range s.Needs {
				if !seen[j] {
					t.Errorf("stage %d needs %d, which does not come before", s.Index, j)
				}
			}
			seen[s.Index] = true
		}
		n.Parallel()
		n.Bases()
		for _, m := range n.Mounts() {
			if m.ID == "" && m.Unresolved == "" {
				t.Errorf("%+v has no id", m)
			}
			m.Key()
		}
	})
}
