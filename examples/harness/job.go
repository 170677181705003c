package main

import (
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// Job is what the parent tells a worker process.
type Job struct {
	Engine    string `json:"engine"`
	Run       string `json:"run"`
	BuildTime span   `json:"build_time"`
	Seed      uint64 `json:"seed"`
	Workers   int    `json:"workers"`
	Slots     int    `json:"slots"`
	Budget    *int64 `json:"budget"`
	Each      bool   `json:"each"`
	Unsafe    bool   `json:"unsafe"`
	// Show asks for what the library's observers see.
	Show bool `json:"show"`
	// CacheDir is the library's cache directory; empty for its own choice.
	CacheDir string `json:"cache_dir"`
	// Images is the embedded store's directory.
	Images string `json:"images"`
	// Context is the directory from which Docker builds.
	Context string `json:"context"`
	// Evidence is the file of the builds that ended, Begun of those that began.
	Evidence string `json:"evidence"`
	Begun    string `json:"begun"`
	// Plan is what to prepare, in this process's order.
	Plan []Instance `json:"plan"`
}

// Event is what a worker process tells the parent, as a line of JSON.
type Event struct {
	// Results are of images that were ensured.
	Results []Outcome `json:"results,omitempty"`
	// Built is set for each image that the library says it has built. An image
	// that was removed and built again is one of the Results, and is built twice.
	Built bool `json:"built,omitempty"`
	// Failed is why an environment could not be prepared.
	Failed string `json:"failed,omitempty"`
	// Seen is what an observer has seen.
	Seen *Seen `json:"seen,omitempty"`
}

// Outcome is what is told of an image.
type Outcome struct {
	Outcome imagecache.Outcome `json:"outcome"`
	Waited  time.Duration      `json:"waited,omitempty"`
}
