package lock

import (
	"errors"
	"fmt"
	"os"
)

type rawLock struct{ *os.File }

func (l *rawLock) Unlock() error { return l.Close() }

func openRaw(string) *rawLock { return nil }

func tryRaw(string, int) (osLock, error) {
	return nil, fmt.Errorf("inherited locks: %w", errors.ErrUnsupported)
}

func flockFile(*os.File, Mode) (bool, error) {
	return false, fmt.Errorf("flock: %w", errors.ErrUnsupported)
}

func (l *rawLock) isAt(path string) (bool, error) { return isAt(l, path) }
