package locktest

import (
	"context"
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// request asks a worker to do something. Keys are bytes, as JSON would repair
// those that are no UTF-8.
type request struct {
	ID   int
	Op   op
	Keys [][]byte `json:",omitempty"`
	Mode wireMode
	// Wait is the wait limit, nil for none; Timeout the context's deadline from
	// now, 0 for none.
	Wait    *time.Duration `json:",omitempty"`
	Timeout time.Duration  `json:",omitempty"`
	Ended   bool           `json:",omitempty"` // the context has ended before the call
	Where   string         `json:",omitempty"` // opOpen
	Session int            // the Locker that is asked
	Lock    int            // of opRelease and others: the grant
	Carry   int            `json:",omitempty"` // a grant the context carries, if not 0
	Times   int            `json:",omitempty"` // of opRelease: how often, at the same time
	Target  int            `json:",omitempty"` // of opStop: the request to stop
	Storm   *storm         `json:",omitempty"`
}

// wireMode is a lock.Mode as a number: those that do not exist travel as well.
type wireMode uint8

func (m wireMode) String() string { return lock.Mode(m).String() }

type op string

const (
	opOpen          op = "open"
	opShut          op = "shut" // closes the Locker, and keeps the session
	opClose         op = "close"
	opAcquire       op = "acquire"
	opTry           op = "try"
	opPoll          op = "poll" // tries until it is granted
	opAll           op = "all"
	opAllAndRelease op = "all, and release"
	opAny           op = "any"
	opRelease       op = "release"
	opState         op = "state" // of a lock's context
	opLose          op = "lose"
	opStorm         op = "storm"
	opStream        op = "stream" // acquires and releases until it is stopped
	opStop          op = "stop"   // ends the context of another request
	opExit          op = "exit"
)

// message is what a worker says: the answer to a request, or an event that it
// wants to be acknowledged before it goes on.
type message struct {
	Reply *reply `json:",omitempty"`
	Event *event `json:",omitempty"`
}

// order is what a worker is told.
type order struct {
	Request *request `json:",omitempty"`
	Ack     int      `json:",omitempty"` // of the event
}

type reply struct {
	ID      int
	Failure *failure `json:",omitempty"`
	Grants  []grant  `json:",omitempty"`
	Took    time.Duration
	Done    int // acquisitions of a storm or stream
	// Ended and Cause are the state of a lock's context.
	Ended bool     `json:",omitempty"`
	Cause *failure `json:",omitempty"`
	// Broken are promises that are broken whatever was asked.
	Broken []string `json:",omitempty"`
}

// grant is a lock that a worker holds.
type grant struct {
	Lock  int
	Key   []byte
	Mode  wireMode
	Token uint64
}

// event says that a lock was granted, or is about to be released.
type event struct {
	ID    int
	In    bool
	Lock  int
	Key   []byte
	Mode  wireMode
	Token uint64
}

// failure is an error on its way between processes. errors.Is tells the sentinels
// apart.
type failure struct {
	Text   string
	Kinds  []string // the sentinels that it is
	Waited time.Duration
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Is(target error) bool {
	for _, k := range f.Kinds {
		if sentinels[k] == target {
			return true
		}
	}
	return false
}

// errStopped is the cause with which opStop ends a context.
var errStopped = errors.New("locktest: the caller has changed its mind")

var sentinels = map[string]error{
	"held":        lock.ErrHeld,
	"limit":       lock.ErrWaitLimit,
	"lost":        lock.ErrLost,
	"key":         lock.ErrBadKey,
	"option":      lock.ErrBadOption,
	"closed":      lock.ErrClosed,
	"deadline":    context.DeadlineExceeded,
	"canceled":    context.Canceled,
	"unsupported": errors.ErrUnsupported,
	"stopped":     errStopped,
	"reentry":     lock.ErrReentry,
	"upgrade":     lock.ErrUpgrade,
}

func newFailure(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	for name, s := range sentinels {
		if errors.Is(err, s) {
			f.Kinds = append(f.Kinds, name)
		}
	}
	if e, ok := errors.AsType[*lock.Error](err); ok {
		f.Waited = e.Waited
	}
	return f
}
