"""Which datasets a job captures, which it leaves out, and why. Pure: nothing here acts."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from kopiatomic.backup.names import Names
from kopiatomic.backup.targets import Named, named_by
from kopiatomic.backup.unmounted import BLIND, EMPTY, Places, Sight
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.system.machine import Dataset, Mount, device_of, join
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
GONE = "gone"  # a path that was named and is not there

# What a snapshot can show although nothing else does.
SHOWABLE = frozenset({HIDDEN, CANNOT_MOUNT, NOT_MOUNTED, NO_MOUNT_POINT, JAILED})

# Without what the user has named and is left out for such a reason, a backup is not whole.
WANTED = frozenset({HIDDEN, LOCKED, NOT_MOUNTED, INACTIVE, TOO_LONG, VOLUME})


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

# So many directories of a dataset are told one by one.
NAMED = 5


class Captured(Record):
    """A dataset that is in the backup, and where it is mounted.

    ``number`` is its own in this run; ``named`` says that the user named it, and not
    just one above it. One that is ``still`` belongs to a read-only pool, which needs
    no snapshot. ``unmounted`` says why it is not to be seen at ``point``, or is empty;
    then ``point`` may lie ``below`` a directory where such are shown, or be ``away``, on a
    file system that has no directory for it.
    With ``existing`` no snapshot is made, but that one taken.
    Of one with ``directories`` these alone are in the backup, as absolute paths: directories,
    or files, of which none lies in another.
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
    directories: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """What of it is in the backup: its directories, or else its mount point."""
        return self.directories or (self.point,)

    @property
    def shown(self) -> str:
        """What of it is in the backup, for people."""
        return shown(self.point, self.directories)


def shown(point: str, directories: Sequence[str]) -> str:
    """Return what is in the backup of a dataset mounted at ``point``, for people."""
    if not directories:
        return point
    more = len(directories) - NAMED
    told = ", ".join(directories[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{point}, only {told}"


class LeftOut(Record):
    """A dataset, mount or directory that is not in the backup, and why.

    ``missed`` says that the user named it, so that a backup without it is incomplete, and
    ``named`` that the user did.
    """

    name: str
    reason: str
    kind: str = LOST
    missed: bool = False
    named: bool = False

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
    root = next((dataset for dataset, point in points.items() if point == "/"), "")
    targets = named_by(job, datasets, mounts, _belonging(job, datasets, points, root, sight))
    excluded = _excluded(job, datasets)
    captured: list[Captured] = []
    volumes: list[Captured] = []
    left_out: list[LeftOut] = []
    unseen: list[_Unseen] = []
    wishes = _Wishes(job, targets, datasets, points, sight)
    for dataset in sorted(datasets, key=lambda each: each.name):
        named = targets.has(dataset.name)
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
            parts = wishes.parts_of(dataset)
            point = points[dataset.name]
            captured.append(Captured(dataset.name, point, named=named, directories=parts))
        elif wishes.has_unseen(dataset, obstacle):
            unseen.append(_Unseen(dataset, obstacle, named))
        else:
            left_out.append(obstacle)
    shown, hindered = _show(job, unseen, mounts, captured, names, sight)
    left_out = sorted((*left_out, *hindered), key=lambda each: each.name)
    by_name = {each.name: each for each in datasets}
    left_out = [
        each._replace(named=True, missed=_is_missed(each, by_name[each.name]))
        if targets.has(each.name) else each
        for each in left_out
    ]  # fmt: skip
    _refuse_named(job, targets, left_out)
    captured = sorted((*captured, *shown), key=lambda each: each.dataset)
    numbered = tuple(each._replace(number=number) for number, each in enumerate(captured))
    left_out += [_gone(job, target) for target in job.gone]
    told = tuple(_idle_patterns(job, datasets))
    return Selection(numbered, tuple(left_out), told, tuple(volumes))


def _is_missed(left: LeftOut, dataset: Dataset) -> bool:
    """Say whether a run is to tell each time that it is without something that was named.

    With -r, what has no mount point of its own, or is not mounted by itself, may be named
    for the sake of those below it.
    """
    if left.kind == NOT_MOUNTED:
        return dataset.canmount == "on" and dataset.mountpoint not in ("none", "legacy")
    return left.kind in WANTED


def _gone(job: Job, target: str) -> LeftOut:
    """Return what there is to say of a path that was named and is not there."""
    where = job.place_of(target).removesuffix(": ")
    reason = f"it does not exist ({where})" if where else "it does not exist"
    return LeftOut(target, reason, GONE, missed=True, named=True)


class _Wishes:
    """What a job wants of datasets that are named, lie below such, or are just there."""

    def __init__(
        self,
        job: Job,
        targets: Named,
        datasets: Sequence[Dataset],
        points: Mapping[str, str],
        sight: Sight,
    ) -> None:
        self._job, self._targets, self._in_jail = job, targets, sight.in_jail
        self._points = points
        self._jailed = {each.name for each in datasets if each.jailed and targets.has(each.name)}

    def has(self, dataset: Dataset) -> bool:
        """Say whether a dataset is wanted at all."""
        if self._job.everything:
            # In a jail those above the jail's own are seen, too.
            return dataset.jailed or not self._in_jail
        return self._targets.has(dataset.name) or self._comes_along(dataset)

    def _comes_along(self, dataset: Dataset) -> bool:
        """Say whether -r takes a dataset along as a whole."""
        point = self._points.get(dataset.name)
        return self._is_below(dataset, self._targets.whole) or (
            self._job.recursive and self._targets.take_along(dataset, point, self._in_jail)
        )

    def parts_of(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the directories of a dataset that are wanted alone; none if all of it is.

        What is set off, -r does not take along.
        """
        parts = self._targets.parts.get(dataset.name, ())
        whole = bool(parts) and dataset.backup != "off" and self._comes_along(dataset)
        return () if whole else parts

    def _is_below(self, dataset: Dataset, names: Iterable[str]) -> bool:
        return self._job.recursive and not set(names).isdisjoint(_parents(dataset.name))

    def _has_jailed(self, dataset: Dataset) -> bool:
        """Say whether it is wanted although it belongs to a jail."""
        named = self._targets.has(dataset.name) or self._is_below(dataset, self._jailed)
        return self._in_jail or self._job.jailed or named

    def has_volume(self, dataset: Dataset) -> bool:
        """Say whether it is a volume that is to be read, for which a clone is made in its pool."""
        wanted = self._job.volumes or self._targets.has(dataset.name)
        return dataset.type != "filesystem" and wanted and not self._in_jail

    def obstacle(self, dataset: Dataset) -> LeftOut | None:
        """Say why a dataset is another's affair, or None if it is not."""
        if dataset.type != "filesystem":
            # Whose it is it does not say: it has no property jailed.
            reason = "a volume, which can be read on the host of this jail only"
            return LeftOut(dataset.name, reason, VOLUME) if self._in_jail else None
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
        return self._targets.has(dataset.name) and not parent


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


def _refuse_named(job: Job, targets: Named, left_out: Sequence[LeftOut]) -> None:
    """Refuse a job that names what cannot be captured, unless it names more by -r or -a."""
    if job.recursive or job.everything:
        return
    for each in left_out:
        if targets.has(each.name):
            raise Refusal(f"{each.name} cannot be backed up: {with_advice(each)}", EX_NOINPUT)


def with_advice(left: LeftOut) -> str:
    """Return why something that was named is left out, and what to do about it."""
    # Of what a shell takes apart, a dataset's name has nothing but blanks.
    name = f"'{left.name}'" if " " in left.name else left.name
    advice = {
        INACTIVE: "; name /, which is always the one in use",
        LOCKED: f"; load it: zfs load-key {name}",
    }.get(left.kind, "")
    return f"{left.reason}{advice}"


def _belonging(
    job: Job, datasets: Sequence[Dataset], points: Mapping[str, str], root: str, sight: Sight
) -> dict[str, str]:
    """Return the datasets that are waiting to be mounted, by the empty directory for each."""
    return {
        each.mountpoint: each.name
        for each in datasets
        if each.mountpoint in job.targets
        and each.name not in points
        and each.jailed == sight.in_jail
        and _why_not_seen(each, root).kind in (LOCKED, NOT_MOUNTED)
        and sight.look(each.mountpoint) == EMPTY
    }


def _parents(name: str) -> list[str]:
    """Return the datasets above ``name``, nearest first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def is_excluded(job: Job, name: str) -> bool:
    """Say whether an -x pattern matches a dataset, or one above it."""
    every = (name, *_parents(name))
    return any(fnmatchcase(each, pattern) for each in every for pattern in job.exclude)


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
    if point.startswith(BECTL_MOUNTS) and is_beside_root(name, root):
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
    if dataset.canmount == "noauto" and is_beside_root(name, root):
        return LeftOut(name, "a boot environment that is not in use", INACTIVE)
    if dataset.mountpoint == "none":
        return LeftOut(name, "not mounted: its property mountpoint is none", NO_MOUNT_POINT)
    return LeftOut(name, "not mounted", NOT_MOUNTED)


def is_beside_root(name: str, root: str) -> bool:
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
    """Return a selection without some datasets, or directories of them.

    ``lost`` says why each of them is not in it.
    """
    kept = []
    for each in selection.captured:
        rest = tuple(path for path in each.paths if path not in lost)
        if each.dataset not in lost and not each.directories:
            kept.append(each)
        elif each.dataset not in lost and rest:
            kept.append(each._replace(directories=rest))
    told = (LeftOut(name, reason) for name, reason in sorted(lost.items()))
    volumes = tuple(each for each in selection.volumes if each.dataset not in lost)
    return Selection(tuple(kept), (*selection.left_out, *told), selection.notes, volumes)


def stand_still(selection: Selection, datasets: Iterable[str]) -> Selection:
    """Return a selection in which ``datasets`` need no snapshot: their pools are read-only."""
    still = set(datasets)
    captured, volumes = (
        tuple(each._replace(still=True) if each.dataset in still else each for each in chosen)
        for chosen in (selection.captured, selection.volumes)
    )
    return selection._replace(captured=captured, volumes=volumes)
