// Package imagelock is the root of a module that builds each container image
// once, however many processes ask for it at the same time.
//
// It has no code of its own. What you want is in
//
//   - [github.com/imagelock/imagelock/imagecache]: Ensure, which looks for an
//     image, takes its lock, looks again, builds it and lets go;
//   - [github.com/imagelock/imagelock/imagecache/docker]: images of a Docker
//     Engine, built with BuildKit;
//   - [github.com/imagelock/imagelock/imagecache/oci]: images in a directory,
//     where no engine runs;
//   - [github.com/imagelock/imagelock/lock]: the keyed locks between processes
//     that all of it stands on, of use for anything that is made once.
//
// examples/harness is an evaluation harness in small that uses all of them.
package imagelock
