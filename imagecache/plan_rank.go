package imagecache

import (
	"cmp"
	"container/heap"
)

// rank finds out how urgent the nodes that are not there are: by the time that it
// takes from the beginning of a node's build to the end of the last one that stands
// on it, and for equals by how much work stands on it. took is how long a build took
// the last time, in seconds; what is not known is taken for the mean of what is.
func (p *plan) rank(took func(i int32) (seconds float64, known bool)) {
	var sum float64
	var n int
	for i := range p.nodes {
		j := &p.nodes[i].job
		j.chain, j.above = -1, 0
		if j.state == there {
			j.chain = 0
		} else if s, known := took(int32(i)); known {
			j.chain, sum, n = s, sum+s, n+1
		}
	}
	mean := 1.0
	if n > 0 {
		mean = sum / float64(n)
	}
	for k := len(p.order) - 1; k >= 0; k-- {
		n := &p.nodes[p.order[k]]
		if n.chain < 0 {
			n.chain = mean
		}
		var longest float64
		own := n.chain
		for _, child := range n.children {
			c := &p.nodes[child]
			longest = max(longest, c.chain)
			n.above += c.above
			if c.state != there {
				n.above++
			}
		}
		n.chain = own + longest
	}
}

// queue has the nodes that can be built, the most urgent first.
type queue struct {
	p       *plan
	nodes   []int32
	sparing bool // by place
}

func (q *queue) Len() int { return len(q.nodes) }

func (q *queue) Less(i, j int) bool {
	a, b := q.nodes[i], q.nodes[j]
	na, nb := &q.p.nodes[a], &q.p.nodes[b]
	if q.sparing {
		return na.place < nb.place
	}
	return cmp.Or(-cmp.Compare(na.chain, nb.chain), -cmp.Compare(na.above, nb.above), cmp.Compare(a, b)) < 0
}

func (q *queue) Swap(i, j int) { q.nodes[i], q.nodes[j] = q.nodes[j], q.nodes[i] }

func (q *queue) Push(x any) { q.nodes = append(q.nodes, x.(int32)) }

func (q *queue) Pop() any {
	last := len(q.nodes) - 1
	i := q.nodes[last]
	q.nodes = q.nodes[:last]
	return i
}

func (q *queue) put(i int32) { heap.Push(q, i) }

func (q *queue) take() (int32, bool) {
	if len(q.nodes) == 0 {
		return 0, false
	}
	return heap.Pop(q).(int32), true
}
