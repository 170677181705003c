package lock

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestNewRecordIsNeverSeenAsADeadOnes(t *testing.T) {
	if !renamesOpenFiles {
		t.Skip("records are made in their place here")
	}
	d := openDir(t, t.TempDir())
	dir := filepath.Join(d.Path(), recordDir)
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				names, err := os.ReadDir(dir)
				if err != nil {
					t.Error(err)
					return
				}
				for _, n := range names {
					path := filepath.Join(dir, n.Name())
					if strings.HasSuffix(path, tmpExt) || alive(path, n.Name(), false) {
						continue
					}
					if _, err := os.Lstat(path); err == nil {
						t.Errorf("%s can be locked", path)
						return
					}
				}
			}
		})
	}
	for range 300 {
		o, err := Open(d.Path())
		if err != nil {
			t.Error(err)
			break
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	looking.Wait()
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left %v", names)
	}
}
