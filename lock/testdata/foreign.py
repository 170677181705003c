"""A program that takes part without this library, as many a harness does.

    foreign.py HOW hold MODE LOCKFILE         says "held", until its input ends
    foreign.py HOW try MODE LOCKFILE          exits with 1 if somebody has it
    foreign.py HOW count MODE LOCKFILE DIR N  takes it N times

HOW is fcntl (fcntl.flock, on a file open for writing), filelock (Debian's
python3-filelock, exclusive only, which truncates the file at each of its tries) or
protocol (the client in docs/protocol.md, with the key k and without try).
"""

import contextlib
import fcntl
import os
import sys
import time


@contextlib.contextmanager
def with_fcntl(path, mode, wait):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        how = fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX
        fcntl.flock(fd, how if wait else how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def with_filelock(path, mode, wait):
    import filelock

    assert mode == "exclusive"
    try:
        with filelock.FileLock(path).acquire(timeout=-1 if wait else 0):
            yield
    except filelock.Timeout:
        raise BlockingIOError


class SlowFlock:
    """fcntl, with a pause before each lock is tried for."""

    def __getattr__(self, name):
        return getattr(fcntl, name)

    def flock(self, fd, how):
        if not how & fcntl.LOCK_UN:
            time.sleep(float(os.environ["SLOW_FLOCK"]))
        fcntl.flock(fd, how)


def with_protocol(path, mode, wait):
    import protocol

    assert wait
    if os.getenv("SLOW_FLOCK"):
        protocol.fcntl = SlowFlock()
    return protocol.lock(os.path.dirname(path), "k", shared=mode == "shared")


def count(directory):
    marker = os.path.join(directory, "marker")
    counter = os.path.join(directory, "counter")
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if there are two holders
    n = 0
    if os.path.exists(counter):
        with open(counter) as f:
            n = int(f.read())
    with open(counter, "w") as f:
        f.write(str(n + 1))
    os.remove(marker)


def look(directory):
    for _ in range(2):
        if os.path.exists(os.path.join(directory, "marker")):
            sys.exit("an exclusive holder beside a shared one")
        time.sleep(0.001)


how, what, mode, path = sys.argv[1:5]
hold = {"fcntl": with_fcntl, "filelock": with_filelock, "protocol": with_protocol}[how]
if what == "hold":
    with hold(path, mode, True):
        print("held", flush=True)
        sys.stdin.read()
elif what == "try":
    try:
        with hold(path, mode, False):
            pass
    except BlockingIOError:
        sys.exit(1)
elif what == "count":
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[6])):
        with hold(path, mode, True):
            if mode == "shared":
                look(sys.argv[5])
            else:
                count(sys.argv[5])
