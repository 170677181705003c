package docker

import (
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// status is what one report of BuildKit tells: moby.buildkit.v1.StatusResponse,
// as far as it is of use here. Decoding it by hand spares users BuildKit's two
// hundred modules.
type status struct {
	vertexes []vertex
	statuses []vertexStatus
	logs     []vertexLog
	warnings []vertexWarning
}

// vertex is a step.
type vertex struct {
	digest, name       string
	cached             bool
	started, completed time.Time
	err                string
}

// vertexStatus is something within a step that has a progress of its own.
type vertexStatus struct {
	id, vertex         string
	current, total     int64
	started, completed time.Time
}

// vertexLog is a piece of a step's output.
type vertexLog struct {
	vertex string
	time   time.Time
	stream int64
	msg    []byte
}

type vertexWarning struct {
	vertex string
	short  []byte
}

var errTrace = errors.New("progress report makes no sense")

// decodeStatus reads a report. Fields it does not know are passed over. What it
// returns is never larger than what it was given times a small constant.
func decodeStatus(b []byte) (status, error) {
	var s status
	err := fields(b, func(num protowire.Number, f field) (err error) {
		switch num {
		case 1:
			err = add(&s.vertexes, f, (*vertex).set)
		case 2:
			err = add(&s.statuses, f, (*vertexStatus).set)
		case 3:
			err = add(&s.logs, f, (*vertexLog).set)
		case 4:
			err = add(&s.warnings, f, (*vertexWarning).set)
		}
		return err
	})
	return s, err
}

// add decodes a message field into a new element of list.
func add[T any](list *[]T, f field, set func(*T, protowire.Number, field) error) error {
	var v T
	if err := fields(f.bytes, func(num protowire.Number, f field) error { return set(&v, num, f) }); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

func (v *vertex) set(num protowire.Number, f field) (err error) {
	switch num {
	case 1:
		v.digest = string(f.bytes)
	case 3:
		v.name = string(f.bytes)
	case 4:
		v.cached = f.varint != 0
	case 5:
		v.started, err = f.time()
	case 6:
		v.completed, err = f.time()
	case 7:
		v.err = string(f.bytes)
	}
	return err
}

func (v *vertexStatus) set(num protowire.Number, f field) (err error) {
	switch num {
	case 1:
		v.id = string(f.bytes)
	case 2:
		v.vertex = string(f.bytes)
	case 4:
		v.current = int64(f.varint)
	case 5:
		v.total = int64(f.varint)
	case 7:
		v.started, err = f.time()
	case 8:
		v.completed, err = f.time()
	}
	return err
}

func (v *vertexLog) set(num protowire.Number, f field) (err error) {
	switch num {
	case 1:
		v.vertex = string(f.bytes)
	case 2:
		v.time, err = f.time()
	case 3:
		v.stream = int64(f.varint)
	case 4:
		v.msg = f.bytes
	}
	return err
}

func (v *vertexWarning) set(num protowire.Number, f field) error {
	switch num {
	case 1:
		v.vertex = string(f.bytes)
	case 3:
		v.short = f.bytes
	}
	return nil
}

// field is a field's value: a number, or bytes that are a part of the input.
type field struct {
	varint uint64
	bytes  []byte
}

// fields calls set for each field of a message.
func fields(b []byte, set func(protowire.Number, field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTrace
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errTrace
		}
		b = b[n:]
		if err := set(num, f); err != nil {
			return err
		}
	}
	return nil
}

// time reads a google.protobuf.Timestamp.
func (f field) time() (time.Time, error) {
	var sec, nsec int64
	err := fields(f.bytes, func(num protowire.Number, f field) error {
		switch num {
		case 1:
			sec = int64(f.varint)
		case 2:
			nsec = int64(int32(f.varint))
		}
		return nil
	})
	if err != nil || sec == 0 && nsec == 0 {
		return time.Time{}, err
	}
	return time.Unix(sec, nsec), nil
}
