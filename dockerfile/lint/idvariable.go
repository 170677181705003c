package lint

import (
	"fmt"
	"regexp"
	"strings"
)

// IDVariable: a mount's id has a variable that comes to nothing.
const IDVariable Code = "id-variable"

var variable = regexp.MustCompile(`\$(\{[^}]*\}|[A-Za-z_][A-Za-z0-9_]*)`)

// idVariable: an id of "target-$SERVICE" is one for all services where the frontend does
// not expand it (before docker/dockerfile:1.3, as in Docker 20.10), or where the stage
// does not declare the argument.
func idVariable(p *plan) {
	for _, s := range p.services {
		for _, r := range s.runs {
			for _, m := range r.mounts {
				written := m.WrittenID
				if written == "" {
					written = m.WrittenTarget
				}
				switch {
				case m.Literal && variable.MatchString(written):
					p.report(Finding{
						Code: IDVariable, Severity: Unsafe,
						Reason: fmt.Sprintf("this frontend takes %s literally and does not expand the variable: all builds share one cache", m.name()),
						Remedy: "begin the Dockerfile with \"# syntax=docker/dockerfile:1\", use a newer engine, or write the id out",
					}, m.place, s.Service)
				case !m.Literal && len(m.Unset) > 0:
					names := "$" + strings.Join(m.Unset, ", $")
					p.report(Finding{
						Code: IDVariable, Severity: Unsafe,
						Reason: fmt.Sprintf("%s has no value here, so %s is the same cache for every value it is given elsewhere", short(names), m.name()),
						Remedy: "declare it in this stage before the RUN: ARG " + short(m.Unset[0]),
					}, m.place, s.Service)
				}
			}
		}
	}
}

func short(s string) string { return strings.Trim(quote(s), `"`) }
