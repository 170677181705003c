// Package docker keeps and builds images on a Docker Engine.
//
//	store, err := docker.Open(ctx)
//	…
//	defer store.Close()
//	build := store.BuildContext(docker.ContextBuild{Dir: "./app"})
//	// give store to imagecache.Open, and build to Ensure
//
// [Store] implements [imagecache.Store]. It talks to the engine that the docker
// command would: that of DOCKER_HOST, else of the current context (so rootless
// Docker, Docker Desktop and Colima are found), else the system's own.
// [Store.BuildContext] makes an [imagecache.BuildFunc] that builds a directory
// with BuildKit through the engine's API; it needs no docker command.
//
// [Volumes] are the engine's other store: content that lies in volumes.
//
// # What is never done
//
// A build never pulls its bases. A pull inside a build would hold the image's
// lock for as long as a registry likes, and is not shared with others that need
// the same base: bases are parents, ensured before. A build whose base is missing
// is refused with [ErrMissingBase] before it begins. Two pulls are beyond what a
// look at the Dockerfile shows: of the frontend that a "# syntax=" line names, and
// by an ONBUILD instruction of a base.
//
// # Engines
//
// Docker 20.10 and later, with the graph drivers or the containerd store. Podman's
// Docker-compatible API works as a store; it builds with its own builder whatever
// is asked for, so progress is then that builder's text.
package docker
