package locktest

import (
	"errors"
	"os"
)

func canStop(Backend) bool { return false }

func stopProcess(*os.Process) error { return errors.ErrUnsupported }

func continueProcess(*os.Process) error { return errors.ErrUnsupported }
