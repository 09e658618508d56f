"""A directory of ours that a client may write to: closed to others, with names of ours in it."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from kopiatomic import formatting

# What is left free on the file system of the directory, in bytes.
RESERVE = 64 << 20

# So many things are asked for at once at most: a command line has an end.
AT_ONCE = 100

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Room:
    """An empty directory that is there already; close() it in the end. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = os.open(path, DIRECTORY)

    def close(self) -> None:
        """Give up the directory, which stays."""
        os.close(self.descriptor)

    def free(self) -> int:
        """Return how many bytes may be written so that enough is left; 0 if none."""
        found = os.fstatvfs(self.descriptor)
        return max(0, found.f_bavail * found.f_frsize - RESERVE)

    @contextmanager
    def file(self, size: int) -> Iterator[int]:
        """Hold an empty file that is to grow to ``size``; raises OSError."""
        if self.free() < size:
            raise OSError(
                errno.ENOSPC,
                f"{formatting.size(size)} are too much for the free space in "
                f"{os.path.dirname(self.path)}",
            )
        descriptor = self._create("file")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            os.unlink("file", dir_fd=self.descriptor)

    def put(self, name: str, content: bytes) -> None:
        """Write a new file; raises OSError."""
        descriptor = self._create(name)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)

    def has(self, name: str) -> bool:
        """Say whether there is something of that name."""
        return os.access(name, os.F_OK, dir_fd=self.descriptor, follow_symlinks=False)

    @contextmanager
    def taken(self, name: str) -> Iterator[int]:
        """Hold a file that a client wrote, which is gone afterwards; raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self.descriptor)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Remove a file, if it is there and can be removed."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self.descriptor)

    def _create(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self.descriptor)


def batches(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Yield names in their order, so many at a time that their sizes fit into ``limit``.

    One that is too large for that comes alone.
    """
    batch: list[str] = []
    left = limit
    for name, size in sizes.items():
        if batch and (size > left or len(batch) == AT_ONCE):
            yield batch
            batch, left = [], limit
        batch.append(name)
        left -= size
    if batch:
        yield batch
