package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"
)

// span is the value of -build-time: one duration for all images, or a range from
// which each is given its own.
type span struct{ Min, Max time.Duration }

var errSpan = errors.New("want a duration such as 200ms, or a range such as 21ms..380ms")

// Set reads what String writes. A value that makes no sense changes nothing.
func (s *span) Set(text string) error {
	low, high, ranged := strings.Cut(text, "..")
	if !ranged {
		high = low
	}
	from, err1 := time.ParseDuration(low)
	to, err2 := time.ParseDuration(high)
	switch {
	case err1 != nil || err2 != nil:
		return errSpan
	case from <= 0 || to > maxBuildTime:
		return fmt.Errorf("it is not between 1ns and %v", maxBuildTime)
	case from > to:
		return fmt.Errorf("%v is more than %v: %w", from, to, errSpan)
	}
	*s = span{from, to}
	return nil
}

func (s span) String() string {
	if s.Min == s.Max {
		return s.Min.String()
	}
	return s.Min.String() + ".." + s.Max.String()
}

// draw returns how long the build of the named image takes. It depends on nothing
// else, so that all processes agree, and all runs with this seed.
func (s span) draw(seed uint64, name string) time.Duration {
	sum := fnv.New64a()
	sum.Write([]byte(name))
	r := rand.New(rand.NewPCG(seed, sum.Sum64()))
	return s.Min + time.Duration(r.Int64N(int64(s.Max-s.Min)+1))
}
