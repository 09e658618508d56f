"""gpart(8) and glabel(8): how the disks are divided, and what their parts are called."""

import re
from collections.abc import Iterable

from kopiatomic.record import Record
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.zfs import lines_of

# How long the disks may take to answer, in seconds: one that is failing is no reason to wait.
TIME_LIMIT = 60.0


class Disk(Record):
    """A disk, or a part of one, that has a table of partitions of its own.

    ``table`` are the lines of gpart(8) backup, of which gpart restore makes it again.
    """

    name: str
    table: tuple[str, ...]


def disks(door: Door, devices: Iterable[str]) -> tuple[Disk, ...]:
    """Return the disks that these devices are on, or are, as far as they are divided.

    A device is a path such as /dev/gpt/root0.eli. Raises CommandFailed.
    """
    wanted = [each.removeprefix("/dev/") for each in devices if each.startswith("/dev/")]
    if not wanted:
        return ()
    divided = _divided(door)
    labels = _labels(door) if divided else {}
    names = {name for each in wanted for name in _above(each, divided, labels)}
    made = []
    for name in sorted(names):
        argv = ("gpart", "backup", name)
        lines = lines_of(door.run(argv, time_limit=TIME_LIMIT).stdout)
        # Blanks only bring the columns in line.
        made.append(Disk(name, tuple(" ".join(line.split()) for line in lines)))
    return tuple(made)


def _divided(door: Door) -> dict[str, str]:
    """Return of each partition of the machine what it is a part of."""
    argv = ("gpart", "show", "-p")
    parts: dict[str, str] = {}
    disk = ""
    for line in lines_of(door.run(argv, time_limit=TIME_LIMIT).stdout):
        words = line.split()
        if words[0].startswith("=>") and len(words) >= 5:
            disk = words[3] if words[0] == "=>" else words[2]
        elif disk and len(words) >= 4 and words[2] != "-":
            parts[words[2]] = disk
        elif not disk:
            raise CommandFailed(argv, f"printed a line that is not understood: {line[:80]!r}")
    return parts


def _labels(door: Door) -> dict[str, str]:
    """Return which device each label stands for."""
    text = door.run(("glabel", "status", "-s"), time_limit=TIME_LIMIT).stdout
    rows = [line.split() for line in lines_of(text)]
    return {" ".join(row[:-2]): row[-1] for row in rows if len(row) >= 3}


def _above(device: str, parts: dict[str, str], labels: dict[str, str]) -> list[str]:
    """Return what a device is a part of, and what that is; nothing if it is no part."""
    found: list[str] = []
    name = device
    for _ in range(8):  # a label of a partition of a slice of a disk, and something encrypted
        if name in parts:
            name = parts[name]
            found.append(name)
        elif name in labels:
            name = labels[name]
        elif re.search(r"\.(eli|nop|journal)$", name):
            name = name.rpartition(".")[0]
        else:
            break
    return found
