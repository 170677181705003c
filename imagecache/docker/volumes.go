package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache"
)

var (
	_ imagecache.Store        = (*Volumes)(nil)
	_ imagecache.PromptProber = (*Volumes)(nil)
)

// Volumes are the packs of a Docker Engine: content that lies in a volume instead of
// an image, is filled once, and is mounted read-only by containers. It implements
// [imagecache.Store] and [imagecache.Remover], so [imagecache.Cache.Ensure] fills a pack
// once over all processes as it builds an image once.
//
//	volumes := engine.Volumes()
//	packs, err := imagecache.Open(ctx, volumes)
//	…
//	content, err := docker.DirContent(ctx, "./words")
//	…
//	pack, err := volumes.Pack("words", content)
//	…
//	res, err := packs.Ensure(ctx, pack)
//	…
//	host.Mounts = append(host.Mounts, docker.VolumeMount(res.ID, "/words"))
//
// A pack is named by the digest of its content, so content that changes is another
// pack: its volume appears beside the old one, whose readers notice nothing, and two
// versions that are wanted at the same time are both there. What is there is complete:
// a pack counts as present only when the volume that marks it exists, which is made
// when the content has been filled in and read back. A process, or an engine, that
// dies before leaves nothing that counts.
//
// Safe for use by several goroutines, as the engine is by several processes.
type Volumes struct{ s *Store }

// Volumes returns the packs of the engine.
func (s *Store) Volumes() *Volumes { return &Volumes{s} }

// The labels of a pack's volumes, beside those of imagecache.
const (
	// LabelPack has the pack's name. All versions of a pack have it, so that
	// [imagecache.Labelled] finds them.
	LabelPack = "imagelock.pack"

	labelDigest = "io.imagelock.digest" // of the content
	labelVolume = "io.imagelock.volume" // on a mark: the volume that has the content
	labelSize   = "io.imagelock.size"   // on a mark: of the content, in bytes
	labelFiller = "io.imagelock.filler" // with whom whoever filled it shares locks
	labelNonce  = "io.imagelock.nonce"  // told from all others
)

// packDomain is the registry that packs seem to be of: there is none.
const packDomain = "volumes.imagelock/"

var (
	packName = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	packRef  = regexp.MustCompile(`^` + regexp.QuoteMeta(packDomain) + `([a-z0-9._-]+):([0-9a-f]{64})$`)
)

// maxPackName is how long the name of a pack may be, in bytes.
const maxPackName = 63

var (
	// ErrBadPackName is the cause when a pack can't be called that.
	ErrBadPackName = fmt.Errorf("a pack's name has lower-case letters and digits, with single '.', '_' or '-' between them, and at most %d bytes", maxPackName)

	// ErrForeignVolume is the cause when a volume that has a pack's name was made by
	// somebody else. It is never touched.
	ErrForeignVolume = errors.New("volume was not made by imagelock: rename the pack, or remove the volume by hand")
)

// VolumeError says which volume is in a pack's way. It wraps [ErrForeignVolume].
type VolumeError struct {
	Reference, Volume string
	Err               error
}

func (e *VolumeError) Error() string {
	return fmt.Sprintf("docker: pack %q: volume %q: %v", e.Reference, e.Volume, e.Err)
}

// Unwrap returns the cause.
func (e *VolumeError) Unwrap() error { return e.Err }

// Permanent is true: asking again does not help.
func (e *VolumeError) Permanent() bool { return true }

// VolumeMount mounts the volume of a pack read-only: id is [imagecache.Result].ID. The
// engine never copies the image's files into it, as it does into empty volumes.
// Release the result when the container has been created: from then on the engine
// keeps the volume.
func VolumeMount(id, target string) mount.Mount {
	return mount.Mount{Type: mount.TypeVolume, Source: id, Target: target, ReadOnly: true, VolumeOptions: &mount.VolumeOptions{NoCopy: true}}
}

// pack is what a pack's reference says.
type pack struct {
	ref, name, digest string // the digest in hexadecimal digits
}

func parsePack(ref string) (pack, error) {
	m := packRef.FindStringSubmatch(ref)
	if m == nil || len(m[1]) > maxPackName || !packName.MatchString(m[1]) {
		return pack{}, &imagecache.ReferenceError{Tag: clip(ref, 300), Reason: "names no pack: it is made by Volumes.Pack"}
	}
	return pack{ref: ref, name: m[1], digest: m[2]}, nil
}

// prefix is how the names of the pack's volumes begin.
func (p pack) prefix() string { return "pack-" + p.name + "-" + p.digest[:12] }

// mark is the name of the volume that marks the pack as complete. It is empty; it has a
// label that names the volume with the content.
func (p pack) mark() string { return p.prefix() + markSuffix }

const markSuffix = ".complete"

// Identity names the engine's volumes: [Store.Identity] with "-volumes" behind it. So
// packs have a cache directory beside that of images, and records of their own.
func (v *Volumes) Identity(ctx context.Context) (string, error) {
	id, err := v.s.Identity(ctx)
	if err != nil {
		return "", err
	}
	return id + "-volumes", nil
}

// Exposure is [Store.Exposure].
func (v *Volumes) Exposure() string { return v.s.Exposure() }

// ProbeLimit is 20 seconds, within which Probe returns, and at once when its context
// ends.
func (v *Volumes) ProbeLimit() time.Duration { return v.s.requestLimit }

// Probe asks the engine for the pack. It takes two requests if it is there, one if not,
// and starts no container. The ID is the name of the volume with the content.
//
// A volume in the place of the pack's mark that is somebody else's is neither present
// nor absent: the error is a [*VolumeError]. All else is an [*EngineError], or an
// [*imagecache.ReferenceError] if ref is none of [Volumes.Pack]. It returns soon after
// ctx ends, and within 20 seconds.
func (v *Volumes) Probe(ctx context.Context, ref string) (imagecache.Presence, error) {
	p, err := parsePack(ref)
	if err != nil {
		return imagecache.Presence{}, err
	}
	ctx, cancel := v.s.limits.limit(ctx, v.s.requestLimit)
	defer cancel()
	mark, content, err := v.find(ctx, p)
	if err != nil {
		return imagecache.Presence{}, v.fail(ctx, "probe", ref, err)
	}
	if content == nil {
		return imagecache.Presence{State: imagecache.Absent}, nil
	}
	return imagecache.Presence{State: imagecache.Present, ID: content.Name, Inputs: imagecache.LabelledInputs(mark.Labels, ref)}, nil
}

// find returns the mark of a pack and the volume with its content; nil if there is
// none. A mark whose content is gone marks nothing.
func (v *Volumes) find(ctx context.Context, p pack) (mark, content *volume.Volume, err error) {
	if mark, err = v.inspect(ctx, p.mark()); err != nil || mark == nil {
		return nil, nil, err
	}
	name := mark.Labels[labelVolume]
	if mark.Labels[imagecache.LabelReference] != p.ref || !strings.HasPrefix(name, p.prefix()+"-") {
		return nil, nil, &VolumeError{Reference: p.ref, Volume: p.mark(), Err: ErrForeignVolume}
	}
	content, err = v.inspect(ctx, name)
	// Whoever mounts a volume that is gone makes an empty one, without labels.
	if content != nil && content.Labels[imagecache.LabelReference] != p.ref {
		content = nil
	}
	return mark, content, err
}

// inspect returns a volume, nil if there is none of that name.
func (v *Volumes) inspect(ctx context.Context, name string) (*volume.Volume, error) {
	found, err := v.s.api.VolumeInspect(ctx, name)
	if notFound(err) {
		return nil, nil
	}
	if err == nil && found.Name != name {
		err = fmt.Errorf("the engine's answer is not about volume %q", name)
	}
	if err != nil {
		return nil, err
	}
	return &found, nil
}

// fail is [Store.fail] that leaves a [*VolumeError] as it is.
func (v *Volumes) fail(ctx context.Context, op, ref string, err error) error {
	if e, ok := errors.AsType[*VolumeError](err); ok {
		return e
	}
	return v.s.fail(ctx, op, ref, err)
}
