"""Where a dataset appears in the backup that is not mounted, or not to be seen. Pure.

Its snapshot can be mounted all the same: where canmount is off or noauto, the mount point
none or legacy, where it belongs to a jail, is encrypted and not mounted, or hidden by
another mount. A place for it must hide nothing that is live, and be nobody else's: its own
mount point, if nothing else is there, or one below the directory that --at names.

The mount point of a dataset that belongs to a jail is none of those. It is a path of the
jail's, whose root may set it at any time: to /usr/home, which on this machine is another's,
or to where programs that root runs look for their libraries and configuration.
"""

from collections.abc import Callable, Collection, Sequence

from kopiatomic.record import Record
from kopiatomic.system.machine import Dataset, Mount, lies_in, nearest

# What is found where nothing is mounted: a directory with nothing in it, with something in
# it, none, or a way that leads elsewhere, by a symbolic link or to a file.
EMPTY, OCCUPIED, MISSING, ELSEWHERE = "empty", "occupied", "missing", "elsewhere"

# What stands for the slash in the name of a place below --at: no dataset's name can have it.
# One in another's directory would need a mount point there, which its snapshot may not have.
SLASH = "+"

# File systems of the kernel's own, whose directories come and go.
_KERNELS_OWN = frozenset({"devfs", "fdescfs", "procfs", "linprocfs", "linsysfs", "autofs"})


def _see_nothing(_path: str) -> str:
    return OCCUPIED


class Sight(Record):
    """What a selection has to see of the machine beside datasets and mounts.

    ``look`` says what a path leads to that is no mount point: EMPTY, OCCUPIED, MISSING or
    ELSEWHERE; ``in_jail`` whether this is a jail, in which datasets that belong to a jail are
    its own, and all others the host's.
    """

    look: Callable[[str], str] = _see_nothing
    in_jail: bool = False


BLIND = Sight()


class Place(Record):
    """Where a dataset appears: at ``point``, which is ``below`` a directory, or its own.

    If it is ``away``, the live system has no directory there. Without a point, ``reason``
    says why.
    """

    point: str = ""
    below: str = ""
    away: bool = False
    reason: str = ""


class Places:
    """The places that are given away, one after the other, of what is not mounted.

    ``frozen`` are the mount points of what is captured where it is mounted.
    """

    def __init__(
        self, at: str | None, mounts: Sequence[Mount], frozen: Collection[str], sight: Sight
    ) -> None:
        self._at, self._mounts, self._frozen, self._sight = at, mounts, frozen, sight
        self._points = {mount.point: mount for mount in mounts}
        self._taken: set[str] = set()

    def give(self, dataset: Dataset) -> Place:
        """Find a place for a dataset: its own mount point, or one below --at."""
        reason = self._hindrance(dataset)
        if not reason:
            self._taken.add(dataset.mountpoint)
            return Place(dataset.mountpoint, away=self._is_away(dataset.mountpoint))
        if self._at is None:
            return Place(reason=reason)
        return Place(f"{self._at}/{dataset.name.replace('/', SLASH)}", self._at)

    def blocked(self) -> str:
        """Say why nothing can be shown below --at, or "" if it can."""
        at = self._at or "/"
        inside = next((m.point for m in self._mounts if lies_in(m.point, at)), None)
        if inside is not None:
            return f"{inside} is mounted there"
        if self._is_unfit(at):
            return "it is on a file system that is not this machine's own"
        return {EMPTY: "", OCCUPIED: "there are files in it"}.get(
            self._sight.look(at), "it is no directory, or a symbolic link leads there"
        )

    def _hindrance(self, dataset: Dataset) -> str:
        """Say why a dataset cannot be shown at its mount point, or "" if it can."""
        point = dataset.mountpoint
        if dataset.jailed and not self._sight.in_jail:
            return "its mount point is its jail's affair"
        if not point.startswith("/"):
            return "it has no mount point of its own"
        if point == "/":
            return "its mount point is /"
        inside = [m.point for m in self._mounts if lies_in(m.point, point)]
        inside += [each for each in self._taken if lies_in(each, point)]
        if inside:
            return f"{inside[0]} is in the way"
        if self._at is not None and (lies_in(self._at, point) or lies_in(point, self._at)):
            return f"{self._at} is where --at shows others"
        if nearest(point, self._taken) is not None:
            return ""  # the snapshot above it should have a directory for it
        if self._is_unfit(point):
            return f"{point} is not on a file system of this machine's own"
        return self._seen_in_the_way(point)

    def _seen_in_the_way(self, point: str) -> str:
        found = self._sight.look(point)
        if found == OCCUPIED:
            return f"there are files in {point}"
        if found == ELSEWHERE:
            return f"{point} is no directory, or a symbolic link leads there"
        on = self._on(point).point
        if found == MISSING and (on == "/" or on in self._frozen):
            return f"there is no directory {point}"
        return ""

    def _is_away(self, point: str) -> bool:
        above = nearest(point, self._taken - {point})
        return above is None and self._sight.look(point) == MISSING

    def _is_unfit(self, path: str) -> bool:
        if nearest(path, self._points) is None:
            return True
        on = self._on(path)
        return not on.local or on.type in _KERNELS_OWN

    def _on(self, path: str) -> Mount:
        return self._points[nearest(path, self._points) or "/"]
