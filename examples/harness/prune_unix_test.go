//go:build unix

package main

import (
	"fmt"
	"testing"
)

func TestARunKeepsWithinItsBudget(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		// What a third of the images takes. On Docker the base has its helper.
		budget, extras := 12*layerSize, [][]string{nil, {"-each"}, {"-kill-every", "1s"}}
		if engine == engineDocker {
			budget, extras = budget+1_600_000, extras[:1]
		}
		for _, extra := range extras {
			args := append([]string{"-engine", engine, "-cache", t.TempDir(), "-keep", keptRun(t, engine), "-processes", "3",
				"-workers", "2", "-slots", "4", "-build-time", "20ms..60ms", "-budget", fmt.Sprint(budget), "-json"}, extra...)
			r := harness(t, nil, args...)
			f := r.figures(t)
			f.want(t, map[string]float64{"duplicates": 0, "failures": 0})
			// A plan keeps what it needs; who asks for one instance after another
			// can't know, and who is killed forgets it.
			if f.number("builds") > 39 && len(extra) == 0 {
				t.Errorf("%v builds of 36 images", f.number("builds"))
			}
			if r.status != exitOK || f.number("left") > f.number("budget") || f.number("builds") < 36 || f.number("removed") == 0 {
				t.Errorf("status %d: %v", r.status, f)
			}
		}
	})
}
