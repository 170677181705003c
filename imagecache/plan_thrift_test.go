package imagecache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// pantry is a stock in which a plan's builds and uses are counted.
type pantry struct {
	*stock
	mu     sync.Mutex
	builds map[string]int
	sizes  map[string]int64 // of an image's own layer
	most   int64            // bytes on the shelf
	now    atomic.Int64     // uses
}

const kilo = 1000 // an instance; an environment takes ten times, the base a hundred times that

func newPantry(t testing.TB, opts ...Option) *pantry {
	t.Helper()
	return &pantry{stock: newStock(t, opts...), builds: map[string]int{}, sizes: map[string]int64{}}
}

// plan is a base, environments, and instances on each.
func (p *pantry) plan(envs, instances int, takes time.Duration) []Image {
	images := []Image{p.image("base", 100*kilo, takes)}
	for e := range envs {
		env := fmt.Sprintf("env%02d", e)
		images = append(images, p.image(env, 10*kilo, takes, "base"))
		for i := range instances {
			images = append(images, p.image(fmt.Sprintf("%s-%02d", env, i), kilo, takes, env))
		}
	}
	return images
}

func (p *pantry) image(name string, size int64, takes time.Duration, parents ...string) Image {
	p.sizes[name] = size
	n := 0
	level := "instance"
	if !strings.Contains(name, "-") {
		level = "env"
	}
	return Image{Tag: name, Parents: parents, Level: level, Build: func(ctx context.Context, b *Build) error {
		time.Sleep(takes)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.builds[name]++
		n++
		layers := []Layer{{fmt.Sprintf("%s-%d", name, n), size}}
		for _, parent := range b.Parents {
			below, err := p.Layers(ctx, parent.ID)
			if err != nil {
				return fmt.Errorf("parent of %s: %w", name, err)
			}
			layers = append(layers, below...)
		}
		return p.put(b.Reference, fmt.Sprintf("id-%s-%d", name, n), layers...)
	}}
}

// use is a use that takes a while, and looks how full it is.
func (p *pantry) use(takes time.Duration) PlanOption {
	return Use(func(ctx context.Context, r Result) error {
		p.now.Add(1)
		if got, err := p.Probe(ctx, r.Reference); err != nil || got.ID != r.ID || !p.has(r.ID) {
			p.Errorf("%s is used as %s and is %v, %v", r.Reference, r.ID, got, err)
		}
		size := p.size()
		p.mu.Lock()
		p.most = max(p.most, size)
		p.mu.Unlock()
		time.Sleep(takes)
		return nil
	})
}

// size is what the images on record take.
func (p *pantry) size() int64 {
	acc := p.c.newAccounts()
	if _, err := acc.refresh(); err != nil {
		p.Error(err)
	}
	return acc.size
}

var instances = UseOnly(func(img Image) bool { return img.Level == "instance" })

// again says which images were built more than once, or never.
func (p *pantry) again(images []Image) (text string) {
	for _, img := range images {
		if n := p.builds[img.Tag]; n != 1 {
			text += fmt.Sprintf(" %s %d", img.Tag, n)
		}
	}
	return text
}

func (p *pantry) total() (n int) {
	for _, k := range p.builds {
		n += k
	}
	return n
}

// A budget that holds little more than the images in use, and the chain that one build
// needs, is enough to build every image once.
func TestPlanWithABudgetBuildsEachImageOnce(t *testing.T) {
	const envs, each = 8, 6
	for name, c := range map[string]struct {
		budget           int64
		slots, workers   int
		build, use       time.Duration
		classes, lateUse bool
	}{
		"nothing":                  {budget: 0, slots: 4, workers: 2},
		"what one needs":           {budget: 111 * kilo, slots: 1, workers: 1},
		"slow uses":                {budget: 125 * kilo, slots: 8, workers: 2, use: 8 * time.Millisecond},
		"slow builds":              {budget: 125 * kilo, slots: 8, workers: 2, build: 8 * time.Millisecond},
		"half of the environments": {budget: 140 * kilo, slots: 4, workers: 4, build: 2 * time.Millisecond, use: 2 * time.Millisecond},
		"environments of a class":  {budget: 125 * kilo, slots: 4, workers: 2, build: time.Millisecond, use: 4 * time.Millisecond, classes: true},
		"plenty":                   {budget: 1000 * kilo, slots: 4, workers: 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPantry(t, WithBudget(c.budget), WithSlots(c.slots))
			images := p.plan(envs, each, c.build)
			// In an order that no environment's instances are neighbours in.
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
			for i := range images {
				if c.classes && images[i].Level == "env" {
					images[i].Class = "network"
				}
			}
			_, err := p.c.EnsureAll(t.Context(), images, p.use(c.use), instances, Workers(c.workers))
			if err != nil || p.now.Load() != envs*each {
				t.Fatalf("%v, %d used", err, p.now.Load())
			}
			if again := p.again(images); again != "" {
				t.Errorf("%d builds of %d images:%s", p.total(), len(images), again)
			}
			t.Logf("%d bytes at most, budget %d", p.most, c.budget)
		})
	}
}

// What waits to be used is leased, and there is never more of it than fits.
func TestPlanWithABudgetBuildsNoMoreThanItCanUse(t *testing.T) {
	const budget = 100*kilo + 10*kilo + 8*kilo
	p := newPantry(t, WithBudget(budget), WithSlots(4))
	images := p.plan(1, 60, 0)
	_, err := p.c.EnsureAll(t.Context(), images, p.use(3*time.Millisecond), instances, Workers(2))
	if err != nil {
		t.Fatal(err)
	}
	if again := p.again(images); again != "" {
		t.Errorf("%d builds of %d images:%s", p.total(), len(images), again)
	}
	// The builds that were under way when the budget was reached, one a slot.
	if p.most > budget+4*kilo {
		t.Errorf("%d bytes at a time, the budget is %d", p.most, budget)
	}
}

func TestPlanWithABudgetKeepsFewLeases(t *testing.T) {
	p := newPantry(t, WithBudget(1<<40), WithSlots(200))
	images := p.plan(300, 1, 0)
	var most, calls atomic.Int64
	free := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(free) })
	_, err := p.c.EnsureAll(t.Context(), images, instances, Workers(1), Use(func(context.Context, Result) error {
		<-free
		if calls.Add(1)%50 != 1 {
			return nil
		}
		n := int64(0)
		for _, img := range images {
			if isLeased(t, p.c, "id-"+img.Tag+"-1") {
				n++
			}
		}
		most.Store(max(most.Load(), n))
		return nil
	}))
	if n := most.Load(); err != nil || n > maxKept+1+200 {
		t.Errorf("%d leases at a time, %v", n, err)
	}
	t.Logf("%d leases at most", most.Load())
	for _, img := range images {
		if isLeased(t, p.c, "id-"+img.Tag+"-1") {
			t.Errorf("%s is leased after the plan", img.Tag)
		}
	}
}

// What is there when the plan begins is used before anything that would push it out is
// built, and parents that are there stay until they are needed.
func TestPlanWithABudgetUsesFirstWhatIsThere(t *testing.T) {
	const budget = 100*kilo + 8*10*kilo + 30*kilo
	p := newPantry(t, WithBudget(budget), WithSlots(4))
	images := p.plan(8, 10, 20*time.Millisecond)
	present := slices.DeleteFunc(slices.Clone(images), func(img Image) bool {
		return img.Level == "instance" && !strings.HasPrefix(img.Tag, "env07-")
	})
	if _, err := p.c.EnsureAll(t.Context(), present); err != nil {
		t.Fatal(err)
	}
	// Of what there is too much by now the oldest goes, of the environments none.
	for _, img := range present {
		if img.Level != "instance" {
			p.aged(img.Tag, time.Now().Add(-time.Hour))
		}
	}
	clear(p.builds)
	if _, err := p.c.EnsureAll(t.Context(), images, p.use(20*time.Millisecond), instances, Workers(2)); err != nil {
		t.Fatal(err)
	}
	if n, want := p.total(), len(images)-len(present); n != want {
		t.Errorf("%d builds, %d images were missing:%s", n, want, p.again(images))
	}
}

func TestPlacesFollowAChainAtATime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		p, err := newPlan(randomImages(rnd, 1+rnd.IntN(40)))
		if err != nil {
			t.Fatal(err)
		}
		p.arrange()
		seen := make([]bool, len(p.nodes))
		for _, n := range p.nodes {
			if n.place < 0 || int(n.place) >= len(seen) || seen[n.place] {
				t.Fatalf("%s has place %d", n.ref, n.place)
			}
			seen[n.place] = true
			for _, j := range n.parents {
				if p.nodes[j].place > n.place {
					t.Fatalf("%s comes before its parent %s", n.ref, p.nodes[j].ref)
				}
			}
		}
	}
	// Of a tree one branch comes after another, however it is listed.
	s := &pantry{sizes: map[string]int64{}}
	images := s.plan(9, 7, 0)
	rnd.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
	p, err := newPlan(images)
	if err != nil {
		t.Fatal(err)
	}
	p.arrange()
	order := make([]string, len(p.nodes))
	for _, n := range p.nodes {
		order[n.place] = short(n.ref)
	}
	for i := 1; i < len(order); i += 8 {
		for _, name := range order[i : i+8] {
			if !strings.HasPrefix(name, order[i]) {
				t.Fatalf("%v", order)
			}
		}
	}
	// And of images on two parents each the two are needed at about the same time.
	images = nil
	for i := range 20 {
		images = append(images, Image{Tag: fmt.Sprintf("left%d", i)}, Image{Tag: fmt.Sprintf("right%d", i)},
			Image{Tag: fmt.Sprintf("both%d", i), Parents: []string{fmt.Sprintf("left%d", i), fmt.Sprintf("right%d", 19-i)}})
	}
	if p, err = newPlan(images); err != nil {
		t.Fatal(err)
	}
	p.arrange()
	for _, n := range p.nodes {
		for _, j := range n.parents {
			if d := n.place - p.nodes[j].place; d > 2 {
				t.Errorf("%s comes %d after %s", n.ref, d, p.nodes[j].ref)
			}
		}
	}
}

// Processes that share a budget and a plan, or each have a part of it. How many images
// are built again depends on how far apart the processes get, which is the machine's
// affair: with parts of their own 0 to 2 of 57; where each uses all of them in its own
// time 3 to 19. The bounds only tell that from a plan that goes round in circles.
func TestProcessesWithABudgetDoNotGoRoundInCircles(t *testing.T) {
	const processes, envs, each = 8, 8, 6
	for name, c := range map[string]struct {
		dealt  bool
		budget int64
		more   int // builds than images
	}{
		"dealt out, half of the environments":  {true, 100*kilo + 4*10*kilo + 16*kilo, 15},
		"dealt out, a third":                   {true, 100*kilo + 3*10*kilo + 16*kilo, 15},
		"all for all, half":                    {false, 100*kilo + 4*10*kilo + 16*kilo, 57},
		"dealt out, hardly what is in use now": {true, 100*kilo + 10*kilo, 15},
	} {
		t.Run(name, func(t *testing.T) {
			opts := []Option{WithBudget(c.budget), WithSlots(4)}
			p := newPantry(t, opts...)
			images := p.plan(envs, each, 2*time.Millisecond)
			var wg sync.WaitGroup
			for k := range processes {
				cache := openCache(t, p.shelf, append(opts, WithDir(p.c.Dir()))...)
				i := 0
				mine := slices.DeleteFunc(slices.Clone(images), func(img Image) bool {
					if img.Level != "instance" || !c.dealt {
						return false
					}
					i++
					return i%processes != k
				})
				wg.Go(func() {
					if _, err := cache.EnsureAll(t.Context(), mine, p.use(3*time.Millisecond), instances, Workers(2)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			t.Logf("%d builds of %d images, %d bytes at most, budget %d", p.total(), len(images), p.most, c.budget)
			if p.total() > len(images)+c.more {
				t.Errorf("%d builds of %d images:%s", p.total(), len(images), p.again(images))
			}
		})
	}
}

// What is released makes room, also if nothing else happens in the plan.
func TestPlanGoesOnWhenAReleaseHasMadeRoom(t *testing.T) {
	s := newStock(t, WithBudget(1000))
	other := s.ensure("other")
	s.c.budget.over.Store(true)
	s.c.enter()
	images := []Image{{Tag: "a", Build: s.builder("a", "id-a")}}
	// Nobody is free to use it.
	r, err := s.c.planned(t.Context(), images, planOptions{workers: 0, use: func(context.Context, Result) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.thrift.ahead = 1
	r.stir()
	if r.classes[""].asking {
		t.Error("it is begun over the budget")
	}
	r.mu.Unlock()
	other.Release()
	expect.Eventually(t, "it is built", func() bool { return s.has("id-a") })
	r.cancel()
	r.run()
}
