package inputs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// 50,000 files of 4 KiB in 1,000 directories.
func BenchmarkDir(b *testing.B) {
	dir := b.TempDir()
	content := make([]byte, 4<<10)
	for i := range 50_000 {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i%1000))
		if i < 1000 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		copy(content, fmt.Sprint(i))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d.go", i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	in := New().Dir(dir)
	for b.Loop() {
		if _, err := in.Digest(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
