package docker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func basesOf(dockerfile, target string, args map[string]string) []string {
	p := platform{"linux", "amd64", ""}
	var got []string
	for _, b := range scan([]byte(dockerfile), target, newBuildArgs(ContextBuild{Args: args}, p, p)) {
		s := fmt.Sprintf("%d %s", b.line, b.ref)
		if b.platform != (platform{}) {
			s += " " + b.platform.String()
		}
		if errors.Is(b.err, ErrUnresolvedBase) {
			s += " unresolved"
		} else if b.err != nil {
			s += " " + b.err.Error()
		}
		got = append(got, s)
	}
	return got
}

func TestTheScanFindsTheBasesATargetNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		dockerfile string
		target     string
		args       map[string]string
		want       []string
	}{
		"plain":           {dockerfile: "FROM a:1\n", want: []string{"1 a:1"}},
		"lower case":      {dockerfile: "from a as B\nfrom b\n", want: []string{"1 a"}},
		"scratch":         {dockerfile: "FROM scratch\nCOPY --from=scratch x y\n"},
		"nothing":         {dockerfile: "# FROM a\n"},
		"byte order mark": {dockerfile: "\xef\xbb\xbfFROM a\n", want: []string{"1 a"}},
		"windows lines":   {dockerfile: "ARG X=a\r\nFROM $X\r\n", want: []string{"2 a"}},
		"stages":          {dockerfile: "FROM a AS one\nFROM ONE AS two\nFROM two\n", want: []string{"1 a"}},
		"a later stage is an image": {
			dockerfile: "FROM two\nFROM a AS two\nFROM scratch\nCOPY --from=0 a b\nCOPY --from=two a b\n",
			want:       []string{"1 two", "2 a"},
		},
		"unneeded stages": {dockerfile: "FROM a AS one\nFROM b AS two\nFROM c\nCOPY --from=one x y\n", want: []string{"1 a", "3 c"}},
		"target":          {dockerfile: "FROM a AS one\nFROM b AS two\nFROM c\n", target: "Two", want: []string{"2 b"}},
		"target number":   {dockerfile: "FROM a\nFROM b\n", target: "0", want: []string{"1 a"}},
		"no such target":  {dockerfile: "FROM a\n", target: "x"},
		"own name":        {dockerfile: "FROM a AS a\nFROM a\n", want: []string{"1 a"}},
		"copy from image": {dockerfile: "FROM scratch\nCOPY --chown=1:1 --from=b:2 /x /y\nADD --from=c a b\n", want: []string{"2 b:2"}},
		"mounts": {
			dockerfile: "FROM a\nRUN --mount=type=cache,target=/c --mount=from=b,target=/x --mount=type=bind,\"from=c:1\" make\n",
			want:       []string{"1 a", "2 b", "2 c:1"},
		},
		"not a flag any more": {dockerfile: "FROM a\nRUN make --mount=from=b\nCOPY x --from=c\n", want: []string{"1 a"}},
		"onbuild":             {dockerfile: "FROM a\nONBUILD COPY --from=b x y\n", want: []string{"1 a"}},
		"continuation": {
			dockerfile: "FROM \\\n  # comment\n\n  a \\  \n AS x\nRUN a \\\n FROM b\nRUN c\\\\\nFROM d\n",
			want:       []string{"9 d"},
		},
		"escape directive": {dockerfile: "# escape=`\nFROM a`\n:1\nRUN c:\\\nFROM d\n", want: []string{"5 d"}},
		"late directive":   {dockerfile: "#\n# escape=`\nFROM \\\na\n", want: []string{"3 a"}},
		"heredoc": {
			dockerfile: "FROM a\nRUN <<EOF cat <<-'X' >y\nFROM b\nEOF\nFROM c\n\tX\nCOPY <<\"E\" /x\nFROM d\nE\nFROM e\n",
			want:       []string{"10 e"},
		},
		"heredoc at the end": {dockerfile: "FROM a\nRUN x <<A <<B\nFROM b\nA\nFROM c\nB\nCOPY <<C /c\nFROM d\nC", want: []string{"1 a"}},
		"no heredoc":         {dockerfile: "FROM a\nRUN echo $((1<<3)) <<EOF\nFROM b\n", want: []string{"3 b"}},
		"names of heredocs": {
			dockerfile: "FROM a\nRUN <<END-OF.1 <<'E F' <<\\X <<\"$Y\"\nFROM b\nEND-OF.1\nFROM c\nE F\nFROM d\nX\nFROM e\n$Y\n",
			want:       []string{"1 a"},
		},
		"heredoc on build": {dockerfile: "FROM a\nONBUILD run <<E\nFROM b\nE\n", want: []string{"1 a"}},
		"quoted, so no heredoc": {
			dockerfile: "FROM a\nRUN echo \"see <<E here\"\nFROM b\nE\n", want: []string{"3 b"},
		},
		"exec form, so no heredoc": {dockerfile: "FROM a\nRUN --network=none [\"x\", \" <<E \"]\nFROM b\nE\n", want: []string{"3 b"}},
		"unknown directive":        {dockerfile: "# about=this\n# escape=`\nFROM a\nRUN x `\nFROM b\n", want: []string{"5 b"}},
		"odd blanks":               {dockerfile: "FROM\va\fAS\rx\nFROM x\nCOPY\v--from=c\fd e\n", want: []string{"1 a", "3 c"}},
		"comment after odd blank":  {dockerfile: "FROM a\n\u00a0# \\\nFROM b\n", want: []string{"3 b"}},
		"comment after lone mark":  {dockerfile: "FROM a\n\\\n# \\\nFROM b\n", want: []string{"2 b"}},
		"args": {
			dockerfile: "ARG A=a B=\"b c\" C\nARG D=${A}x$A\nFROM $D:${C:-none}${C-x}${A:+y}${C+z}\n",
			want:       []string{"3 axa:nonexy"},
		},
		"given args":         {dockerfile: "ARG A=a\nFROM $A:$B\n", args: map[string]string{"A": "z", "B": "undeclared"}, want: []string{"2 z:"}},
		"an arg of a stage":  {dockerfile: "ARG A=a\nFROM x\nARG A=b\nFROM $A\n", want: []string{"4 a"}},
		"prefix that may be": {dockerfile: "ARG REGISTRY\nFROM ${REGISTRY}a\n", want: []string{"2 a"}},
		"platform args":      {dockerfile: "FROM --platform=$BUILDPLATFORM a-$TARGETARCH\n", want: []string{"1 a-amd64 linux/amd64"}},
		"platform":           {dockerfile: "FROM --platform=linux/arm64/v8 a\n", want: []string{"1 a linux/arm64"}},
		"bad platform":       {dockerfile: "FROM --platform=arm a\n", want: []string{"1 a unresolved"}},
		"quotes":             {dockerfile: "ARG 'A=b c'\nFROM \"a\"'$A':\\$A\n", want: []string{"2 a$A:$A"}},
		"nested":             {dockerfile: "FROM ${A:-${B:-\"c}\"}d}\n", want: []string{"1 c}d"}},
		"unknown operator":   {dockerfile: "ARG A=a\nFROM ${A%x}\n", want: []string{"2 ${A%x} unresolved"}},
		"unset and required": {dockerfile: "FROM ${A:?no}\n", want: []string{"1 ${A:?no} unresolved"}},
		"open brace":         {dockerfile: "FROM ${A\n", want: []string{"1 ${A unresolved"}},
		"lone dollar":        {dockerfile: "FROM a$\n", want: []string{"1 a$ unresolved"}},
		"broken arg unused":  {dockerfile: "ARG A=${B#x}\nFROM a\n", want: []string{"2 a"}},
		"broken arg used":    {dockerfile: "ARG A=${B#x}\nFROM a$A\n", want: []string{"2 a$A unresolved"}},
		"variable in copy":   {dockerfile: "ARG A=b\nFROM a\nCOPY --from=$A x y\n", want: []string{"2 a", "3 $A unresolved"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := basesOf(c.dockerfile, c.target, c.args); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q for\n%s", got, c.want, c.dockerfile)
			}
		})
	}
}

func TestTheVariantOfAnArmEngineIsNotGuessed(t *testing.T) {
	arm := platform{"linux", "arm", ""}
	got := scan([]byte("FROM a-$TARGETVARIANT\n"), "", newBuildArgs(ContextBuild{}, arm, arm))
	if len(got) != 1 || !errors.Is(got[0].err, ErrUnresolvedBase) {
		t.Errorf("got %+v", got)
	}
	got = scan([]byte("FROM a-$TARGETVARIANT\n"), "", newBuildArgs(ContextBuild{Args: map[string]string{"TARGETVARIANT": "v7"}}, arm, arm))
	if len(got) != 1 || got[0].ref != "a-v7" {
		t.Errorf("got %+v", got)
	}
}

func FuzzScan(f *testing.F) {
	f.Add("FROM a\nRUN <<E\nx\nE\n", "", "x")
	f.Add("# escape=`\nARG A=${B:-'c'}\nFROM --platform=$X $A`\n:1 AS y\nCOPY --from=y x y\n", "y", "")
	f.Add("FROM ${A:-${B:-${C:-${D:-d}}}}\nRUN --mount=\"from=x\" y\n", "0", "\\")
	f.Fuzz(func(t *testing.T, dockerfile, target, arg string) {
		p := platform{"linux", "arm", ""}
		froms := strings.Count(strings.ToLower(dockerfile), "from")
		got := scan([]byte(dockerfile), target, newBuildArgs(ContextBuild{Args: map[string]string{"A": arg}}, p, p))
		if len(got) > froms {
			t.Errorf("%d bases, but only %d times from", len(got), froms)
		}
		lines := strings.Count(dockerfile, "\n") + 1
		for _, b := range got {
			if b.err == nil && (b.ref == "" || b.ref == "scratch") || b.line < 1 || b.line > lines {
				t.Errorf("base %+v of %d lines", b, lines)
			}
			if b.err != nil && !errors.Is(b.err, ErrUnresolvedBase) {
				t.Errorf("error %v", b.err)
			}
		}
	})
}
