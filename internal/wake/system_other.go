//go:build !linux

package wake

// System returns a source without events: what the other systems offer (kqueue
// on macOS) does not tell of a holder's death.
func System() Source { return Polling{} }

// Into is the Watch of System with c for its channel.
func Into(string, chan struct{}) (Watch, error) { return nil, ErrUnavailable }

// Writes is the Watch of System that hears of every write as well.
func Writes(string) (Watch, error) { return nil, ErrUnavailable }
