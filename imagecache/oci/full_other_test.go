//go:build !linux

package oci

import "errors"

func roleFull(args []string, in <-chan string) error { return errors.New("Linux only") }
