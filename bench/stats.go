//go:build linux

package main

import (
	"cmp"
	"math"
	"slices"
)

// quantile returns the smallest of xs that at least the part q of them does not
// exceed. xs must not be empty.
func quantile[T cmp.Ordered](xs []T, q float64) T {
	s := slices.Sorted(slices.Values(xs))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

func median[T cmp.Ordered](xs []T) T { return quantile(xs, 0.5) }

func micros(ns int64) float64 { return float64(ns) / 1e3 }
func millis(ns int64) float64 { return float64(ns) / 1e6 }
