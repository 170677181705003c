package lock

import (
	"context"
	"os"
)

// AcquireInheritable is Acquire in exclusive mode of a lock that can be handed
// to child processes: pass the file on through [exec.Cmd].ExtraFiles, do not
// close it. The lock is then held until either Release is called, whoever still
// has the descriptor, or this process and every process that inherited the
// descriptor have ended. So it outlives a killed parent as long as the children
// work, and a daemon they leave behind does not keep it after Release.
//
// On Windows the error wraps [errors.ErrUnsupported].
func (d *Dir) AcquireInheritable(ctx context.Context, key string, opts ...AcquireOption) (Held, *os.File, error) {
	h, err := d.acquire(ctx, "acquire", key, Exclusive, true, opts)
	if err != nil {
		return nil, nil, err
	}
	return h, h.group.file.file, nil
}
