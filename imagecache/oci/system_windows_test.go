package oci

import "errors"

func mkfifo(string) error { return errors.New("Windows has no FIFOs in directories") }

func dropPrivileges() error { return errors.New("Windows has other permissions") }
