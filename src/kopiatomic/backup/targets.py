"""What the targets of a job name: datasets as a whole, and directories of them. Pure.

A path that is the mount point of a dataset names the dataset, any other path the directory
or file alone.
"""

from collections.abc import Iterable, Mapping, Sequence

from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.system.machine import Dataset, Mount, ancestors, lies_in, nearest


class Named(Record):
    """What a job's targets name: the datasets named as a ``whole``, and ``parts`` of others.

    The parts are directories or files by their dataset, of those that lie in each other the
    topmost. ``shown`` are the file systems that can be seen, by mount point.
    """

    whole: frozenset[str]
    parts: Mapping[str, tuple[str, ...]]
    shown: Mapping[str, Mount]

    def has(self, dataset: str) -> bool:
        """Say whether a target names the dataset or something in it."""
        return dataset in self.whole or dataset in self.parts

    def take_along(self, dataset: Dataset, point: str | None, in_jail: bool = False) -> bool:
        """Say whether -r takes a dataset along that is, or belongs, below a named directory.

        ``point`` is where it can be seen, None if nowhere. It is told of one that is not
        mounted, unless another one is mounted where it belongs, as in place of a replica.
        """
        if point is None:
            here = self.shown.get(dataset.mountpoint)
            taken = here is not None and here.type == "zfs" and not dataset.mounted
            if dataset.jailed != in_jail or taken or not dataset.mountpoint.startswith("/"):
                return False
            point = dataset.mountpoint
        return any(lies_in(point, path) for paths in self.parts.values() for path in paths)


def named_by(
    job: Job,
    datasets: Sequence[Dataset],
    mounts: Sequence[Mount],
    belonging: Mapping[str, str],
) -> Named:
    """Return what the targets of a job name; raises Refusal if one cannot be backed up.

    Paths among them are real ones. ``belonging`` are datasets that are not mounted, by the
    empty directory where each belongs: whoever names that means the dataset.
    """
    known = {dataset.name for dataset in datasets}
    shown = {mount.point: mount for mount in mounts}
    whole: set[str] = set()
    parts: dict[str, list[str]] = {}
    for target in job.targets:
        if target in belonging and target not in shown:
            whole.add(belonging[target])
            continue
        try:
            dataset, is_part = _named(target, known, shown)
        except Refusal as refusal:
            raise Refusal(f"{job.place_of(target)}{refusal}", refusal.status) from None
        if is_part:
            parts.setdefault(dataset, []).append(target)
        else:
            whole.add(dataset)
    rest = {name: topmost(paths) for name, paths in parts.items() if name not in whole}
    return Named(frozenset(whole), rest, shown)


def _named(target: str, known: set[str], shown: Mapping[str, Mount]) -> tuple[str, bool]:
    """Return the dataset that a target names, and whether only a part of it; raises Refusal."""
    if not target.startswith("/"):
        return _dataset_named(target, known), False
    mount = shown.get(nearest(target, shown) or "/")
    if mount is None:
        raise Refusal(f"no file system is mounted where '{target}' is", EX_NOINPUT)
    if mount.type != "zfs":
        raise Refusal(
            f"'{target}' is not on ZFS but on a {mount.type} file system; "
            "name a dataset or a path within one",
            EX_NOINPUT,
        )
    if mount.special not in known:
        where = f"'{target}' is in the snapshot {mount.special} already"
        if "@" not in mount.special:
            where = f"'{target}' is on {mount.special}, which this jail has not been given"
        raise Refusal(where, EX_NOINPUT)
    return mount.special, mount.point != target


def _dataset_named(name: str, known: set[str]) -> str:
    if name in known:
        return name
    if "@" in name or "#" in name:
        hint = "a snapshot or bookmark cannot be backed up; name its dataset"
    elif name.rstrip("/") in known:
        hint = f"write '{name.rstrip('/')}' without the slash at its end"
    else:
        hint = "'zfs list' shows the names there are"
    raise Refusal(f"no dataset is called '{name}'; {hint}", EX_NOINPUT)


def asked_for(job: Job, mounts: Sequence[Mount]) -> tuple[str, ...]:
    """Return the datasets that a job has to know of, with those below them if it is recursive.

    None are returned where it has to know of all: to find what patterns match, what is
    mounted below a directory or belongs there, or to tell what is wrong with a target.
    """
    if job.everything or job.exclude:
        return ()
    mounted = {mount.point: mount for mount in mounts}
    names = []
    for target in job.targets:
        if target.startswith("/"):
            mount = mounted.get(target)
            if mount is None or mount.type != "zfs":
                return ()
            target = mount.special
        names.append(target)
    return tuple(sorted(set(names)))


def topmost(points: Iterable[str]) -> tuple[str, ...]:
    """Return the points that lie below no other one, sorted."""
    known = set(points)
    return tuple(
        point for point in sorted(known) if not any(up in known for up in ancestors(point)[1:])
    )
