package docker

import (
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/dockerd"
)

// TestAnEngineThatIsKilledInMidFill leaves nothing that counts, and the next fill after
// its restart clears up.
func TestAnEngineThatIsKilledInMidFill(t *testing.T) {
	d := dockerd.Start(t)
	s := realEngine(t, WithHost(d.Host))
	const name = "words"
	content, err := DirContent(t.Context(), packDir(t, map[string]string{"a": "text", "b": strings.Repeat("much\n", 1000)}))
	if err != nil {
		t.Fatal(err)
	}
	img := mustPack(t, s, name, content)
	for _, point := range []string{inSend, beforeMark} {
		dies, err := stopping(s.Volumes(), name, content, point, func() { d.End(syscall.SIGKILL) })
		if err != nil {
			t.Fatal(err)
		}
		packs := openPacks(t, s, t.TempDir(), imagecache.WithFailureMemory(0))
		if _, err := packs.Ensure(t.Context(), dies); err == nil {
			t.Errorf("%s: filled", point)
		}
		if p, err := s.Volumes().Probe(t.Context(), img.Tag); err == nil || p.State != imagecache.Unknown {
			t.Errorf("%s: without an engine: %+v, %v", point, p, err)
		}
		d.Restart(t)
		_, contents := volumesOf(t, s, name)
		if p, err := s.Volumes().Probe(t.Context(), img.Tag); err != nil || p.State != imagecache.Absent || len(contents) != 1 {
			t.Errorf("%s: after the restart: %+v, %v, volumes %q", point, p, err, contents)
		}
		res := ensurePack(t, packs, img)
		if got := digestOfVolume(t, s, res.ID); got != content.Digest() {
			t.Errorf("%s: it has %s, want %s", point, got, content.Digest())
		}
		if marks, contents := volumesOf(t, s, name); len(marks) != 1 || len(contents) != 1 {
			t.Errorf("%s: volumes %q, %q", point, marks, contents)
		}
		if err := res.Release(); err != nil {
			t.Fatal(err)
		}
		if err := packs.Remove(t.Context(), img.Tag); err != nil {
			t.Fatal(err)
		}
	}
}
