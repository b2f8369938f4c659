"""One process at a time, by a lock on a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` for a block; other processes, and other threads of this one, wait for it.

    The file is made where it is not there, and stays, since a waiting process may have it open. The system takes the
    lock back from a process that dies.

    Raises:
        OSError: the file cannot be made or locked; on Windows also when the lock was not free for ten seconds.
    """
    with path.open("ab") as file:
        _lock(file.fileno())
        try:
            yield
        finally:
            _unlock(file.fileno())


if sys.platform == "win32":
    import msvcrt

    # Windows locks a range of bytes from where the file stands, which for an empty file is its beginning.
    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
