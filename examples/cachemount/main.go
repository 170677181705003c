// Command cachemount builds five services of one workspace at the same time, in five
// processes, with a cache mount that they share, on the real Docker Engine: by every way
// that people use, and by imagelock. The services unpack into the mount as cargo does,
// which breaks when two unpack the same crate at once. Printed is how often builds
// fail, and how long the five take, first and after a change of their sources.
//
//	go run ./examples/cachemount [-rounds 20] [-json]
//
// Two more scenes are about mounts that BuildKit locks: services that use two of them, as
// apt needs them, eight in the same order, and two in opposite orders, on which BuildKit
// hangs; and a plan of four services with a target directory each, beside one in which
// they lock everything.
//
// What the services compile is waited for, not reckoned, so that the number of CPUs does
// not decide: the times compare ways of locking, not compilers.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are what the flags say.
type options struct {
	rounds                       int
	scene                        string
	unpack, build, again         time.Duration
	apt, opposite, hung, service time.Duration
	apart                        bool
}

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if text := os.Getenv(jobEnv); text != "" {
		if err := work(ctx, text); err != nil {
			log.Fatal(err)
		}
		return
	}
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 3, "how often each method builds all services anew; the scenes of apt and of the plan, which hardly differ from round to round, take a tenth")
	asJSON := flag.Bool("json", false, "print one line of JSON")
	flag.StringVar(&o.scene, "scene", "all", `"shared", "locked" (apt, and opposite orders), "plan" or "all"`)
	flag.DurationVar(&o.unpack, "unpack", 30*time.Millisecond, "how long unpacking a crate takes")
	flag.DurationVar(&o.build, "build", 2*time.Second, "how long a first build compiles")
	flag.DurationVar(&o.again, "again", 400*time.Millisecond, "how long a build compiles after a change")
	flag.DurationVar(&o.apt, "apt", 300*time.Millisecond, "how long a RUN with apt's mounts takes")
	flag.DurationVar(&o.opposite, "opposite", 300*time.Millisecond, "how long a RUN with mounts in opposite orders takes")
	flag.DurationVar(&o.hung, "hung", 6*time.Second, "after what time such a build counts as hung")
	flag.DurationVar(&o.service, "service", 8400*time.Millisecond, "how long a service of the plan compiles")
	flag.BoolVar(&o.apart, "apart", false, "measure every method by itself; otherwise those that have no time to keep run beside one after another")
	flag.Parse()
	scenes := o.scenes()
	if o.rounds < 1 || o.rounds > 1000 || scenes == nil || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	begun := time.Now()
	rows, err := run(ctx, o, scenes)
	if err != nil {
		log.Fatal(err)
	}
	if !*asJSON {
		print(os.Stdout, rows)
		fmt.Printf("\n%d rounds in %v\n", o.rounds, time.Since(begun).Round(time.Second))
		return
	}
	if err := json.NewEncoder(os.Stdout).Encode(rows); err != nil {
		log.Fatal(err)
	}
}

// run measures, and leaves nothing behind.
func run(ctx context.Context, o options, scenes []scene) ([]*row, error) {
	l, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	return l.measure(ctx, scenes)
}
