package lock

import (
	"fmt"
	"strings"
	"time"
)

// State is what is known of a key.
type State uint8

const (
	// StateNotKnown: no record names a holder, and the system can't tell of all
	// processes whether they hold the lockfile. Outside of Linux' first pid
	// namespace (in most containers, too) a key can be held by programs that
	// keep no record without anybody seeing it, so there is no StateFree there.
	StateNotKnown State = iota
	// StateFree: nobody holds the key.
	StateFree
	// StateHeld: the key is held by who says so in a record. See
	// [Holder].Verified.
	StateHeld
	// StateHeldByUnknown: the key is held, and no record says by whom. There
	// is a Holder for it, which has its pid where the system could tell.
	StateHeldByUnknown
)

var stateNames = [...]string{"not known", "free", "held", "held by unknown"}

// String returns "not known", "free", "held" or "held by unknown".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText returns what String does. It is part of the JSON of a [KeyInfo].
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("%w: %v", ErrBadOption, s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("%w: no state is called %q", ErrBadOption, text)
}

// MarshalText returns "exclusive" or "shared".
func (m Mode) MarshalText() ([]byte, error) {
	if m != Exclusive && m != Shared {
		return nil, fmt.Errorf("%w: %v", ErrBadOption, m)
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *Mode) UnmarshalText(text []byte) error {
	for _, mode := range []Mode{Exclusive, Shared} {
		if mode.String() == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("%w: no mode is called %q", ErrBadOption, text)
}

// KeyInfo is what [Inspect] tells of a key. Its JSON names are stable.
type KeyInfo struct {
	// Key is the very key, fit to be printed. It is empty if no record names
	// it, or not in a way that can be trusted: lockfiles are named by the
	// hash, and records cut long keys.
	Key string `json:"key,omitempty"`
	// Label is what records have instead of Key: the beginning of a long one,
	// one cleaned of what could drive a terminal, or something made up.
	Label string `json:"label,omitempty"`
	// Hash is the SHA-256 of the key, in hex.
	Hash string `json:"hash"`
	// Path is the lockfile. It may not exist (yet) if the key is only waited
	// for.
	Path  string `json:"path"`
	State State  `json:"state"`
	// Holders are those who hold the key, the longest first: several in shared
	// mode, at least one if the state is StateHeld or StateHeldByUnknown, else
	// none.
	Holders []Holder `json:"holders,omitempty"`
	// Waiters are the processes that wait for the key, the longest first. A
	// process waits even for a key that it holds, if others of its goroutines
	// want it.
	Waiters []Waiter `json:"waiters,omitempty"`
}

// Waiter is a process that waits for a key, as it has recorded itself.
type Waiter struct {
	Process
	// Count is how many of its goroutines wait.
	Count int `json:"count"`
	// Mode, Operation and Since are of the goroutine that is first in line;
	// see [Holder]. Records of versions that did not tell the mode count as
	// Exclusive.
	Mode      Mode      `json:"mode"`
	Operation string    `json:"op,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	// Verified is true if the record's file is locked by the very process that
	// the record names; see [Holder].
	Verified bool `json:"verified"`
}

// String returns "pid 4711 (harness) for build since 3s, 5 goroutines".
func (w *Waiter) String() string {
	h := Holder{Process: w.Process, Operation: w.Operation, Since: w.Since, Recorded: true, Verified: w.Verified}
	s := h.String()
	if w.Mode == Shared {
		s += ", shared"
	}
	if w.Count > 1 {
		s += fmt.Sprintf(", %d goroutines", w.Count)
	}
	return s
}

// String returns one line: `"app:v1" held by pid 4711 (harness) for build since
// 3m2s; 1 process waits: pid 4712 (harness) since 1m0s, 5 goroutines`. Of many
// holders or waiters it names the first.
func (k *KeyInfo) String() string {
	var b strings.Builder
	switch {
	case k.Key != "":
		fmt.Fprintf(&b, "%q", k.Key)
	case k.Label != "":
		fmt.Fprintf(&b, "%s (%q)", k.Hash, k.Label)
	default:
		b.WriteString(k.Hash)
	}
	if len(k.Holders) == 0 {
		b.WriteString(" " + k.State.String())
	} else {
		h := &k.Holders[0]
		b.WriteString(" held")
		if h.Mode == Shared {
			b.WriteString(" shared")
		}
		b.WriteString(" by " + h.String())
		if more := len(k.Holders) - 1; more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
	}
	switch n := len(k.Waiters); n {
	case 0:
	case 1:
		b.WriteString("; 1 process waits: " + k.Waiters[0].String())
	default:
		fmt.Fprintf(&b, "; %d processes wait, the first: %s", n, k.Waiters[0].String())
	}
	return b.String()
}
