// Package memo remembers the results of functions that are pure and not for free.
package memo

import "sync"

// limit is how many results a Memo remembers. When there are more it begins anew.
const limit = 1 << 15

// Memo remembers what a function returned. Its zero value is ready for use, by several
// goroutines at once.
type Memo[V any] struct {
	mu   sync.RWMutex
	seen map[string]V
}

// Get returns f(key), from memory if it can. Errors are not remembered.
func (m *Memo[V]) Get(key string, f func(string) (V, error)) (V, error) {
	m.mu.RLock()
	v, ok := m.seen[key]
	m.mu.RUnlock()
	if ok {
		return v, nil
	}
	v, err := f(key)
	if err != nil {
		return v, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil || len(m.seen) >= limit {
		m.seen = map[string]V{}
	}
	m.seen[key] = v
	return v, nil
}
