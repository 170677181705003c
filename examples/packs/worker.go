package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// workerEnv makes a process of this program a worker.
const workerEnv = "IMAGELOCK_PACKS_WORKER"

// job is what a worker is told, on its standard input.
type job struct {
	Run string // names what the run leaves in the engine until its end
	Dir string // of the run
}

// outcome is what a worker says.
type outcome struct {
	Image, Words, Tools string // outcomes
	Err                 string
}

// user has what a process needs that uses packs.
type user struct {
	job
	engine        *docker.Store
	images, packs *imagecache.Cache
}

func openUser(ctx context.Context, j job) (*user, error) {
	u := &user{job: j}
	var err error
	if u.engine, err = docker.Open(ctx); err != nil {
		return nil, err
	}
	if u.images, err = imagecache.Open(ctx, u.engine, imagecache.WithDir(filepath.Join(j.Dir, "images"))); err == nil {
		u.packs, err = imagecache.Open(ctx, u.engine.Volumes(), imagecache.WithDir(filepath.Join(j.Dir, "packs")))
	}
	if err != nil {
		return nil, errors.Join(err, u.close())
	}
	return u, nil
}

func (u *user) close() error {
	var errs []error
	for _, c := range []*imagecache.Cache{u.packs, u.images} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, u.engine.Close())...)
}

// words ensures the pack that is a directory.
func (u *user) words(ctx context.Context) (imagecache.Result, error) {
	content, err := docker.DirContent(ctx, u.wordsDir())
	if err != nil {
		return imagecache.Result{}, err
	}
	return u.ensure(ctx, "words", content)
}

// tools ensures the image in which the tools are built, and then the pack of what is in
// its directory /out.
func (u *user) tools(ctx context.Context) (img, pack imagecache.Result, err error) {
	img, err = u.images.Ensure(ctx, imagecache.Image{
		Tag:    u.toolsTag(),
		Labels: map[string]string{runLabel: u.Run},
		Build: u.engine.BuildContext(docker.ContextBuild{
			Dir: u.toolsDir(), NetworkMode: "none",
			Args: map[string]string{"BASE": u.baseTag(), "RUN": u.Run, "BUILD_TIME": "1s"},
		}),
	})
	if err != nil {
		return img, pack, err
	}
	defer img.Release()
	content, err := docker.ImageContent(img.ID, "/out")
	if err == nil {
		pack, err = u.ensure(ctx, "tools", content)
	}
	return img, pack, err
}

func (u *user) ensure(ctx context.Context, name string, content docker.Content) (imagecache.Result, error) {
	pack, err := u.engine.Volumes().Pack(u.packName(name), content)
	if err != nil {
		return imagecache.Result{}, err
	}
	pack.Labels[runLabel] = u.Run
	return u.packs.Ensure(ctx, pack)
}

// work ensures both packs and runs a container that checks them.
func (u *user) work(ctx context.Context) (o outcome, err error) {
	words, err := u.words(ctx)
	if err != nil {
		return o, err
	}
	defer words.Release()
	img, tools, err := u.tools(ctx)
	if err != nil {
		return o, err
	}
	defer tools.Release()
	o = outcome{Image: img.Outcome.String(), Words: words.Outcome.String(), Tools: tools.Outcome.String()}
	want, err := digestWords(u.wordsDir())
	if err != nil {
		return o, err
	}
	id, err := u.start(ctx, []string{"/helper", "check", want}, docker.VolumeMount(words.ID, "/packs/words"), docker.VolumeMount(tools.ID, "/packs/tools"))
	if err != nil {
		return o, err
	}
	// The engine keeps the volumes from here on.
	if err := errors.Join(words.Release(), tools.Release()); err != nil {
		return o, err
	}
	_, err = u.end(ctx, id)
	return o, err
}

// workerMain is the worker process. It lives no longer than its parent, whose end of its
// standard input tells it to stop.
func workerMain() int {
	// Signals reach the whole process group. The parent decides what follows.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := bufio.NewReader(os.Stdin)
	var j job
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &j)
	}
	var u *user
	if err == nil {
		u, err = openUser(ctx, j)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	fmt.Println("ready")
	if _, err := in.ReadBytes('\n'); err != nil {
		return exitInterrupted
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	o, err := u.work(ctx)
	if err = errors.Join(err, u.close()); err != nil {
		o.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return exitFailed
	}
	return 0
}

// process is a worker, as its parent has it.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startProcess starts a worker, which is ready when it has said so.
func startProcess(ctx context.Context, j job) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), workerEnv+"=1")
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	p.cmd.Cancel, p.cmd.WaitDelay = p.in.Close, cleanLimit/2+10*time.Second
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.in).Encode(j); err != nil {
		return nil, errors.Join(err, p.wait())
	}
	return p, nil
}

func (p *process) ready() error {
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("a process did not start: %q, %v", line, err)
	}
	return nil
}

// do lets it work, and returns what it says.
func (p *process) do() (o outcome, err error) {
	if _, err = io.WriteString(p.in, "go\n"); err == nil {
		err = json.NewDecoder(p.out).Decode(&o)
	}
	return o, err
}

func (p *process) wait() error {
	_ = p.in.Close()
	return p.cmd.Wait()
}
