package docker

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

var (
	exitCode  = regexp.MustCompile(`exit code: (\d{1,5})\b|returned a non-zero code: (\d{1,5})\b`)
	parseLine = regexp.MustCompile(`(?:dockerfile )?parse error (?:on )?line (\d{1,9}): (.*)`)
	// solverNoise is what BuildKit puts before a message, level by level.
	solverNoise = regexp.MustCompile(`^(failed to solve( with frontend [\w.]+)?: |failed to create LLB definition: |` +
		`rpc error: code = \w+ desc = )+`)
)

// diagnose makes the error of a build from what the engine said and the step that
// failed, if it is known.
func (s *Store) diagnose(dockerfile, ref, text string, failed *step) error {
	text = clip(printable(strings.TrimSpace(strings.ReplaceAll(text, "\n", " "))), 8<<10)
	message := solverNoise.ReplaceAllString(text, "")
	wrap := func(err error) error {
		return s.errorOf("build", ref, err)
	}
	if strings.Contains(text, "no active sessions") {
		return wrap(ErrNoSession)
	}
	if failed != nil && !strings.HasSuffix(text, "context canceled") {
		e := &StepError{Reference: ref, Step: failed.name, Lines: failed.last.lines, Message: message}
		if m := exitCode.FindStringSubmatch(text); m != nil {
			e.ExitCode, _ = strconv.Atoi(m[1] + m[2])
		}
		e.cause = recognise(append([]string{text}, e.Lines...)...)
		return e
	}
	if cause := recognise(text); cause != nil {
		return wrap(&recognised{errors.New(message), cause})
	}
	// Not by us: our own end is looked at first. The engine is shutting down.
	if strings.HasSuffix(text, "context canceled") {
		return wrap(&recognised{errors.New("the engine cancelled the build: " + message), ErrInterrupted})
	}
	if m := parseLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return &DockerfileError{Dockerfile: dockerfile, Line: line, Message: m[2]}
	}
	if strings.Contains(text, "failed to create LLB definition") || strings.Contains(strings.ToLower(text), "dockerfile") {
		return &DockerfileError{Dockerfile: dockerfile, Message: message}
	}
	return wrap(errors.New(message))
}
