package oci

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// skopeo skips the test where there is none; IMAGELOCK_REQUIRE_SKOPEO=1 makes
// that a failure, so that CI cannot lose the test unseen.
func skopeo(t *testing.T) func(args ...string) string {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_SKOPEO") == "1" {
			t.Fatal("IMAGELOCK_REQUIRE_SKOPEO=1 and there is no skopeo in PATH")
		}
		t.Skip("no skopeo in PATH (apt-get install skopeo)")
	}
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command(path, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

func TestSkopeoFindsEveryNameAndReadsTheImage(t *testing.T) {
	run := skopeo(t)
	s := openStore(t, t.TempDir())
	refs := []string{
		"docker.io/library/app:latest", "localhost:5000/team/app:v1.2", "docker.io/library/django__django-1:latest",
		"docker.io/library/a---b:latest", "docker.io/library/app:_-x", "docker.io/library/app:v-", "docker.io/x/a.b_c--d:V_1",
	}
	ids := map[string]string{}
	for _, ref := range refs {
		ids[ref] = add(t, s, ref, tinyImage(t, ref))
	}
	for _, ref := range refs {
		var got struct{ Digest string }
		out := run("inspect", "oci:"+s.Path()+":"+RefName(ref))
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Digest != ids[ref] {
			t.Errorf("%s: skopeo says %v, want %s (%v)", ref, got, ids[ref], err)
		}
	}
	// It copies, which reads all blobs and checks them.
	run("copy", "oci:"+s.Path()+":"+refs[0], "dir:"+t.TempDir())
}

func TestAnImageOfDockersTypesIsKeptAsAnOCIOneThatSkopeoFinds(t *testing.T) {
	s := openStore(t, t.TempDir())
	img, err := random.Image(1000, 2) // of Docker's types
	if err != nil {
		t.Fatal(err)
	}
	if mt, _ := empty.Image.MediaType(); mt != types.DockerManifestSchema2 {
		t.Fatalf("an empty image is %s", mt)
	}
	add(t, s, "a", img)
	add(t, s, "b", empty.Image)
	checkLayout(t, s, true)
	run := skopeo(t)
	run("copy", "oci:"+s.Path()+":docker.io/library/a:latest", "dir:"+t.TempDir())
	run("inspect", "oci:"+s.Path()+":docker.io/library/b:latest")
}

func TestEntriesThatSkopeoAddsAreKept(t *testing.T) {
	run := skopeo(t)
	s := openStore(t, t.TempDir())
	add(t, s, "mine", tinyImage(t, "mine"))
	run("copy", "oci:"+s.Path()+":docker.io/library/mine:latest", "oci:"+s.Path()+":theirs")
	add(t, s, "second", tinyImage(t, "second"))
	add(t, s, "third", tinyImage(t, "third"))
	run("inspect", "oci:"+s.Path()+":theirs")
	for _, name := range []string{"mine", "second", "third"} {
		run("inspect", "oci:"+s.Path()+":docker.io/library/"+name+":latest")
	}
}
