package lint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/dockerfile"
)

// found is what is found, short: "code file:line".
func found(t testing.TB, files ...File) (all []string) {
	t.Helper()
	findings, err := Check(files...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s %v", f.Code, f.Place))
		if f.Severity < Slow || f.Severity > Hangs || f.Reason == "" || f.Remedy == "" || len(f.Services) == 0 || f.Line == 0 {
			t.Errorf("%+v is not complete", f)
		}
		t.Log(f)
	}
	return all
}

// plans of one Dockerfile, F, whose lines begin after the first newline. With services it
// is built for each, with SERVICE as argument.
var plans = []struct {
	name, file string
	services   []string
	opts       dockerfile.Options
	want       []string
}{
	// parallel-stages
	{name: "stages at the same time", file: `
FROM scratch AS a
RUN --mount=type=cache,target=/c x
FROM scratch AS b
RUN x && \
  # --mount here is a comment's
  y
RUN --network=none \
  # and --mount here
  --mount=type=tmpfs,target=/t \
  --mount=type=cache,target=/c x
FROM scratch
COPY --from=a / /
COPY --from=b / /
`, want: []string{"parallel-stages F:2", "parallel-stages F:10"}},
	{name: "stages after each other", file: `
FROM scratch AS a
RUN --mount=type=cache,target=/c x
FROM a AS b
RUN --mount=type=cache,target=/c x
FROM scratch
COPY --from=a / /
COPY --from=b / /
RUN --mount=type=cache,target=/c x
`},
	{name: "stages with caches of their own, locked or private", file: `
FROM scratch AS a
RUN --mount=type=cache,id=a,target=/c --mount=type=cache,target=/l,sharing=locked --mount=type=cache,target=/p,sharing=private x
FROM scratch AS b
RUN --mount=type=cache,id=b,target=/c --mount=type=cache,target=/l,sharing=locked --mount=type=cache,target=/p,sharing=private x
FROM scratch AS unneeded
RUN --mount=type=cache,id=a,target=/c x
FROM scratch
COPY --from=a / /
COPY --from=b / /
`},
	{name: "stages with a base's variable", file: `
FROM go AS base
FROM base AS a
RUN --mount=type=cache,target=$GOCACHE x
FROM base AS b
RUN --mount=type=cache,target=$GOCACHE x
FROM other AS c
RUN --mount=type=cache,target=$GOCACHE x
FROM scratch
COPY --from=a / /
COPY --from=b / /
COPY --from=c / /
`, want: []string{"parallel-stages F:3", "parallel-stages F:5"}},
	{name: "stages with a base's variable, by way of another", file: `
FROM other AS unneeded
FROM go AS base
FROM base AS a
RUN --mount=type=cache,target=$GOCACHE x
FROM go AS b
RUN --mount=type=cache,target=$GOCACHE x
FROM scratch
COPY --from=a / /
COPY --from=b / /
`, want: []string{"parallel-stages F:4", "parallel-stages F:6"}},
	{name: "a stage that is the first, by way of another", file: `
FROM go AS base
FROM base AS a
RUN --mount=type=cache,target=$GOCACHE x
FROM go AS b
RUN --mount=type=cache,target=$GOCACHE x
FROM scratch
COPY --from=a / /
COPY --from=b / /
`, want: []string{"parallel-stages F:3", "parallel-stages F:5"}},

	// shared-target
	{name: "a target for all", services: []string{"api", "web"}, file: `
FROM rust
ARG SERVICE
RUN --mount=type=cache,target=/usr/local/cargo \
    --mount=type=cache,target=/build/target cargo build -p $SERVICE
`, want: []string{"shared-target F:4"}},
	{name: "a locked target for all", services: []string{"api", "web"}, file: `
FROM scratch
RUN --mount=type=cache,id=t,target=/build/target,sharing=locked make
`, want: []string{"shared-target F:2"}},
	{name: "a target each", services: []string{"api", "web"}, file: `
FROM scratch
ARG SERVICE
RUN --mount=type=cache,id=t-$SERVICE,target=/build/target make
RUN --mount=type=cache,id=p,sharing=private,target=/build/target make
RUN --mount=type=cache,target=/build/targets make
`},
	{name: "a target of one service", file: "\nFROM scratch\nRUN --mount=type=cache,target=/target make\n"},

	// id-variable
	{name: "an argument that is not declared", file: `
ARG SERVICE=api
FROM scratch
RUN --mount=type=cache,id=c-${SERVICE},target=/c x
ARG SERVICE
RUN --mount=type=cache,id=c-${SERVICE},target=/c x
`, want: []string{"id-variable F:3"}},
	{name: "of a target", file: "\nFROM scratch\nRUN --mount=type=cache,target=/c/$X x\nRUN --mount=type=cache,id=x,target=/c/$X x\n", want: []string{"id-variable F:2"}},
	{name: "of a base", file: "\nFROM alpine\nRUN --mount=type=cache,id=c-$X,target=/c x\n"},
	{name: "by an old engine", file: `
FROM scratch
ARG SERVICE=api
RUN --mount=type=cache,id=c-${SERVICE},target=/c x
RUN --mount=type=cache,id=c-$,target=/c x
`, opts: dockerfile.Options{OldFrontend: true}, want: []string{"id-variable F:3"}},
	{name: "by an old engine with a newer frontend", file: "# syntax=docker/dockerfile:1.4\nFROM scratch\nARG S=api\nRUN --mount=type=cache,id=c-$S,target=/c x\n", opts: dockerfile.Options{OldFrontend: true}},
	{name: "by any newer", file: "# syntax=docker.io/docker/dockerfile:1\nFROM scratch\nARG S=api\nRUN --mount=type=cache,id=c-$S,target=/c x\n", opts: dockerfile.Options{OldFrontend: true}},
	{name: "with an older frontend", file: "# syntax=docker/dockerfile:1.2-labs@sha256:0\nFROM scratch\nARG S=api\nRUN --mount=type=cache,id=c-$S,target=/c x\n", want: []string{"id-variable F:4"}},

	// cargo-registry
	{name: "registry alone", file: `
FROM rust
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    cargo build
RUN --mount=type=cache,target=/root/.cargo/registry/cache/ make
RUN --mount=type=cache,target=$CARGO_HOME/registry make
RUN --mount=type=cache,target=/x/registry <<EOF
set -e
cargo fetch
EOF
`, want: []string{"cargo-registry F:2", "cargo-registry F:5", "cargo-registry F:6", "cargo-registry F:7"}},
	{name: "registry with all, locked, private, or another's", file: `
FROM rust
RUN --mount=type=cache,target=/cargo --mount=type=cache,target=/cargo/registry cargo build
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked cargo build
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=private cargo build
RUN --mount=type=cache,target=/usr/local/cargo/registry2 cargo build
RUN --mount=type=cache,target=/srv/registry/x cargo build
RUN --mount=type=cache,target=/srv/registry <<EOF
# cargo build
registry mycargo
EOF
`},

	// apt-unlocked
	{name: "apt", file: `
FROM debian
RUN --mount=type=cache,target=/var/cache/apt \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=shared \
    apt-get update && apt-get install -y git
RUN --mount=type=cache,target=/var/cache/apt ["/usr/bin/apt-get","update"]
RUN --mount=type=cache,target=/var/cache/apt <<EOF
	apt install git
EOF
`, want: []string{"apt-unlocked F:2", "apt-unlocked F:3", "apt-unlocked F:5", "apt-unlocked F:6"}},
	{name: "apt, locked", file: `
FROM debian
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked apt-get update
RUN --mount=type=cache,id=p,target=/var/cache/apt,sharing=private apt-get update
RUN --mount=type=cache,target=/var/cache/apt-proxy apt-get update
RUN --mount=type=cache,id=x,target=/var/cache/apt ls apt.conf
`},

	// lock-order
	{name: "opposite orders", file: `
FROM scratch
RUN --mount=type=cache,id=a,target=/1,sharing=locked \
    --mount=type=cache,id=b,target=/2,sharing=locked x
RUN --mount=type=cache,id=a,target=/2,sharing=locked \
    --mount=type=cache,id=b,target=/1,sharing=locked x
`, want: []string{"lock-order F:2", "lock-order F:5"}},
	{name: "a ring", file: `
FROM scratch
RUN --mount=type=cache,id=a,target=/1,sharing=locked --mount=type=cache,id=b,target=/2,sharing=locked x
RUN --mount=type=cache,id=b,target=/1,sharing=locked --mount=type=cache,id=c,target=/2,sharing=locked x
RUN --mount=type=cache,id=c,target=/1,sharing=locked --mount=type=cache,id=a,target=/2,sharing=locked x
RUN --mount=type=cache,id=c,target=/1,sharing=locked --mount=type=cache,id=d,target=/2,sharing=locked x
`, want: []string{"lock-order F:2", "lock-order F:3", "lock-order F:4"}},
	{name: "one order, written in two", file: `
FROM scratch
WORKDIR /
RUN --mount=type=cache,id=a,target=/1,sharing=locked --mount=type=cache,id=b,target=/2,sharing=locked x
RUN --mount=type=cache,id=b,target=2,sharing=locked --mount=type=cache,id=a,target=1,sharing=locked x
RUN --mount=type=cache,id=b,target=/2,sharing=locked x
RUN --mount=type=cache,id=a,target=/1,sharing=locked --mount=type=cache,id=c,target=/0,sharing=locked x
RUN --mount=type=cache,id=p,target=/2,sharing=private --mount=type=cache,id=q,target=/1,sharing=private x
RUN --mount=type=cache,id=p,target=/1,sharing=private --mount=type=cache,id=q,target=/2,sharing=private x
RUN --mount=type=cache,id=e,target=/1,sharing=locked --mount=type=cache,id=e,target=/2,sharing=locked x
`},

	// mixed-sharing
	{name: "locked and not", file: `
# escape=` + "`" + `
FROM scratch
RUN --mount=type=cache,id=a,target=/1,sharing=locked x
RUN --mount=type=cache,id=a,target=/2,sharing=private x
RUN x `, want: nil},
	{name: "locked and shared", file: "# escape=`\nFROM scratch\nRUN --mount=type=cache,id=a,target=/1,sharing=locked x\nRUN `\n # no\n --mount=type=bind,target=/b `\n --mount=type=cache,id=a,target=/2 `\n x\n", want: []string{"mixed-sharing F:7"}},
	{name: "of other owners", file: `
FROM scratch
RUN --mount=type=cache,id=a,target=/1,sharing=locked x
RUN --mount=type=cache,id=a,target=/1,uid=7 x
`},

	// whole-workspace
	{name: "all before the dependencies", file: `
FROM node
WORKDIR /app
COPY . .
RUN npm ci && npm run build
`, want: []string{"whole-workspace F:3"}},
	{name: "all mounted", file: "\nFROM node\nRUN --mount=target=/src \\\n  cd /src && npm ci\n", want: []string{"whole-workspace F:2"}},
	{name: "packages after all", file: "\nFROM debian\nCOPY ./ /x\nRUN apt-get update -q && apt-get -y install git\n", want: []string{"whole-workspace F:2"}},
	{name: "all by a pattern", file: "\nFROM node\nCOPY /* /src/\nRUN npm ci\n", want: []string{"whole-workspace F:2"}},
	{name: "a mount of what is called so", file: "\nFROM node\nRUN --mount=source=/*,target=/src npm ci\n"},
	{name: "what a base's variable names", file: "\nFROM node\nCOPY $X /src\nRUN npm ci\n"},
	{name: "dependencies first", file: `
FROM node AS deps
COPY package*.json ./
RUN npm ci
FROM deps
COPY . .
RUN npm run build && npm ci --omit=dev
`},
	{name: "parts", file: `
FROM node AS src
COPY . .
FROM node
COPY src /src
COPY --from=src . .
COPY --exclude=src . .
RUN npm ci
`},
	{name: "all, for each service", services: []string{"api", "web"}, file: `
FROM rust
ARG SERVICE
COPY . .
RUN cargo build -p $SERVICE
`, want: []string{"whole-workspace F:3"}},
	{name: "all, of one service", services: []string{"api"}, file: "\nFROM rust\nCOPY . .\nRUN cargo build\n"},
	{name: "all, to plan what to do", services: []string{"api", "web"}, file: `
FROM rust AS planner
COPY . .
RUN cargo chef prepare
FROM rust
ARG SERVICE
COPY --from=planner recipe.json .
RUN cargo chef cook
COPY crates/${SERVICE} crates/
RUN cargo build -p $SERVICE
`},
	{name: "all, and nothing to run", services: []string{"api", "web"}, file: "\nFROM nginx\nCOPY . /usr/share/nginx/html\n"},
}

func TestEachRuleFindsWhatItIsForAndNoMore(t *testing.T) {
	for _, c := range plans {
		t.Run(c.name, func(t *testing.T) {
			text := strings.TrimPrefix(c.file, "\n")
			files := []File{{Name: "F", Text: []byte(text), Options: c.opts}}
			if len(c.services) > 0 {
				files = nil
				for _, s := range c.services {
					files = append(files, File{Name: "F", Service: s, Text: []byte(text), Options: dockerfile.Options{Args: map[string]string{"SERVICE": s}}})
				}
			}
			if got := found(t, files...); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestRulesLookAcrossDockerfiles(t *testing.T) {
	const head = "FROM scratch\nRUN --mount=type=cache,"
	for _, c := range []struct {
		name, api, web string
		context        string
		want           []string
	}{
		{"lock-order", head + "id=a,target=/1,sharing=locked --mount=type=cache,id=b,target=/2,sharing=locked x", head + "id=b,target=/1,sharing=locked --mount=type=cache,id=a,target=/2,sharing=locked x", "",
			[]string{"lock-order api/F:2", "lock-order web/F:2"}},
		{"one order", head + "id=a,target=/1,sharing=locked --mount=type=cache,id=b,target=/2,sharing=locked x", head + "id=a,target=/x,sharing=locked --mount=type=cache,id=b,target=/y,sharing=locked x", "", nil},
		{"mixed-sharing", head + "target=/m,sharing=locked x", head + "target=/m x", "", []string{"mixed-sharing web/F:2"}},
		{"shared-target", head + "target=/app/target x", head + "id=/app/target,target=/target x", "", []string{"shared-target api/F:2", "shared-target web/F:2"}},
		{"another namespace's", head + "target=/app/target x", head + "target=/app2/target x", "", nil},
		{"whole-workspace", "FROM scratch\nCOPY . .\nRUN make api", "FROM scratch\nCOPY web .\nRUN make web", "/work", []string{"whole-workspace api/F:2"}},
		{"contexts of their own", "FROM scratch\nCOPY . .\nRUN make api", "FROM scratch\nCOPY . .\nRUN make web", "", nil},
	} {
		got := found(t, File{Name: "web/F", Text: []byte(c.web), Context: c.context}, File{Name: "api/F", Text: []byte(c.api), Context: c.context})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got  %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestAFindingSaysWhoseItIsAndWhatElseHasAPart(t *testing.T) {
	text := []byte("FROM scratch\nRUN --mount=type=cache,target=/target,sharing=locked make\nRUN --mount=type=cache,target=/target make \x1b[31m\n")
	findings, err := Check(File{Name: "F\x1b", Service: "web", Text: text}, File{Name: "F\x1b", Service: "api", Text: text}, File{Name: "broken", Text: []byte("FROM scratch\nRUM\n")}, File{Name: "none"})
	var fe *FileError
	var de *dockerfile.Error
	if !errors.As(err, &fe) || fe.Name != "broken" || !errors.As(err, &de) || de.Line != 2 || !errors.Is(err, dockerfile.ErrSyntax) || !strings.Contains(err.Error(), "none") {
		t.Errorf("%v", err)
	}
	if len(findings) != 3 || findings[0].Code != SharedTarget || findings[0].Severity != Slow || findings[1].Code != MixedSharing || findings[2].Severity != Unsafe {
		t.Fatalf("%v", findings)
	}
	for _, f := range findings {
		if !slices.Equal(f.Services, []string{"api", "web"}) || len(f.Also) != 1 || f.Also[0].Line != 5-f.Line {
			t.Errorf("%+v", f)
		}
		if strings.ContainsRune(f.String(), 0x1b) {
			t.Errorf("%q is not fit for a log", f)
		}
	}
}

func TestPlansOfAnySizeAreRead(t *testing.T) {
	// BuildKit takes no lines longer than 64 KiB.
	mounts := strings.Repeat(" --mount=type=cache,target=/target/registry/target,sharing=locked \\\n --mount=type=cache,target=/var/cache/apt \\\n", 5_000)
	one := File{Name: "F", Text: []byte("FROM scratch\nRUN" + mounts + strings.Repeat(" apt-get", 5_000) + "\n")}
	two := File{Name: "F", Service: "2", Text: one.Text}
	var many strings.Builder
	for i := range maxStages {
		fmt.Fprintf(&many, "FROM s%d AS s%d\nCOPY . .\nRUN --mount=type=cache,target=/target --mount=type=cache,id=%d,target=/a,sharing=locked --mount=type=cache,id=%d,target=/b,sharing=locked npm ci\n", i-1, i, i, (i+1)%maxStages)
	}
	stages := File{Name: "S", Text: []byte(many.String())}
	for _, files := range [][]File{{one, two}, {stages, {Name: "T", Text: stages.Text}}} {
		if _, err := Check(files...); err != nil {
			t.Error(err)
		}
	}
	if _, err := Check(File{Text: []byte(many.String() + "FROM s999\n")}); !errors.Is(err, dockerfile.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := Check(make([]File, maxFiles)...); errors.Is(err, dockerfile.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := Check(make([]File, maxFiles+1)...); !errors.Is(err, dockerfile.ErrTooLarge) {
		t.Error(err)
	}
}

// FuzzCheck: whatever the Dockerfiles, there is an answer that stays the same, each
// finding at a line of its file.
func FuzzCheck(f *testing.F) {
	for _, c := range plans {
		f.Add(c.file, clean, c.opts.OldFrontend)
	}
	f.Fuzz(func(t *testing.T, a, b string, old bool) {
		opts := dockerfile.Options{OldFrontend: old, Args: map[string]string{"SERVICE": "api"}}
		files := []File{{Name: "a", Text: []byte(a), Context: "c", Options: opts}, {Name: "b", Text: []byte(b), Context: "c"}, {Name: "b", Service: "b2", Text: []byte(b), Options: opts}}
		findings, err := Check(files...)
		again, _ := Check(files...)
		if fmt.Sprint(findings) != fmt.Sprint(again) {
			t.Errorf("%v\nand then\n%v", findings, again)
		}
		var fe *FileError
		if err != nil && !errors.As(err, &fe) {
			t.Error(err)
		}
		for _, f := range findings {
			text := a
			if f.File == "b" {
				text = b
			}
			if f.Line < 1 || f.Line > strings.Count(text, "\n")+1 || f.String() != printable(f.String()) {
				t.Errorf("%+v", f)
			}
		}
	})
}
