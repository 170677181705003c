package compose_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/compose"
	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// What a Compose file asks for and can't be had is said with its place.
func ExampleLoad() {
	dir, err := os.MkdirTemp("", "project-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "compose.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	ctx := context.Background()
	opts := compose.Options{Dir: dir, Name: "shop", Env: []string{"VERSION=7"}}

	write(`
services:
  api:
    build: ./api
  worker:
    image: registry.example/worker:${VERSION}
    build: {context: ., args: {SERVICE: worker}}
  database:
    image: postgres:17
`)
	project, err := compose.Load(ctx, opts)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range project.Services() {
		fmt.Println(s.Name, s.Image, s.Builds)
	}

	write(`
services:
  api:
    build:
      context: ./api
      contxt: .
`)
	_, err = compose.Load(ctx, opts)
	var e *compose.Error
	if errors.As(err, &e) {
		fmt.Println("line", e.Line, "column", e.Column, errors.Is(err, compose.ErrInvalid))
	}
	// Output:
	// api shop-api true
	// database postgres:17 false
	// worker registry.example/worker:7 true
	// line 6 column 7 true
}

// The images of all services, as one plan.
func ExampleProject_Ensure() {
	build := func(ctx context.Context, engine *docker.Store, cache *imagecache.Cache) error {
		project, err := compose.Load(ctx, compose.Options{Dir: "."})
		if err != nil {
			return err
		}
		results, err := project.Ensure(ctx, engine, cache, compose.PlanOptions{
			// Bases that no service makes are pulled, each once, before what stands on
			// them is built.
			Base: func(reference string) imagecache.BuildFunc {
				return imagecache.Command{Args: []string{"docker", "pull", reference}}.Build
			},
		})
		for _, r := range results {
			fmt.Println(r.Service, r.Outcome, r.ID, r.Err)
		}
		return err
	}
	_ = build
}
