package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// messageLimit bounds one message of the engine, in bytes. Real ones, with the
// output of many steps in one, stay far below.
const messageLimit = 64 << 20

// message is one of those that the answer to a build consists of. The classic
// builder and Podman's speak in Stream, BuildKit in Aux.
type message struct {
	ID     string          `json:"id"`
	Stream string          `json:"stream"`
	Error  string          `json:"error"`
	Aux    json.RawMessage `json:"aux"`
	Detail *struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// engineSaid is an error that the engine reports inside the answer.
type engineSaid struct{ text string }

func (e *engineSaid) Error() string { return e.text }

// readCourse reads the course of a build to its end and returns the image's ID.
// Its error is an [*engineSaid], or wraps [ErrInterrupted] if the answer breaks
// off or makes no sense. A progress report that makes no sense is left out.
func readCourse(r io.Reader, out *printer) (id string, err error) {
	limited := &io.LimitedReader{R: r}
	dec := json.NewDecoder(limited)
	for {
		limited.N = messageLimit
		var m message
		switch derr := dec.Decode(&m); {
		case derr == nil:
		case err != nil: // it had said what is wrong
			return "", err
		case derr == io.EOF && limited.N > 0:
			return id, nil
		case derr == io.EOF, errors.Is(derr, io.ErrUnexpectedEOF) && limited.N <= 0:
			return "", fmt.Errorf("%w: a message of more than %d bytes", ErrInterrupted, messageLimit)
		default:
			return "", fmt.Errorf("%w: %w", ErrInterrupted, derr)
		}
		if m.Detail != nil && m.Detail.Message != "" {
			m.Error = m.Detail.Message
		}
		if m.Error != "" && err == nil {
			err = &engineSaid{m.Error}
		}
		if m.Stream != "" {
			out.text(m.Stream)
		}
		switch m.ID {
		case "moby.buildkit.trace":
			var b []byte
			if json.Unmarshal(m.Aux, &b) == nil {
				if st, derr := decodeStatus(b); derr == nil {
					out.status(st)
				}
			}
		case "moby.image.id", "":
			var image struct{ ID string }
			if json.Unmarshal(m.Aux, &image) == nil && image.ID != "" {
				id = image.ID
			}
		}
	}
}
