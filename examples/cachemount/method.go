package main

// method is a way to build services that share cache mounts.
type method struct {
	name string
	// mounts are the fields of a service's mounts in the Dockerfile; ID and TARGET
	// stand for the round's own.
	mounts func(service int) []string
	// waves are the services that are built at the same time, one wave after another.
	waves [][]int
	// declared says that imagelock is told of the mounts.
	declared bool
	kind     kind
	beside   bool // it is measured beside others
}

// kind is what the services of a method do.
type kind uint8

const (
	workspace kind = iota // unpack crates and compile, first and after a change
	apt                   // hold two locked mounts
	opposite              // the same, in opposite orders
	plan                  // a base that fetches, and services on it
)

// scene is what is measured one after another in a round.
type scene struct {
	steps []step
	// every so many rounds, beginning with the first
	every int
}

// step is what is measured at the same time: chains of methods, one method after another
// in each.
type step [][]method

func (o *options) scenes() []scene {
	sharing, waiting := each(shared()), each(opposed())
	all := map[string][]scene{
		"shared": {{sharing, 1}},
		"locked": {{waiting, 1}, {each(aptly()), tenth}},
		"plan":   {{each(planned()), tenth}},
	}
	if o.scene != "all" {
		return all[o.scene]
	}
	if !o.apart {
		sharing, waiting = o.beside(), nil
	}
	return []scene{{sharing, 1}, {waiting, 1}, all["locked"][1], all["plan"][0]}
}

// each is one method after another.
func each(methods []method) (steps []step) {
	for _, m := range methods {
		steps = append(steps, step{{m}})
	}
	return steps
}

// beside is what is measured in each round if it is not measured apart. One after another
// there is one build at a time, which mostly waits, and it takes long. Beside it there is
// room for others that, like it, have no time to keep: together they take half as long.
func (o *options) beside() (steps []step) {
	side := opposed()
	for _, m := range shared() {
		if m.name == warmByHand || m.name == ownIDs {
			side = append(side, m)
		}
	}
	for _, m := range shared() {
		switch m.name {
		case warmByHand, ownIDs:
		case oneAfterAnother:
			steps = append(steps, step{{m}, side})
		default:
			steps = append(steps, step{{m}})
		}
	}
	return steps
}

// tenth of the rounds is enough for what does not fail now and then.
const tenth = 10

// Methods that are spoken of by name.
const (
	noLock          = "no lock"
	warmByHand      = "warm by hand"
	ownIDs          = "own target ids"
	oneAfterAnother = "one after another"
)

// shared are the ways to build five services that unpack into one cache.
func shared() []method {
	all := [][]int{{0, 1, 2, 3, 4}}
	one := [][]int{{0}, {1}, {2}, {3}, {4}}
	mount := func(fields string) func(int) []string { return func(int) []string { return []string{fields} } }
	own := func(i int) []string { return []string{"id=ID-" + services[i] + ",target=TARGET"} }
	return []method{
		{name: noLock, mounts: mount("id=ID,target=TARGET"), waves: all},
		{name: "locked", mounts: mount("id=ID,target=TARGET,sharing=locked"), waves: all},
		{name: oneAfterAnother, mounts: mount("id=ID,target=TARGET"), waves: one},
		{name: warmByHand, mounts: mount("id=ID,target=TARGET"), waves: [][]int{{0}, {1, 2, 3, 4}}},
		{name: ownIDs, mounts: own, waves: all},
		{name: "imagelock", mounts: mount("id=ID,target=TARGET"), waves: all, declared: true},
	}
}

// aptly are eight builds that use apt's two mounts.
func aptly() []method {
	eight := [][]int{{0, 1, 2, 3, 4, 5, 6, 7}}
	mounts := func(int) []string {
		return []string{"id=ID-cache,target=TARGET/cache,sharing=locked", "id=ID-lib,target=TARGET/lib,sharing=locked"}
	}
	return []method{
		{name: "apt, no lock", mounts: mounts, waves: eight, kind: apt},
		{name: "apt, imagelock", mounts: mounts, waves: eight, declared: true, kind: apt},
	}
}

// opposed are two builds that lock the same mounts in opposite orders.
func opposed() []method {
	mounts := func(i int) []string {
		first, second := "a", "b"
		if i%2 == 1 {
			first, second = second, first
		}
		return []string{"id=ID-" + first + ",target=TARGET/1,sharing=locked", "id=ID-" + second + ",target=TARGET/2,sharing=locked"}
	}
	return []method{
		{name: "opposite, no lock", mounts: mounts, waves: [][]int{{0, 1}}, kind: opposite},
		{name: "opposite, imagelock", mounts: mounts, waves: [][]int{{0, 1}}, declared: true, kind: opposite},
	}
}

// planned are four services on a base that has fetched what they need into a registry
// that all share: with a target directory each, or with everything locked.
func planned() []method {
	four := [][]int{{0, 1, 2, 3}}
	return []method{
		{name: "plan, all locked", mounts: func(int) []string {
			return []string{"id=ID,target=TARGET,sharing=locked", "id=ID-target,target=TARGET-target,sharing=locked"}
		}, waves: four, kind: plan},
		{name: "plan, imagelock", mounts: func(i int) []string {
			return []string{"id=ID,target=TARGET", "id=ID-target-" + services[i] + ",target=TARGET-target"}
		}, waves: four, declared: true, kind: plan},
	}
}
