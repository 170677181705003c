package imagecache

// pruneQueue has the images to remove, as a [container/heap]: first what nobody can
// ask for any more, then what was used longest ago.
type pruneQueue []*account

func (q pruneQueue) Len() int { return len(q) }

func (q pruneQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.rank != b.rank {
		return a.rank < b.rank
	}
	if !a.used.Equal(b.used) {
		return a.used.Before(b.used)
	}
	return a.name < b.name
}

func (q pruneQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pruneQueue) Push(x any)   { *q = append(*q, x.(*account)) }

func (q *pruneQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
