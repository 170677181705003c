//go:build linux

package main

import (
	"encoding/json"
	"os"
)

// figure is one result.
type figure struct {
	Scenario  string  `json:"scenario"`
	Contender string  `json:"contender"`
	Metric    string  `json:"metric"`
	Unit      string  `json:"unit"`
	Value     float64 `json:"value"`
}

type figures []figure

// get finds a result. It is false if it was not measured.
func (fs figures) get(scenario, contender, metric string) (float64, bool) {
	for _, f := range fs {
		if f.Scenario == scenario && f.Contender == contender && f.Metric == metric {
			return f.Value, true
		}
	}
	return 0, false
}

func (fs figures) writeJSON(path string) error {
	if fs == nil {
		fs = figures{} // an array, even if nothing could be measured
	}
	b, err := json.MarshalIndent(fs, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
