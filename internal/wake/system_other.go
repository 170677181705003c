//go:build !linux

package wake

// System returns a source without events: what the other systems offer (kqueue
// on macOS) does not tell of a holder's death.
func System() Source { return Polling{} }
