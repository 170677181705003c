package locktest

import (
	"fmt"
	"sync"

	"github.com/imagelock/imagelock/lock"
)

// referee is told who has which key and sees who has it beside whom.
type referee struct {
	leases bool // tokens must grow

	mu      sync.Mutex
	holds   map[string]map[holder]lock.Mode
	highest map[string]mark // by key
	seen    map[string]map[uint64]holder
	broken  []string
	noted   map[*process]int // grants
}

// holder is one grant of one process.
type holder struct {
	who  *process
	lock int
}

// mark are the highest tokens that were seen of a key.
type mark struct{ exclusive, any uint64 }

func newReferee(leases bool) *referee {
	return &referee{leases: leases, holds: map[string]map[holder]lock.Mode{}, highest: map[string]mark{}, seen: map[string]map[uint64]holder{}, noted: map[*process]int{}}
}

func (r *referee) note(who *process, ev event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, me, wanted := string(ev.Key), holder{who, ev.Lock}, lock.Mode(ev.Mode)
	if who.dying {
		return // it may speak for a moment after its locks are others'
	}
	if !ev.In {
		delete(r.holds[key], me)
		return
	}
	r.noted[who]++
	for other, mode := range r.holds[key] {
		if mode == lock.Exclusive || wanted == lock.Exclusive {
			r.bad("%s holds %.80q %v while %s holds it %v", who, key, wanted, other.who, mode)
		}
	}
	if r.holds[key] == nil {
		r.holds[key] = map[holder]lock.Mode{}
		r.seen[key] = map[uint64]holder{}
	}
	r.holds[key][me] = wanted
	if !r.leases {
		return
	}
	// An exclusive grant is after all that were noted before. A shared one may
	// have been granted before other shared ones that were noted earlier.
	top := r.highest[key]
	least := top.exclusive
	if wanted == lock.Exclusive {
		least = top.any
	}
	if before, again := r.seen[key][ev.Token]; again {
		r.bad("%s was given %.80q with token %d, which %s had before", who, key, ev.Token, before.who)
	} else if ev.Token <= least {
		r.bad("%s was given %.80q with token %d after token %d", who, key, ev.Token, least)
	}
	r.seen[key][ev.Token] = me
	top.any = max(top.any, ev.Token)
	if wanted == lock.Exclusive {
		top.exclusive = max(top.exclusive, ev.Token)
	}
	r.highest[key] = top
}

// drop forgets what a process holds that is about to be killed, and does not
// listen to it any more.
func (r *referee) drop(who *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	who.dying = true
	for _, holds := range r.holds {
		for h := range holds {
			if h.who == who {
				delete(holds, h)
			}
		}
	}
}

func (r *referee) bad(format string, args ...any) {
	if len(r.broken) < 10 {
		r.broken = append(r.broken, fmt.Sprintf(format, args...))
	}
}

// verdict returns what was seen, and how many grants were noted.
func (r *referee) verdict() (broken []string, noted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.noted {
		noted += n
	}
	return r.broken, noted
}

// grantsOf returns how many grants of a process were noted.
func (r *referee) grantsOf(p *process) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.noted[p]
}
