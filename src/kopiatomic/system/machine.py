"""The machine as data: its datasets, its mounts, and which of them can be seen."""

from collections.abc import Collection, Iterable, Sequence

from kopiatomic.record import Record

# Where zvol(4) has the devices of volumes, each under the name of its volume.
DEVICES = "/dev/zvol"


class Dataset(Record):
    """A ZFS file system or volume, with the native properties that matter here."""

    name: str
    type: str  # filesystem or volume
    mounted: bool
    canmount: str  # on, off, noauto, or - for a volume
    jailed: bool
    keystatus: str  # available, unavailable, or - where nothing is encrypted
    backup: str  # org.kopiatomic:backup, or - where it is not set
    mountpoint: str = "-"  # the property, which need not be where it is: none, legacy, a path


class Mount(Record):
    """One line of the mount table: what (``special``) is mounted where (``point``).

    ``local`` is mount(8)'s word for a file system that waits for no other machine;
    ``options`` are those that a further mount of it should have as well, such as
    nosuid; ``fsid`` tells it from any other, whatever its path leads to by now.
    """

    special: str
    point: str
    type: str
    read_only: bool = False
    local: bool = True
    options: tuple[str, ...] = ()
    fsid: tuple[int, int] | None = None


def device_of(volume: str) -> str:
    """Return the path of a volume's device."""
    return f"{DEVICES}/{volume}"


def volume_at(path: str) -> str | None:
    """Return the volume whose device a path names, None if it is none below /dev/zvol."""
    inside = path.startswith(f"{DEVICES}/")
    return path[len(DEVICES) + 1 :].rstrip("/") or None if inside else None


def lies_in(path: str, directory: str) -> bool:
    """Say whether ``path`` is ``directory`` or lies below it; both absolute."""
    return path == directory or directory == "/" or path.startswith(directory + "/")


def ancestors(path: str) -> list[str]:
    """Return ``path`` and every directory above it, nearest first, down to ``/``."""
    result = [path]
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        result.append(path)
    return result


def nearest(path: str, points: Iterable[str]) -> str | None:
    """Return the one of ``points`` that ``path`` is or lies below, the deepest; or None."""
    known = points if isinstance(points, (set, frozenset, dict)) else set(points)
    return next((point for point in ancestors(path) if point in known), None)


def leading_on(points: Collection[str]) -> dict[str, set[str]]:
    """Return of each point the names of its entries that lead to another one of them."""
    known = points if isinstance(points, (set, frozenset, dict)) else set(points)
    found: dict[str, set[str]] = {}
    for point in known:
        for above in ancestors(point)[1:]:
            if above in known:
                name = point[len(above.rstrip("/")) + 1 :].split("/")[0]
                found.setdefault(above, set()).add(name)
    return found


def join(directory: str, path: str) -> str:
    """Return the absolute ``path`` as it is called below ``directory``."""
    return directory.rstrip("/") + ("" if path == "/" else path)


def visible_mounts(table: Sequence[Mount]) -> list[Mount]:
    """Return the mounts that can be seen, in the order of the table.

    The table lists mounts in the order in which they were made (getfsstat(2)),
    so one is hidden when a later one covers its mount point or a directory above.
    """
    last = {mount.point: index for index, mount in enumerate(table)}
    return [
        mount
        for index, mount in enumerate(table)
        if all(last.get(point, -1) <= index for point in ancestors(mount.point))
    ]
