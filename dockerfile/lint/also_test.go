package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/dockerfile"
)

// TestEachFindingNamesItsOtherPlaces: the first, where there are several, and once.
func TestEachFindingNamesItsOtherPlaces(t *testing.T) {
	locked := func(ids ...string) string {
		text := "RUN"
		for i, id := range ids {
			text += fmt.Sprintf(" --mount=type=cache,id=%s,target=/%d,sharing=locked", id, i)
		}
		return text + " x\n"
	}
	const target = "FROM scratch\nRUN --mount=type=cache,id=t,target=/target%s make\n"
	for _, c := range []struct {
		name  string
		files []File
		want  []string
	}{
		{"stages", []File{{Name: "F", Text: []byte("FROM scratch AS a\nRUN --mount=type=cache,target=/c x\nRUN --mount=type=cache,target=/c x\n" +
			"FROM scratch AS b\nRUN --mount=type=cache,target=/c x\nFROM scratch AS c\nRUN --mount=type=cache,target=/c x\n" +
			"FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\nCOPY --from=c / /\n")}},
			[]string{`parallel-stages F:2 [F:5] the cache "/c" is shared by stages of one build that run at the same time (with line 5)`, "parallel-stages F:5 [F:2] (with line 2)", "parallel-stages F:7 [F:2] (with line 2)"}},
		{"targets", []File{
			{Name: "F", Service: "api", Text: fmt.Appendf(nil, target, "")}, {Name: "F", Service: "web", Text: fmt.Appendf(nil, target, "")},
			{Name: "G", Text: fmt.Appendf(nil, target, "")}, {Name: "H", Text: fmt.Appendf(nil, target, "")}},
			[]string{"shared-target F:2 [G:2] ", "shared-target G:2 [F:2] ", "shared-target H:2 [F:2] "}},
		{"locked targets", []File{{Name: "F", Text: fmt.Appendf(nil, target, ",sharing=locked")}, {Name: "G", Text: fmt.Appendf(nil, target, ",sharing=locked")}},
			[]string{"shared-target F:2 [G:2] one after another", "shared-target G:2 [F:2] one after another"}},
		{"modes", []File{{Name: "F", Text: []byte("FROM scratch\n" + locked("a") + locked("a") + "RUN --mount=type=cache,id=a,target=/0 x\n")}},
			[]string{"mixed-sharing F:4 [F:2] locked at F:2"}},
		{"orders", []File{{Name: "F", Text: []byte("FROM scratch\n" + locked("d", "a") + locked("a", "b", "c") + locked("a", "b") + locked("c", "b", "a") + locked("d", "a"))}},
			[]string{`lock-order F:3 [F:5] "a" is locked before "b" here, in the order of their targets, and in another order at F:5`,
				`lock-order F:4 [F:5] "a" is locked before "b" here, in the order of their targets, and in another order at F:5`,
				`lock-order F:5 [F:3] "c" is locked before "b" here, in the order of their targets, and in another order at F:3`}},
		{"installs", []File{{Name: "F", Text: []byte("FROM scratch\nCOPY . .\nRUN make\nRUN npm ci\nRUN npm ci\n")}},
			[]string{"whole-workspace F:2 [F:4] installed at line 4"}},
		{"an install that does not see it", []File{{Name: "F", Text: []byte("FROM scratch\nRUN --mount=target=/src make\nRUN npm ci\n")}}, nil},
		{"all, twice and mounted", []File{{Name: "F", Text: []byte("FROM scratch\nCOPY . .\nRUN npm ci\nCOPY . /x\nRUN --mount=target=/src npm ci\nRUN npm ci\n")}},
			[]string{"whole-workspace F:2 [F:3] "}},
		{"all, mounted between", []File{{Name: "F", Text: []byte("FROM scratch\nCOPY . /a\nRUN --mount=target=/m make\nCOPY . /b\nRUN npm ci\n")}},
			[]string{"whole-workspace F:2 [F:5] "}},
		{"a mount before a copy", []File{{Name: "F", Text: []byte("FROM scratch\nRUN --mount=target=/m make\nCOPY . /a\nRUN npm ci\n")}},
			[]string{"whole-workspace F:3 [F:4] "}},
		{"a mount behind a copy", []File{{Name: "F", Text: []byte("FROM scratch\nCOPY . .\nRUN --mount=target=/src npm ci\n")}},
			[]string{"whole-workspace F:2 [F:3] ", "whole-workspace F:3 [] "}},
	} {
		findings, err := Check(c.files...)
		if err != nil {
			t.Fatal(err)
		}
		ok := len(findings) == len(c.want)
		for i, f := range findings {
			head, says, _ := strings.Cut(append(c.want, "] ")[min(i, len(c.want))], "] ")
			ok = ok && fmt.Sprintf("%s %v %v", f.Code, f.Place, f.Also) == head+"]" && strings.Contains(f.Reason, says)
		}
		if !ok {
			t.Errorf("%s: got %v,\n%+v\nwant %q", c.name, err, findings, c.want)
		}
	}
}

// TestAnIDIsToldByWhatItIsMadeOf: of the id, or of the target where there is none, and as
// the frontend reads it.
func TestAnIDIsToldByWhatItIsMadeOf(t *testing.T) {
	for _, c := range []struct {
		mount string
		old   bool
		want  string // of the remedy; empty for no finding
	}{
		{"id=c-$SERVICE,target=/c", false, "ARG SERVICE"},
		{"target=/c/${SERVICE}", false, "ARG SERVICE"},
		{"id=c,target=/c/${SERVICE}", false, ""},
		{"id=c-$SERVICE,target=/c", true, "# syntax="},
		{"target=/c/$SERVICE", true, "# syntax="},
		{"id=c,target=/c/$SERVICE", true, ""},
		{"id=c-$1,target=/c", true, ""}, // no variable of anybody's
	} {
		findings, err := Check(File{Name: "F", Text: []byte("FROM scratch\nRUN --mount=type=cache," + c.mount + " x\n"), Options: dockerfile.Options{OldFrontend: c.old}})
		findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.Code != IDVariable })
		if err != nil || len(findings) > 1 || (len(findings) == 1) != (c.want != "") || c.want != "" && !strings.Contains(findings[0].Remedy, c.want) {
			t.Errorf("%+v: %v, %v", c, findings, err)
		} else if strings.HasPrefix(c.want, "ARG") && !strings.HasSuffix(findings[0].Remedy, c.want) {
			t.Errorf("%q", findings[0].Remedy)
		}
	}
}

// TestServicesThatBuildTheSameAreOne: and those of other contexts are none of theirs.
func TestServicesThatBuildTheSameAreOne(t *testing.T) {
	file := func(service, context, arg string) File {
		return File{Name: "F", Service: service, Context: context, Text: []byte("FROM scratch\nARG SERVICE\nCOPY . .\nRUN make\n"),
			Options: dockerfile.Options{Args: map[string]string{"SERVICE": arg}}}
	}
	for _, c := range []struct {
		files []File
		want  string
	}{
		{[]File{file("api", "", "a"), file("api-2", "", "a")}, ""},
		{[]File{file("api", "", "a"), file("web", "", "w"), file("api-2", "", "a")}, "2 services"},
		{[]File{file("api", "/a", "a"), file("web", "/b", "w")}, ""},
	} {
		findings, err := Check(c.files...)
		if err != nil || (len(findings) == 1) != (c.want != "") || len(findings) > 0 && !strings.HasPrefix(findings[0].Reason, c.want) {
			t.Errorf("%+v: %v, %v", c.files, findings, err)
		}
	}
}

func TestAThingIsToldOnce(t *testing.T) {
	findings, err := Check(File{Name: "F", Text: []byte("FROM scratch\nRUN --mount=type=cache,id=c,target=/var/cache/apt --mount=type=cache,id=c,target=/var/lib/apt apt-get update\n")})
	if err != nil || len(findings) != 1 || !slices.Equal(findings[0].Services, []string{"F"}) {
		t.Errorf("%+v, %v", findings, err)
	}
}

// TestTextsAreShort, and fit for a line of a log.
func TestTextsAreShort(t *testing.T) {
	for _, c := range []struct{ id, says, not string }{
		{strings.Repeat("x", 200), `"` + strings.Repeat("x", 200) + `"`, "…"},
		{strings.Repeat("x", 10_000), `"` + strings.Repeat("x", 200) + ` …"`, strings.Repeat("x", 201)},
		{strings.Repeat("x", 199) + strings.Repeat("ü", 100), `"` + strings.Repeat("x", 199) + ` …"`, `\x`},
		{"../../etc/passwd", `"../../etc/passwd"`, "…"},
	} {
		findings, err := Check(File{Name: "F\xff", Text: []byte("FROM scratch\nRUN --mount=type=cache,id=" + c.id + ",target=/root/.cargo/registry x\n")})
		if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Reason, c.says) || strings.Contains(findings[0].Reason, c.not) {
			t.Errorf("%.20s: %v, %v", c.id, findings, err)
		} else if f := findings[0]; f.Place.String() != "F.:2" || !slices.Equal(f.Services, []string{"F\xff"}) {
			t.Errorf("%v, %q", f.Place, f.Services)
		}
	}
	for text, want := range map[string]string{"FROM scratch\nRUM\n": "lint: F:2: syntax error", "RUM\n": "lint: F:1: syntax error", "": "lint: F: dockerfile: syntax error"} {
		if _, err := Check(File{Name: "F", Text: []byte(text)}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
