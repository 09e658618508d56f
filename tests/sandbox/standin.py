"""The common beginning of all stand-ins: note the command, find its code, run it."""

from __future__ import annotations

import os
import sys

from sandbox.state import INSIDE, check_size, log_command

MODULES = {
    "zfs": "zfs", "zpool": "zpool", "mount": "mount", "mount_nullfs": "mount",
    "umount": "umount", "chroot": "small", "kldstat": "small", "kldload": "small",
    "sysctl": "small", "jail": "small", "jexec": "small", "su": "small", "hostname": "small",
    "freebsd-version": "small", "fstat": "fstat", "periodic": "periodic", "mail": "mail",
    "gpart": "geom", "glabel": "geom", "newfs_msdos": "geom", "mdconfig": "geom",
    "sendmail": "mail", "nmount": "call", "unmount": "call", "getfsstat": "call",
}


def start(name: str) -> None:
    """Run the stand-in of that name with the arguments of this process."""
    import _signal  # type: ignore[import-not-found]

    # As for any other program: `mount | head` must not end in a traceback.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    arguments = sys.argv[1:]
    if os.path.isdir(INSIDE):
        if MODULES[name] != "call":
            log_command([name, *arguments])
        check_size([name, *arguments])
    module = __import__(f"sandbox.cmd_{MODULES[name]}", fromlist=["main"])
    status = module.main(name, arguments)
    sys.stdout.flush()
    # Nothing is left to tidy up, and python's own way out takes 5 ms.
    os._exit(status & 0xFF)


def warn(text: str) -> None:
    """A line on standard error."""
    sys.stdout.flush()
    os.write(2, (text + "\n").encode("utf-8", "surrogateescape"))


def options(arguments: list[str], flags: str, valued: str = ""
            ) -> tuple[dict[str, list[str]], list[str]]:
    """getopt(3): options before the first operand, each with its values; then operands.

    Raises ValueError with the option that is unknown.
    """
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in flags:
                found.setdefault(letter, [])
            elif letter in valued and (letters or rest):
                found.setdefault(letter, []).append(letters or rest.pop(0))
                letters = ""
            else:
                raise ValueError(letter)
    return found, rest


def split_commas(words: list[str]) -> list[str]:
    """Several -o options with several values each."""
    return [part for word in words for part in word.split(",") if part]
