// Package dockerfile tells what a build by a Dockerfile needs, without building: the
// images it stands on, the cache mounts it uses, the files it copies, and the stages that
// run at the same time.
//
// [Scan] parses with BuildKit's own parser and expands variables as BuildKit does. What
// can't be known before the build, such as a variable that a base image sets, is
// reported as unresolved and never guessed.
//
// [Source.Inputs] digests what an image is made of: what its Dockerfile does and copies.
// Package lint finds what makes builds break each other.
//
// The module is apart from imagelock's own because of what BuildKit depends on.
package dockerfile
