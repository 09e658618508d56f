"""Directories that are entered one by one, and no link on the way.

Whoever owns a directory can put a link in its place at any time.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from kopiatomic.system.kernel import Kernel
from kopiatomic.system.machine import Mount

# Why a mount is not what it was meant to be, or is not there any more.
LED_AWAY = "somebody led its path elsewhere meanwhile"

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(path: str, opened: ExitStack) -> int:
    """Open the directory or file at an absolute ``path``, following no link; raises OSError."""

    def enter(name: str, above: int | None, flags: int = _ENTER) -> int:
        descriptor = os.open(name, flags, dir_fd=above)
        opened.callback(os.close, descriptor)
        return descriptor

    here = enter("/", None)
    *above, last = path.split("/")[1:]
    for part in above:
        here = enter(part, here)
    return enter(last, here, _ENTER & ~os.O_DIRECTORY | os.O_NONBLOCK) if last else here


@contextmanager
def standing_in(target: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Make ``target``, of the view, the working directory for a while.

    Whoever owns a directory above a mount point can put a symbolic link in its
    place at any time. None is followed on the way, and what is mounted on "."
    cannot be led elsewhere any more.

    Gives what to call the mount point, and a function that opens what is there: it
    changes with what is mounted. Where the mount point is a file, the working
    directory is the one it is in. Raises OSError.
    """
    with ExitStack() as opened:
        *above, name = target.split("/")[1:]
        parent = walk("/" + "/".join(above), opened)

        def enter(flags: int = os.O_NOFOLLOW | os.O_NONBLOCK) -> int:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=parent)

        is_file = stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        here = parent
        if not is_file:
            here = enter(_ENTER)
            opened.callback(os.close, here)
        try:
            back = os.open(".", _ENTER)
        except OSError:
            back = os.open("/", _ENTER)  # from a directory that not even root may open
        opened.callback(os.close, back)
        opened.callback(os.fchdir, back)
        os.fchdir(here)
        yield name if is_file else ".", enter


def mount_on(kernel: Kernel, directory: str) -> Mount:
    """Return the mount that a directory is on, following no link to it; raises OSError."""
    descriptor = os.open(directory, _ENTER)
    try:
        return kernel.mount_of(descriptor)
    finally:
        os.close(descriptor)
