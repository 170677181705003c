package lock

import (
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/internal/process"
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

// String returns "pid 4711 (harness)"; for a zero Process "an unknown process". It
// says so if the pid counts in another pid namespace than the caller's.
func (p Process) String() string {
	if p == (Process{}) {
		return "an unknown process"
	}
	name := p.Executable
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	text := fmt.Sprintf("pid %d", p.PID)
	if name != "" {
		text += " (" + name + ")"
	}
	if own := process.Self().Namespace; p.Namespace != "" && own != "" && p.Namespace != own {
		text += " of another pid namespace"
	}
	return text
}

// Holder is somebody who holds a key. Operation, Since and LogPath are what the
// holder itself recorded, cleaned of what could drive a terminal: for people, never
// for decisions.
type Holder struct {
	Process
	Mode Mode `json:"mode"`
	// Operation is what the key is held for; may be empty.
	Operation string `json:"op,omitempty"`
	// Since is when the key was granted, by the holder's clock; zero if
	// unknown.
	Since time.Time `json:"since,omitzero"`
	// LogPath is where the holder's work can be followed; may be empty.
	LogPath string `json:"log,omitempty"`
	// Recorded is false for a holder that keeps no record (flock(1), Python,
	// the orphaned child of a dead process), found by other means.
	Recorded bool `json:"recorded"`
	// Verified is true if the system itself has shown that this process holds
	// the key. Of a holder with a record that means: the record's file is
	// locked by the very process that the record names (its boot, its start
	// time and its pid in its own pid namespace agree), and the same process
	// has the key's lockfile locked in Mode. Of one without a record: it has
	// the lockfile open and locked.
	//
	// It is false where the system shows another process, and where it does
	// not show it: on other systems than Linux, in a pid namespace that the
	// caller can't see, where /proc hides others' processes. A record is
	// listed as long as its file is locked, by whomever, so without Verified
	// anybody who can write into the directory may have made it up. Where the
	// system shows all who hold a key [Inspect] leaves out all others.
	Verified bool `json:"verified"`
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
	switch {
	case !h.Recorded:
		b.WriteString(", without a record")
	case !h.Verified:
		b.WriteString(", unverified")
	}
	return b.String()
}
