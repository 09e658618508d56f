"""Where the state is kept, and what that means for what is known of the jobs."""

import os
from collections.abc import Iterable, Sequence

from kopiatomic import state
from kopiatomic.system.command import printable
from kopiatomic.system.machine import Mount, nearest, visible_mounts


def boot_environment_of_state(table: Sequence[Mount]) -> str | None:
    """Return the boot environment that the state directory is part of; None if of none.

    A boot environment is the ZFS file system that the root file system is on, bectl(8):
    with another one, everything in it is that of another time.
    """
    points = {mount.point: mount for mount in visible_mounts(table)}
    root = points.get("/")
    if root is None or root.type != "zfs" or "/" not in root.special:
        return None
    directory = os.path.realpath(state.STATE_DIRECTORY)
    return root.special if nearest(directory, points) == "/" else None


# What may be found only because it was another boot environment that knew better.
_EXPLAINED = frozenset({"never", "stale", "clock", "leftover"})


def may_explain(kinds: Iterable[str]) -> bool:
    """Say whether a finding of one of these kinds can have its reason in that."""
    return not _EXPLAINED.isdisjoint(kinds)


def note(table: Sequence[Mount]) -> str | None:
    """Return what to know of the state where a boot environment has it, or None."""
    name = boot_environment_of_state(table)
    if name is None:
        return None
    return (
        f"{state.STATE_DIRECTORY} is part of the boot environment {printable(name)}, so "
        "what jobs did in another one is not known here; BOOT ENVIRONMENTS in kopiatomic(8) "
        "says how to keep it on a dataset of its own"
    )
