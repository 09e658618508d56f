"""From what the user selected to what will be done. Pure: nothing here acts.

The plan says what is snapshotted, what the view consists of, which paths the
client gets, and what is left out and why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from kopiatomic import state
from kopiatomic.backup.names import Names
from kopiatomic.clients import programs
from kopiatomic.clients.base import Needs
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import (
    Dataset,
    Mount,
    ancestors,
    join,
    lies_in,
    nearest,
    visible_mounts,
)
from kopiatomic.system.zfs import BACKUP_PROPERTY, NAME_LIMIT

# What a view never needs: these show processes, file descriptors or nothing.
UNWANTED = frozenset({"fdescfs", "procfs", "linprocfs", "linsysfs", "autofs"})

# mount(2) refuses longer mount points: MNAMELEN, without its NUL.
MOUNT_LIMIT = 1023

# The ruleset of devfs.rules(5) that shows a jail null, zero, random and the
# standard streams: all that a client in a frozen system needs of /dev.
JAIL_RULESET = "4"


@dataclass(frozen=True, slots=True)
class Captured:
    """A dataset that is in the backup, and where it is mounted."""

    dataset: str
    point: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A dataset or mount that is not in the backup, and why.

    ``kind`` says why for programs: ``excluded`` (by -x), ``property``, ``volume``,
    ``jailed``, ``not_mounted``, ``hidden`` (below another mount), ``too_long`` (its
    name or mount point), ``not_selected`` or ``not_zfs``. ``reason`` says it for people.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class ViewMount:
    """One mount of the view: ``source`` appears in it as ``point``.

    ``kind`` is ``frozen`` (a snapshot), ``live`` (the live system's own),
    ``device`` (devfs), or ``gap``: an empty tree with ``directories``, in place
    of a dataset that was left out although one below it is chosen. ``remote``
    is what lies on another machine, which may not answer; without what is
    ``needed``, the client or its repository would be missing.
    """

    kind: str
    source: str
    point: str
    read_only: bool = False
    ruleset: str | None = None
    directories: tuple[str, ...] = ()
    remote: bool = False
    needed: bool = False


@dataclass(frozen=True)
class Plan:
    """What one run does, in full.

    ``live`` are the places within the captured datasets that stay live,
    because the client has to write there; ``temporary`` is the TMPDIR to give
    it, or None where the usual one serves.
    """

    names: Names
    captured: tuple[Captured, ...]
    left_out: tuple[LeftOut, ...]
    view: tuple[ViewMount, ...]
    paths: tuple[str, ...]
    live: tuple[str, ...]
    temporary: str | None
    notes: tuple[str, ...]

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots to make, by full name."""
        return tuple(f"{each.dataset}@{self.names.snapshot}" for each in self.captured)


def make_plan(
    job: Job, datasets: Sequence[Dataset], table: Sequence[Mount], names: Names, needs: Needs
) -> Plan:
    """Return what a run of ``job`` does on a machine with these datasets and mounts.

    Path targets of the job are absolute and free of symbolic links. Raises
    Refusal if a target cannot be backed up, if nothing is left to back up, or if
    the client could not work in the view.
    """
    mounts = visible_mounts(table)
    points = {m.special: m.point for m in mounts if m.type == "zfs" and "@" not in m.special}
    targets, notes = _resolve_targets(job, datasets, mounts)
    captured, left_out = _select(job, datasets, points, targets, names)
    if not captured:
        raise Refusal(_nothing_left(left_out), EX_NOINPUT)
    view, unchosen = _lay_out(captured, mounts, names)
    live, temporary = _keep_live(view, mounts, needs, names)
    _bridge_gaps(view, mounts, names)
    _check_client(view, mounts, needs)
    return Plan(
        names=names,
        captured=captured,
        left_out=_named_once(left_out, unchosen, points),
        view=_in_order(view, mounts, needs),
        paths=topmost([each.point for each in captured]),
        live=tuple(sorted(live)),
        temporary=temporary,
        notes=(*notes, *_idle_patterns(job, datasets)),
    )


def topmost(points: Iterable[str]) -> tuple[str, ...]:
    """Return the points that lie below no other one, sorted."""
    known = set(points)
    return tuple(
        point for point in sorted(known) if not any(up in known for up in ancestors(point)[1:])
    )


def _in_order(
    view: Mapping[str, ViewMount], mounts: Sequence[Mount], needs: Needs
) -> tuple[ViewMount, ...]:
    """Return the mounts of the view, parents first; marked are those needed or far away."""
    distant = {mount.point for mount in mounts if not mount.local and mount.type != "devfs"}
    places = [needs.program, *needs.live, *([needs.repository] if needs.repository else [])]
    needed = {_found_at(place, view, mounts) for place in places}
    marked = dict(view)
    for point, mount in view.items():
        remote = nearest(point, distant) is not None
        if remote or point in needed:
            marked[point] = replace(mount, remote=remote, needed=point in needed)
    return tuple(marked[point] for point in sorted(marked, key=_by_depth))


def _by_depth(point: str) -> list[str]:
    return [] if point == "/" else point.split("/")[1:]


# Which datasets


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


def _select(
    job: Job,
    datasets: Sequence[Dataset],
    points: Mapping[str, str],
    targets: frozenset[str],
    names: Names,
) -> tuple[tuple[Captured, ...], list[LeftOut]]:
    """Sort the candidates into captured and left out; every one of them is in either."""
    excluded = _excluded(job, datasets)
    captured, left_out = [], []
    for dataset in sorted(datasets, key=lambda each: each.name):
        named = dataset.name in targets
        below = job.recursive and not targets.isdisjoint(_parents(dataset.name))
        if not (named or below or job.everything):
            continue
        against = _reason_against(dataset, points, names)
        if dataset.name in excluded:
            against = "excluded", f"excluded by {excluded[dataset.name]}"
        elif dataset.backup == "off" and not named:
            against = "property", f"its property {BACKUP_PROPERTY} is off"
        if against is None:
            captured.append(Captured(dataset.name, points[dataset.name]))
        elif named and not job.recursive and not job.everything:
            raise Refusal(f"{dataset.name} cannot be backed up: {against[1]}", EX_NOINPUT)
        else:
            left_out.append(LeftOut(dataset.name, *against))
    return tuple(captured), left_out


def _parents(name: str) -> list[str]:
    """Return the datasets above ``name``, nearest first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _excluded(job: Job, datasets: Sequence[Dataset]) -> dict[str, str]:
    """Return the datasets that an -x pattern matches, or matches above, and which one."""
    excluded: dict[str, str] = {}
    for name in sorted(dataset.name for dataset in datasets):
        above = next((excluded[up] for up in _parents(name)[:1] if up in excluded), None)
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


def _reason_against(
    dataset: Dataset, points: Mapping[str, str], names: Names
) -> tuple[str, str] | None:
    """Return why a dataset cannot be in a view, as kind and reason, or None if it can."""
    point = points.get(dataset.name)
    if dataset.type != "filesystem":
        return "volume", "a volume, which holds no files"
    if dataset.jailed:
        return "jailed", "belongs to a jail (its property jailed is on)"
    if point is None:
        return _why_not_seen(dataset)
    if len(f"{dataset.name}@{names.snapshot}") > NAME_LIMIT:
        reason = f"its name is too long for a snapshot's name of {NAME_LIMIT} characters"
        return "too_long", reason
    source = _snapshot_directory(point, names)
    if max(_length(source), _length(join(names.view, point))) > MOUNT_LIMIT:
        reason = f"its mount point is too long to be mounted again ({MOUNT_LIMIT} bytes)"
        return "too_long", reason
    return None


def _length(path: str) -> int:
    """Return the length of a path in bytes, of which some may be no text."""
    return len(path.encode("utf-8", "surrogateescape"))


def _why_not_seen(dataset: Dataset) -> tuple[str, str]:
    if dataset.mounted:
        return "hidden", "another file system is mounted over it"
    if dataset.keystatus == "unavailable":
        return "not_mounted", "not mounted: its encryption key is not loaded"
    if dataset.canmount == "off":
        return "not_mounted", "not mounted: its property canmount is off"
    return "not_mounted", "not mounted"


def _nothing_left(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "there is no dataset to back up; 'zfs list' shows what there is"
    told = "; ".join(f"{each.name}: {each.reason}" for each in left_out[:3])
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f"no selected dataset can be backed up ({told}{more})"


def _named_once(
    left_out: Sequence[LeftOut], unchosen: Sequence[Mount], points: Mapping[str, str]
) -> tuple[LeftOut, ...]:
    """Add the mounts within captured ones that nobody selected to what is left out."""
    told = {points.get(each.name) for each in left_out}
    return (*left_out, *(_unchosen(mount) for mount in unchosen if mount.point not in told))


def _unchosen(mount: Mount) -> LeftOut:
    if mount.type == "zfs":
        return LeftOut(mount.point, "not_selected", f"not selected (dataset {mount.special})")
    return LeftOut(mount.point, "not_zfs", f"not on ZFS ({mount.type})")


# What the view consists of


def _snapshot_directory(point: str, names: Names) -> str:
    return join(point, f"/.zfs/snapshot/{names.snapshot}")


def _lay_out(
    captured: Sequence[Captured], mounts: Sequence[Mount], names: Names
) -> tuple[dict[str, ViewMount], list[Mount]]:
    """Return the view by mount point, and the mounts that are kept out of the backup."""
    frozen = {each.point for each in captured}
    view: dict[str, ViewMount] = {}
    unchosen = []
    for mount in mounts:
        if mount.point in frozen:
            source = _snapshot_directory(mount.point, names)
            view[mount.point] = ViewMount("frozen", source, mount.point, read_only=True)
        elif mount.type in UNWANTED or _is_inner(mount, names):
            continue
        elif mount.type == "devfs":
            if mount.point == "/dev":
                ruleset = JAIL_RULESET if "/" in frozen else None
                view["/dev"] = ViewMount("device", "devfs", "/dev", ruleset=ruleset)
        elif nearest(mount.point, frozen) is not None:
            unchosen.append(mount)
        else:
            view[mount.point] = _live(mount)
    return view, unchosen


def _is_inner(mount: Mount, names: Names) -> bool:
    """Say whether a mount is one of ours, or one that ZFS made to show a snapshot.

    Where /var or /var/run is a symbolic link, ours have other names in the mount table.
    """
    automount = mount.type == "zfs" and "/.zfs/snapshot/" in mount.point
    run = ancestors(names.directory)[2]
    ours = [f"{root}/{program}" for root in (state.RUN_ROOT, run) for program in programs()]
    return automount or any(lies_in(mount.point, each) for each in ours)


def _live(mount: Mount) -> ViewMount:
    return ViewMount("live", mount.point, mount.point, read_only=mount.read_only)


def _keep_live(
    view: dict[str, ViewMount], mounts: Sequence[Mount], needs: Needs, names: Names
) -> tuple[set[str], str | None]:
    """Put back live what the client must write; return these places, and its TMPDIR."""
    live = {"/dev"} if "/dev" in view and view["/dev"].ruleset else set()
    for place in needs.live:
        chosen = _chosen_within(place, view)
        if chosen:
            raise Refusal(
                f"--live {place} would undo the freezing of {chosen[0]}; name a directory below it"
            )
    places = [*needs.live, *(each for each in needs.writable if not _chosen_within(each, view))]
    temporary = None
    if not _is_live(needs.temporary, view, mounts):
        temporary = names.temporary
        places.append(temporary)
    for place in places:
        if not _is_live(place, view, mounts):
            live.add(place)
            view[place] = ViewMount("live", place, place)
            inner = [m for m in mounts if m.point != place and lies_in(m.point, place)]
            view.update(
                (m.point, _live(m))
                for m in inner
                if m.type not in UNWANTED | {"devfs"}
                and not _is_inner(m, names)
                and m.point not in view
            )
    return live, temporary


def _chosen_within(place: str, view: Mapping[str, ViewMount]) -> list[str]:
    return [p for p, mount in view.items() if mount.kind == "frozen" and lies_in(p, place)]


def _is_live(path: str, view: Mapping[str, ViewMount], mounts: Sequence[Mount]) -> bool:
    """Say whether a live path is found in the view, and is the live one there."""
    point = _found_at(path, view, mounts)
    return point is not None and view[point].kind == "live"


def _found_at(path: str, view: Mapping[str, ViewMount], mounts: Sequence[Mount]) -> str | None:
    """Return the mount of the view that shows a live ``path``, or None if none does.

    Where a mount was left out, the view shows the empty directory below it.
    """
    point = nearest(path, view)
    really = nearest(path, {mount.point for mount in mounts}) or "/"
    return point if point is not None and lies_in(point, really) else None


def _bridge_gaps(view: dict[str, ViewMount], mounts: Sequence[Mount], names: Names) -> None:
    """Lay an empty tree over each dataset left out that has something chosen below it.

    Without it the mount point of what is chosen would not exist in the view.
    """
    live_points = {mount.point for mount in mounts}
    gaps: dict[str, list[str]] = {}
    for point in sorted(view, key=_by_depth):
        missing = None
        for above in ancestors(point)[1:]:
            if above in view:
                break
            if above in live_points:
                missing = above
        if missing is not None:
            gaps.setdefault(missing, []).append(point[len(missing.rstrip("/")) + 1 :])
    for number, (point, inside) in enumerate(sorted(gaps.items())):
        view[point] = ViewMount(
            "gap", f"{names.gaps}/{number}", point, read_only=True, directories=tuple(inside)
        )


def _check_client(view: Mapping[str, ViewMount], mounts: Sequence[Mount], needs: Needs) -> None:
    """Refuse a run whose client could not start, or could not write its repository."""
    if _found_at(needs.program, view, mounts) is None:
        raise Refusal(
            f"the client would not find {needs.program}: its file system is left out of the view; "
            f"add --live {_mount_above(needs.program, mounts)}",
            EX_CONFIG,
        )
    if needs.repository is not None and not _is_live(needs.repository, view, mounts):
        raise Refusal(
            f"the repository {needs.repository} would be frozen or out of sight during the backup; "
            f"keep it in another dataset, or add --live {needs.repository}",
            EX_CONFIG,
        )


def _mount_above(path: str, mounts: Sequence[Mount]) -> str:
    return nearest(path, {mount.point for mount in mounts}) or "/"
