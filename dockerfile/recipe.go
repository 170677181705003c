package dockerfile

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// linesOf returns the text of each stage as it counts: an instruction each, without
// comments, with its heredocs. Of FROM only what it comes to counts.
func linesOf(ast *parser.Node) [][]string {
	var stages [][]string
	for _, n := range ast.Children {
		if strings.EqualFold(n.Value, "FROM") {
			stages = append(stages, nil)
			continue
		}
		if len(stages) == 0 { // ARG, whose value counts where it is used
			continue
		}
		text := []string{n.Original}
		for _, h := range n.Heredocs {
			text = append(text, fmt.Sprintf("%d %s %t %t", h.FileDescriptor, h.Name, h.Expand, h.Chomp), h.Content)
		}
		i := len(stages) - 1
		stages[i] = append(stages[i], fmt.Sprintf("%q", text))
	}
	return stages
}

// note puts the value of a build argument, where it is declared, into the recipe.
func (w *walk) note(name string) {
	v, ok := w.env.vars[name]
	if v.unknown { // what it is made of counts by itself
		v.value = ""
	}
	w.out.recipe = append(w.out.recipe, fmt.Sprintf("ARG %q=%q %t", name, v.value, ok))
}

// recipe is all that the build does by the Dockerfile, but for the content of files.
func (n *Needs) recipe() string {
	place := map[int]int{}
	var text []string
	for i := range n.Stages {
		s := &n.Stages[i]
		place[s.Index] = i
		base := fmt.Sprintf("%q %q %q", s.Base.Reference, s.Base.Context, s.Base.Platform)
		if j, ok := place[s.Base.Stage]; ok && s.Base.Stage >= 0 {
			base = fmt.Sprint(j, " ", base)
		}
		needs := make([]int, len(s.Needs))
		for k, j := range s.Needs {
			needs[k] = place[j]
		}
		text = append(text, fmt.Sprintf("FROM %s AS %q %v", base, s.Name, needs))
		text = append(text, s.recipe...)
	}
	return fmt.Sprintf("%q %c %q", n.Syntax, n.escape, text)
}
