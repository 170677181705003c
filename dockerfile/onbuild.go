package dockerfile

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/imagelock/imagelock/imagecache"
)

// trigger is an ONBUILD instruction of a stage's base, which runs in the stage.
type trigger struct {
	text string
	line int
	from []string // what it takes files from: stages of this file, or images
	any  bool     // it may take files from any stage
}

// triggers are the ONBUILD instructions of what a stage begins with.
func (s *scan) triggers(b Base) (all []trigger) {
	if b.Stage >= 0 {
		for _, c := range s.stages[b.Stage].Commands {
			if on, ok := c.(*instructions.OnbuildCommand); ok {
				all = append(all, newTrigger(on.Expression, lineOf(on.Location())))
			}
		}
		return all
	}
	if !s.isImage(b) || s.opts.BaseTriggers == nil {
		return nil
	}
	list, err := s.opts.BaseTriggers(b.Reference, b.Platform)
	for _, expression := range list {
		all = append(all, newTrigger(expression, b.Line))
	}
	if err != nil { // it may be one that does anything
		all = append(all, trigger{text: fmt.Sprintf("(not known: %v)", err), line: b.Line, any: true})
	}
	return all
}

// newTrigger reads the expression as BuildKit does when it runs it.
func newTrigger(expression string, line int) trigger {
	t := trigger{text: expression, line: line, any: true}
	ast, err := parser.Parse(strings.NewReader(expression))
	if err != nil || len(ast.AST.Children) != 1 {
		return t
	}
	if c, err := instructions.ParseCommand(ast.AST.Children[0]); err == nil {
		t.from, t.any = sources(c), false
	}
	return t
}

// trigger notes that an instruction of the base runs here. What it does depends on more
// than the file's text.
func (w *walk) trigger(t trigger) {
	why := "ONBUILD " + clip(clean(t.text), 100)
	w.out.Unknown = append(w.out.Unknown, Unknown{Line: t.line, Why: why})
	if text := strings.ToLower(t.text); t.any || strings.Contains(text, "mount") && strings.Contains(text, "cache") {
		w.out.Mounts = append(w.out.Mounts, imagecache.Mount{Run: t.line, Unresolved: fmt.Sprintf("line %d: %s", t.line, why)})
	}
	for _, name := range t.from {
		w.out.from = append(w.out.from, *w.base(name, t.line))
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + " …"
	}
	return s
}
