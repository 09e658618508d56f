"""Which datasets a job captures, which it leaves out, and why. Pure: nothing here acts."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from kopiatomic.backup.names import Names
from kopiatomic.backup.unmounted import BLIND, Places, Sight
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.system.machine import Dataset, Mount, join, nearest
from kopiatomic.system.volumes import device_of
from kopiatomic.system.zfs import BACKUP_PROPERTY, NAME_LIMIT

# Where bectl(8) mounts a boot environment to look into it.
BECTL_MOUNTS = "/tmp/be_mount."

# mount(2) refuses longer mount points: MNAMELEN, without its NUL.
MOUNT_LIMIT = 1023

# Why something is left out: these words are in the history, the reasons are for people.
EXCLUDED, PROPERTY, VOLUME, JAILED = "excluded", "property", "volume", "jailed"
HIDDEN, LOCKED, CANNOT_MOUNT, NOT_MOUNTED = "hidden", "locked", "canmount", "not mounted"
TOO_LONG, NOT_SELECTED, NOT_ZFS, INACTIVE = "too long", "not selected", "not zfs", "inactive"
NO_MOUNT_POINT = "mountpoint"  # its property mountpoint is none
SHOWN_TWICE = "shown twice"  # a nullfs of what is captured where it lies
NO_SNAPSHOT = "no snapshot"  # none of its snapshots is one that --snapshot means
SWAP = "swap"  # a volume that is swap space
LOST = "lost"  # it vanished, or could not be snapshotted or mounted
FOREIGN = "host's"  # seen from a jail

# What a snapshot can show although nothing else does.
SHOWABLE = frozenset({HIDDEN, CANNOT_MOUNT, NOT_MOUNTED, NO_MOUNT_POINT, JAILED})


class Existing(Record):
    """A snapshot that somebody else made and that a run takes; ``created`` is as time(3) has it."""

    name: str
    guid: str
    txg: int
    created: float

    @property
    def short(self) -> str:
        """What stands after the @."""
        return self.name.partition("@")[2]


class Captured(Record):
    """A dataset that is in the backup, and where it is mounted.

    ``number`` is its own in this run; ``named`` says that the user named it, and not
    just one above it. One that is ``still`` belongs to a read-only pool, which needs
    no snapshot. ``unmounted`` says why it is not to be seen at ``point``, or is empty;
    then ``point`` may lie ``below`` a directory where such are shown, or be ``away``, on a
    file system that has no directory for it.
    With ``existing`` no snapshot is made, but that one taken.
    """

    dataset: str
    point: str
    number: int = 0
    named: bool = False
    still: bool = False
    unmounted: str = ""
    below: str = ""
    away: bool = False
    existing: Existing | None = None


class LeftOut(Record):
    """A dataset or mount that is not in the backup, and why.

    ``missed`` says that the user named it, so that a backup without it is incomplete.
    """

    name: str
    reason: str
    kind: str = LOST
    missed: bool = False

    @property
    def is_obstacle(self) -> bool:
        """Whether it is a file system that could be captured if it were mounted and seen."""
        return self.kind in (HIDDEN, LOCKED, NOT_MOUNTED, NO_MOUNT_POINT)


class Selection(Record):
    """Which datasets are captured and which are left out, and what there is to say about it.

    ``captured`` are file systems; of ``volumes``, the ``point`` is the device.
    """

    captured: tuple[Captured, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()
    volumes: tuple[Captured, ...] = ()


def select(
    job: Job,
    datasets: Sequence[Dataset],
    mounts: Sequence[Mount],
    names: Names,
    sight: Sight = BLIND,
) -> Selection:
    """Sort the candidates into captured and left out; every one of them is in either.

    ``mounts`` are those that can be seen. Raises Refusal if a target cannot be backed up.
    """
    points = {m.special: m.point for m in mounts if m.type == "zfs" and "@" not in m.special}
    targets, notes = _resolve_targets(job, datasets, mounts)
    excluded = _excluded(job, datasets)
    root = next((dataset for dataset, point in points.items() if point == "/"), "")
    captured: list[Captured] = []
    volumes: list[Captured] = []
    left_out: list[LeftOut] = []
    unseen: list[_Unseen] = []
    wishes = _Wishes(job, targets, datasets, sight)
    for dataset in sorted(datasets, key=lambda each: each.name):
        named = dataset.name in targets
        if not wishes.has(dataset):
            continue
        if wishes.has_volume(dataset):
            obstacle = _obstacle_to_clone(dataset, names)
        else:
            obstacle = wishes.obstacle(dataset) or _obstacle(dataset, points, root, names)
        if dataset.name in excluded:
            obstacle = LeftOut(dataset.name, f"excluded by {excluded[dataset.name]}", EXCLUDED)
        elif dataset.backup == "off" and not named:
            reason = f"its property {BACKUP_PROPERTY} is off"
            obstacle = LeftOut(dataset.name, reason, PROPERTY)
        if obstacle is None and dataset.type != "filesystem":
            volumes.append(Captured(dataset.name, device_of(dataset.name), len(volumes), named))
        elif obstacle is None:
            captured.append(Captured(dataset.name, points[dataset.name], named=named))
        elif wishes.has_unseen(dataset, obstacle):
            unseen.append(_Unseen(dataset, obstacle, named))
        else:
            left_out.append(obstacle)
    shown, hindered = _show(job, unseen, mounts, captured, names, sight)
    left_out = sorted((*left_out, *hindered), key=lambda each: each.name)
    _refuse_named(job, targets, left_out)
    captured = sorted((*captured, *shown), key=lambda each: each.dataset)
    numbered = tuple(each._replace(number=number) for number, each in enumerate(captured))
    told = (*notes, *_idle_patterns(job, datasets))
    return Selection(numbered, tuple(left_out), told, tuple(volumes))


class _Wishes:
    """What a job wants of datasets that are named, lie below such, or are just there."""

    def __init__(
        self, job: Job, targets: frozenset[str], datasets: Sequence[Dataset], sight: Sight
    ) -> None:
        self._job, self._targets, self._in_jail = job, targets, sight.in_jail
        self._jailed = {each.name for each in datasets if each.jailed and each.name in targets}

    def has(self, dataset: Dataset) -> bool:
        """Say whether a dataset is wanted at all."""
        if self._job.everything:
            # In a jail those above the jail's own are seen, too.
            return dataset.jailed or not self._in_jail
        return dataset.name in self._targets or self._is_below(dataset, self._targets)

    def _is_below(self, dataset: Dataset, names: Iterable[str]) -> bool:
        return self._job.recursive and not set(names).isdisjoint(_parents(dataset.name))

    def _has_jailed(self, dataset: Dataset) -> bool:
        """Say whether it is wanted although it belongs to a jail."""
        named = dataset.name in self._targets or self._is_below(dataset, self._jailed)
        return self._in_jail or self._job.jailed or named

    def has_volume(self, dataset: Dataset) -> bool:
        """Say whether it is a volume that is to be read, for which a clone is made in its pool."""
        wanted = self._job.volumes or dataset.name in self._targets
        return dataset.type != "filesystem" and wanted and not self._in_jail

    def obstacle(self, dataset: Dataset) -> LeftOut | None:
        """Say why a dataset is another's affair, or None if it is not."""
        if dataset.type != "filesystem":
            return None
        if self._in_jail and not dataset.jailed:
            reason = "belongs to the host of this jail (its property jailed is off)"
            return LeftOut(dataset.name, reason, FOREIGN)
        if dataset.jailed and not self._has_jailed(dataset):
            reason = "belongs to a jail (its property jailed is on)"
            return LeftOut(dataset.name, reason, JAILED)
        return None

    def has_unseen(self, dataset: Dataset, obstacle: LeftOut) -> bool:
        """Say whether it is to be captured although it is not mounted, or not to be seen."""
        if obstacle.kind not in SHOWABLE or obstacle == self.obstacle(dataset):
            return False
        if dataset.jailed and not self._in_jail:
            return True
        # What has no files of its own as a rule is named for the sake of those below it.
        parent = obstacle.kind == CANNOT_MOUNT and self._job.recursive and not self._job.at
        return dataset.name in self._targets and not parent


class _Unseen(Record):
    """A dataset that is wanted although there is an obstacle to seeing it."""

    dataset: Dataset
    obstacle: LeftOut
    named: bool


def _show(
    job: Job,
    unseen: Sequence[_Unseen],
    mounts: Sequence[Mount],
    captured: Sequence[Captured],
    names: Names,
    sight: Sight,
) -> tuple[list[Captured], list[LeftOut]]:
    """Find places for what is not to be seen; return what has one, and what has none."""
    places = Places(job.at, mounts, {each.point for each in captured}, sight)
    shown, hindered = [], []
    # Those above come first, for those below lie in them.
    for dataset, obstacle, named in sorted(unseen, key=lambda e: e.dataset.mountpoint.split("/")):
        place = places.give(dataset)
        reason = obstacle.reason
        if dataset.jailed and not sight.in_jail:
            reason = f"{reason}, and belongs to a jail"
        limit = _too_long(dataset.name, place.point, names) if place.point else None
        if limit is not None:
            hindered.append(limit)
        elif place.point:
            shown.append(
                Captured(
                    dataset.name, place.point, named=named,
                    unmounted=reason, below=place.below, away=place.away,
                )
            )  # fmt: skip
        elif job.recursive and not dataset.jailed:
            hindered.append(obstacle)
        else:
            advice = f"{place.reason}; say by --at DIRECTORY where to show it"
            hindered.append(LeftOut(dataset.name, f"{reason}, and {advice}", obstacle.kind))
    blocked = places.blocked() if any(each.below for each in shown) else ""
    if blocked:
        raise Refusal(f"--at {job.at}: {blocked}; give an empty directory", EX_NOINPUT)
    return shown, hindered


def _refuse_named(job: Job, targets: frozenset[str], left_out: Sequence[LeftOut]) -> None:
    """Refuse a job that names what cannot be captured, unless it names more by -r or -a."""
    if job.recursive or job.everything:
        return
    for each in left_out:
        if each.name in targets:
            advice = {
                INACTIVE: "; name /, which is always the one in use",
                LOCKED: f"; load it: zfs load-key {each.name}",
            }.get(each.kind, "")
            message = f"{each.name} cannot be backed up: {each.reason}{advice}"
            raise Refusal(message, EX_NOINPUT)


def asked_for(job: Job, mounts: Sequence[Mount]) -> tuple[str, ...]:
    """Return the datasets that a job has to know of, with those below them if it is recursive.

    None are returned where it has to know of all: to find what patterns match, or to tell
    what is wrong with a target.
    """
    if job.everything or job.exclude:
        return ()
    mounted = {mount.point: mount for mount in mounts}
    names = []
    for target in job.targets:
        if target.startswith("/"):
            mount = mounted[nearest(target, mounted) or "/"]
            if mount.type != "zfs":
                return ()
            target = mount.special
        names.append(target)
    return tuple(sorted(set(names)))


def _resolve_targets(
    job: Job, datasets: Sequence[Dataset], mounts: Sequence[Mount]
) -> tuple[frozenset[str], list[str]]:
    """Return the datasets that the targets name, and what to say about paths among them."""
    known = {dataset.name for dataset in datasets}
    mounted = {mount.point: mount for mount in mounts}
    found, notes = set(), []
    for target in job.targets:
        if not target.startswith("/"):
            found.add(_dataset_named(target, known))
            continue
        mount = mounted[nearest(target, mounted) or "/"]
        if mount.type != "zfs":
            raise Refusal(
                f"'{target}' is not on ZFS but on a {mount.type} file system; "
                "name a dataset or a path within one",
                EX_NOINPUT,
            )
        if mount.special not in known:
            raise Refusal(f"'{target}' is in the snapshot {mount.special} already", EX_NOINPUT)
        if mount.point != target:
            notes.append(f"{target} lies in {mount.special}, which is backed up as a whole")
        found.add(mount.special)
    return frozenset(found), notes


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


def _parents(name: str) -> list[str]:
    """Return the datasets above ``name``, nearest first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _excluded(job: Job, datasets: Sequence[Dataset]) -> dict[str, str]:
    """Return the datasets that an -x pattern matches, or matches above, and which one."""
    excluded: dict[str, str] = {}
    for name in sorted(dataset.name for dataset in datasets):
        above = excluded.get(name.rpartition("/")[0])
        pattern = above or next((p for p in job.exclude if fnmatchcase(name, p)), None)
        if pattern is not None:
            excluded[name] = pattern
    return excluded


def _idle_patterns(job: Job, datasets: Sequence[Dataset]) -> list[str]:
    return [
        f"-x {pattern} matches no dataset"
        for pattern in job.exclude
        if not any(fnmatchcase(dataset.name, pattern) for dataset in datasets)
    ]


def _obstacle(
    dataset: Dataset, points: Mapping[str, str], root: str, names: Names
) -> LeftOut | None:
    """Say why a dataset cannot be in a view, or None if it can; ``root`` is what / is on."""
    name, point = dataset.name, points.get(dataset.name)
    if dataset.type != "filesystem":
        return LeftOut(name, "a volume, which holds no files", VOLUME)
    if point is None:
        return _why_not_seen(dataset, root)
    if point.startswith(BECTL_MOUNTS) and _is_sibling(name, root):
        return LeftOut(name, "a boot environment that is not in use, mounted by bectl", INACTIVE)
    return _too_long(name, point, names)


def _too_long(name: str, point: str, names: Names) -> LeftOut | None:
    """Say so if a dataset's name or mount point is too long for what is made of it."""
    if len(f"{name}@{names.snapshot}") > NAME_LIMIT:
        reason = f"its name is too long for a snapshot's name of {NAME_LIMIT} characters"
        return LeftOut(name, reason, TOO_LONG)
    if _length(join(names.view, point)) > MOUNT_LIMIT:
        reason = f"its mount point is too long to be mounted again ({MOUNT_LIMIT} bytes)"
        return LeftOut(name, reason, TOO_LONG)
    return None


def _obstacle_to_clone(dataset: Dataset, names: Names) -> LeftOut | None:
    """Say why a volume cannot be read, or None if it can."""
    if dataset.keystatus == "unavailable":
        return LeftOut(dataset.name, "its encryption key is not loaded", LOCKED)
    if len(f"{dataset.name}@{names.snapshot}") > NAME_LIMIT:
        reason = f"its name is too long for a snapshot's name of {NAME_LIMIT} characters"
        return LeftOut(dataset.name, reason, TOO_LONG)
    return None


def _length(path: str) -> int:
    """Return the length of a path in bytes, of which some may be no text."""
    return len(path.encode("utf-8", "surrogateescape"))


def _why_not_seen(dataset: Dataset, root: str) -> LeftOut:
    name = dataset.name
    if dataset.mounted:
        return LeftOut(name, "another file system is mounted over it", HIDDEN)
    if dataset.keystatus == "unavailable":
        return LeftOut(name, "not mounted: its encryption key is not loaded", LOCKED)
    if dataset.canmount == "off":
        return LeftOut(name, "not mounted: its property canmount is off", CANNOT_MOUNT)
    # Of others beside it, which need not be boot environments, bectl(8) sets this.
    if dataset.canmount == "noauto" and _is_sibling(name, root):
        return LeftOut(name, "a boot environment that is not in use", INACTIVE)
    if dataset.mountpoint == "none":
        return LeftOut(name, "not mounted: its property mountpoint is none", NO_MOUNT_POINT)
    return LeftOut(name, "not mounted", NOT_MOUNTED)


def _is_sibling(name: str, root: str) -> bool:
    """Say whether a dataset is, or is in, a boot environment beside the one in use (bectl(8))."""
    beside = f"{root.rpartition('/')[0]}/"
    return "/" in root and name.startswith(beside) and root not in (name, *_parents(name))


def nothing_left(left_out: Sequence[LeftOut]) -> str:
    """Say in one line why a selection captures nothing."""
    if not left_out:
        return "there is no dataset to back up; 'zfs list' shows what there is"
    told = "; ".join(f"{each.name}: {each.reason}" for each in left_out[:3])
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f"no selected dataset can be backed up ({told}{more})"


def without(selection: Selection, lost: Mapping[str, str]) -> Selection:
    """Return a selection without some datasets; ``lost`` says why each of them is not in it."""
    return Selection(
        tuple(each for each in selection.captured if each.dataset not in lost),
        (*selection.left_out, *(LeftOut(name, reason) for name, reason in sorted(lost.items()))),
        selection.notes,
        tuple(each for each in selection.volumes if each.dataset not in lost),
    )


def stand_still(selection: Selection, datasets: Iterable[str]) -> Selection:
    """Return a selection in which ``datasets`` need no snapshot: their pools are read-only."""
    still = set(datasets)
    captured, volumes = (
        tuple(each._replace(still=True) if each.dataset in still else each for each in chosen)
        for chosen in (selection.captured, selection.volumes)
    )
    return selection._replace(captured=captured, volumes=volumes)
