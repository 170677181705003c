// Package lint finds what makes builds by Dockerfiles break each other, hang or run for
// longer than they need: races in cache mounts, orders of locks that end in a deadlock,
// copies that make everything stale.
//
// [Check] looks at one Dockerfile, or at several whose images are built by one plan. It
// builds nothing and asks no engine. docs/lint.md lists the rules.
package lint
