//go:build !linux

package process

import (
	"context"
	"os"
)

func (*Info) identify() {}

// FlockOwners finds nobody on this system.
func FlockOwners(context.Context, string) []Info { return nil }

// Flock is a granted flock(2) lock.
type Flock struct {
	PID    int
	Shared bool
}

// Flocks shows nothing on this system.
type Flocks struct{}

// ReadFlocks returns a table that shows nothing.
func ReadFlocks(*os.File) *Flocks { return &Flocks{} }

// Any is false.
func (*Flocks) Any() bool { return false }

// All is false: nothing is shown.
func (*Flocks) All(os.FileInfo) bool { return false }

// On returns none.
func (*Flocks) On(os.FileInfo) []Flock { return nil }

// OpenFlock is a locked file that a process has open.
type OpenFlock struct {
	Flock
	Inode uint64
}

// Inode is 0.
func Inode(os.FileInfo) uint64 { return 0 }

// IsOn tells whether the lock is on that file.
func (OpenFlock) IsOn(os.FileInfo) bool { return false }

// OpenFlocks finds none.
func OpenFlocks(context.Context, func(string) bool) []OpenFlock { return nil }

// Holds is false: it can't be seen.
func Holds(context.Context, int, string, os.FileInfo) (held, denied bool) { return false, false }

// Is is false: it can't be seen.
func Is(int, Info) bool { return false }

// Describe describes nobody.
func Describe(int) (Info, bool) { return Info{}, false }

// InheritedFlock finds nothing on this system.
func InheritedFlock(string) (Info, bool) { return Info{}, false }
