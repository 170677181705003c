package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache"
)

const (
	// fillDir is where the container that is never started has the volume.
	fillDir = "/pack"
	// tidyLimit bounds what is done after a fill has ended, also one that was
	// cancelled.
	tidyLimit = 10 * time.Second
)

// filling is one fill of a pack on its way.
type filling struct {
	v      *Volumes
	p      pack
	b      *imagecache.Build
	nonce  string // tells this fill from all others
	labels map[string]string
	volume string                      // with the content
	keep   bool                        // the volume: its mark may be there
	undo   []func(ctx context.Context) // what is to be done in the end, last first
}

// fill fills a volume and marks it as complete.
func (v *Volumes) fill(ctx context.Context, p pack, content Content, b *imagecache.Build) error {
	if b.Reference != p.ref {
		return v.fail(ctx, "fill", b.Reference, fmt.Errorf("%w: the build of %q", ErrBadOption, p.ref))
	}
	var random [8]byte
	_, _ = rand.Read(random[:])
	f := &filling{v: v, p: p, b: b, nonce: hex.EncodeToString(random[:])}
	f.labels = maps.Clone(b.Labels)
	if f.labels == nil {
		f.labels = map[string]string{}
	}
	maps.Copy(f.labels, map[string]string{imagecache.LabelReference: p.ref, LabelPack: p.name, labelDigest: content.Digest(), labelNonce: f.nonce, labelFiller: filler(b.LogPath, f.nonce)})
	defer f.tidy()
	if err := f.run(ctx, content); err != nil {
		if e, ok := errors.AsType[*PackError](err); ok && ctx.Err() == nil {
			if e.Pack == "" {
				err = &PackError{Pack: p.name, Path: e.Path, Err: e.Err}
			}
			return err
		}
		return v.fail(ctx, "fill", p.ref, err)
	}
	return nil
}

// filler names those who share locks with us: whoever has the same cache directory. They
// don't fill one pack at the same time, so what one of them has left is of the dead.
// Containers that have one host name and one path have not one directory for it, so
// that is told by its identity as well. Who has none shares locks with nobody.
func filler(logPath, nonce string) string {
	dir := filepath.Dir(filepath.Dir(logPath))
	id, err := directoryID(dir)
	if logPath == "" || err != nil {
		return nonce
	}
	host, _ := os.Hostname()
	return hash(host, dir, id)
}

func (f *filling) step(n int, format string, args ...any) {
	const steps = 4
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(f.b.Log, "[%d/%d] %s\n", n, steps, text)
	if f.b.Step != nil {
		f.b.Step(n, steps, text)
	}
}

func (f *filling) run(ctx context.Context, content Content) error {
	there, err := f.prepare(ctx)
	if err != nil || there {
		return err // what is there is what the digest says
	}
	if err := f.createVolume(ctx); err != nil {
		return err
	}
	id, err := f.container(ctx)
	if err != nil {
		return err
	}
	f.step(2, "fill volume %s from %s", f.volume, content.what)
	sent, err := f.send(ctx, id, content)
	if err != nil {
		return err
	}
	if content.exact && sent.digest() != f.p.digest {
		return &PackError{Err: fmt.Errorf("%s %w", content.what, errChangedContent)}
	}
	f.step(3, "check %d entries, %d bytes", len(sent.records), sent.size)
	if err := f.check(ctx, id, sent); err != nil {
		return err
	}
	// Who is killed after the mark is not tidied up after: the pack is there, and is not
	// filled again. This container would keep it from being removed for ever.
	f.discard(ctx, id)
	f.step(4, "mark volume %s as complete", f.volume)
	return f.mark(ctx, sent.size)
}

// createVolume creates the volume for the content. Its name is nobody's yet; to create a
// volume that exists is no error, so its labels must tell.
func (f *filling) createVolume(ctx context.Context) error {
	f.volume = f.p.prefix() + "-" + f.nonce
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := answered(ctx)
	defer cancel()
	created, err := f.v.s.api.VolumeCreate(ctx, volume.CreateOptions{Name: f.volume, Labels: f.labels})
	if err == nil && created.Labels[labelNonce] != f.nonce {
		return &VolumeError{Reference: f.p.ref, Volume: f.volume, Err: ErrForeignVolume}
	}
	// Also if the answer was lost: nobody else has the name.
	f.later(func(ctx context.Context) {
		if !f.keep {
			_ = f.v.drop(ctx, f.volume)
		}
	})
	return err
}

// container creates the container through which the engine lets us at the volume.
func (f *filling) container(ctx context.Context) (id string, err error) {
	host := &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{{
		Type: mount.TypeVolume, Source: f.volume, Target: fillDir, VolumeOptions: &mount.VolumeOptions{NoCopy: true}}}}
	image, err := f.v.s.emptyImage()
	if err != nil {
		return "", err
	}
	f.later(func(ctx context.Context) { image.remove(ctx) })
	for try := 0; ; try++ {
		if err := image.load(ctx); err != nil {
			return "", err
		}
		id, err = f.create(ctx, image.tag, host)
		if !notFound(err) || try >= emptyTries {
			return id, err
		}
		// Another fill has ended just now and has removed the image.
	}
}

// create creates a container that is never started, and removes it in the end.
func (f *filling) create(ctx context.Context, image string, host *container.HostConfig) (id string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ctx, cancel := answered(ctx)
	defer cancel()
	c, err := f.v.s.api.ContainerCreate(ctx, &container.Config{Image: image, Cmd: []string{"-"}, Labels: f.labels}, host, nil, nil, "")
	if err != nil {
		return "", err
	}
	f.later(func(ctx context.Context) { f.discard(ctx, c.ID) })
	return c.ID, nil
}

func (f *filling) discard(ctx context.Context, id string) {
	_ = f.v.s.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
}

// send sends the content through the container into the volume.
func (f *filling) send(ctx context.Context, id string, content Content) (*census, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	var sent census
	done := make(chan error, 1)
	go func() {
		buffered := bufio.NewWriterSize(w, 128<<10)
		archive := tar.NewWriter(buffered)
		err := content.write(ctx, f, &sent, archive)
		if err == nil {
			err = archive.Close()
		}
		if err == nil {
			err = buffered.Flush()
		}
		w.CloseWithError(err)
		done <- err
	}()
	err := f.v.s.api.CopyToContainer(ctx, id, fillDir, r, container.CopyToContainerOptions{})
	_ = r.CloseWithError(errRefused)
	if err != nil {
		cancel()
	}
	// What ended the sending is the cause of the engine's complaint, unless that ended
	// the sending.
	if werr := <-done; err == nil || werr != nil && !errors.Is(werr, errRefused) && !errors.Is(werr, context.Canceled) {
		err = werr
	}
	return &sent, err
}

// errRefused ends the sending if the engine does not want all of it.
var errRefused = errors.New("the engine has not taken all of the content")

// check reads the volume back.
func (f *filling) check(ctx context.Context, id string, sent *census) error {
	r, _, err := f.v.s.api.CopyFromContainer(ctx, id, fillDir+"/.")
	if err != nil {
		return err
	}
	defer r.Close()
	var got census
	if err := got.copy(r, ".", nil); err != nil {
		return err
	}
	if got.digest() != sent.digest() {
		return fmt.Errorf("volume %q has not what was sent: %s; does its file system keep owners and modes, or is somebody else writing to it?", f.volume, got.difference(sent))
	}
	return nil
}

// copyOut passes the directory dir of an image on, through a container that is never
// started.
func (f *filling) copyOut(ctx context.Context, image, dir string, c *census, w *tar.Writer) error {
	id, err := f.create(ctx, image, &container.HostConfig{NetworkMode: "none"})
	if notFound(err) {
		return &PackError{Path: dir, Err: fmt.Errorf("image %s is not there: hold its result until the pack was ensured: %w", image, err)}
	}
	if err != nil {
		return err
	}
	r, stat, err := f.v.s.api.CopyFromContainer(ctx, id, dir)
	switch {
	case notFound(err):
		return &PackError{Path: dir, Err: fmt.Errorf("image %s has no such directory: %w", image, os.ErrNotExist)}
	case err != nil:
		return err
	}
	defer func() {
		r.Close()
		f.discard(context.WithoutCancel(ctx), id) // not as late as the rest: it keeps the image
	}()
	if !stat.Mode.IsDir() {
		return &PackError{Path: dir, Err: fmt.Errorf("it is no directory in image %s", image)}
	}
	return c.copy(r, stat.Name, w)
}

// mark creates the volume that says that the pack is complete, in one step. If somebody
// who does not share our locks was first, his content counts; it is as good.
func (f *filling) mark(ctx context.Context, size int64) error {
	labels := maps.Clone(f.labels)
	labels[labelVolume], labels[labelSize] = f.volume, strconv.FormatInt(size, 10)
	if err := ctx.Err(); err != nil {
		return err
	}
	// Not to be cut short: without an answer the mark may be there, and others use what
	// it names, so that the content must stay.
	ctx, cancel := limit(context.WithoutCancel(ctx), tidyLimit)
	defer cancel()
	f.keep = true
	made, err := f.v.s.api.VolumeCreate(ctx, volume.CreateOptions{Name: f.p.mark(), Labels: labels})
	if err != nil {
		return err
	}
	f.keep = made.Labels[labelNonce] == f.nonce
	if made.Labels[imagecache.LabelReference] != f.p.ref {
		return &VolumeError{Reference: f.p.ref, Volume: f.p.mark(), Err: ErrForeignVolume}
	}
	return nil
}
