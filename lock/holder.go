package lock

import (
	"fmt"
	"strings"
	"time"
)

// Process identifies a process, also after its pid was given to another.
type Process struct {
	// PID is the process id in the process's own pid namespace.
	PID int `json:"pid"`
	// Start tells two processes of one pid apart: the start time as the
	// system counts it (on Linux clock ticks since boot), zero if unknown.
	Start uint64 `json:"start,omitempty"`
	// Boot is the id of the boot in which the process runs, if known.
	Boot string `json:"boot,omitempty"`
	// Namespace is the pid namespace in which PID counts, if known.
	Namespace string `json:"pidns,omitempty"`
	// Host is the host's name.
	Host string `json:"host,omitempty"`
	// Executable is the path of the program, without its arguments: they may
	// hold secrets.
	Executable string `json:"exe,omitempty"`
}

// String returns "pid 4711 (harness)"; for a zero Process "an unknown process".
func (p Process) String() string {
	if p == (Process{}) {
		return "an unknown process"
	}
	name := p.Executable
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	if name == "" {
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("pid %d (%s)", p.PID, name)
}

// Holder is somebody who holds a key, as the holder itself recorded it. What it
// says is advisory: it is for people, never for decisions.
type Holder struct {
	Process
	Mode Mode
	// Operation is what the key is held for; may be empty.
	Operation string
	// Since is when the key was granted, by the holder's clock; zero if
	// unknown.
	Since time.Time
	// LogPath is where the holder's work can be followed; may be empty.
	LogPath string
	// Recorded is false for a holder that keeps no record (flock(1), Python,
	// the orphaned child of a dead process), found by other means.
	Recorded bool
}

// String returns "pid 4711 (harness) for build since 3m2s, log /path".
func (h *Holder) String() string {
	var b strings.Builder
	b.WriteString(h.Process.String())
	if h.Operation != "" {
		b.WriteString(" for " + h.Operation)
	}
	if !h.Since.IsZero() {
		// A clock that was set back must not yield a negative age.
		fmt.Fprintf(&b, " since %v", max(0, time.Since(h.Since)).Round(time.Millisecond))
	}
	if h.LogPath != "" {
		b.WriteString(", log " + h.LogPath)
	}
	if !h.Recorded {
		b.WriteString(", without a record")
	}
	return b.String()
}
