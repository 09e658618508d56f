"""Existing snapshots instead of new ones: which are taken, and whether there is anything new.

A snapshot of a replica is renamed by ``zfs receive -F``, or is in its way, and who runs
sanoid, zfsnap or zrepl has snapshots anyway. Of each dataset the newest one is taken that
matches the pattern and was not made by a run of ours.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from kopiatomic.backup.names import beginning_of
from kopiatomic.backup.selection import NO_SNAPSHOT, Captured, Existing, LeftOut, Selection
from kopiatomic.clients import programs
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.formatting import age, clock, duration, iso
from kopiatomic.job import Job
from kopiatomic.system import zfs
from kopiatomic.system.command import Door, quote
from kopiatomic.system.zfs import Listed, pool_of

# How much older, in seconds, a snapshot may be than the newest one of its dataset where all
# datasets of the pool have one of its name: while a replica is received, some have the next
# one already. With that one the backup would be of several moments.
AGREE = 2 * 3600.0

# Snapshots that were made by one command may bear two seconds that follow one another.
SLACK = 1.0


# Which are taken


def take(door: Door, job: Job, selection: Selection) -> Selection:
    """Return a selection with the snapshot that is taken of each dataset.

    Those without one are left out. Raises Refusal if that is all of them, CommandFailed if
    zfs(8) fails.
    """
    pattern = job.snapshot or ""
    names = [each.dataset for each in selection.captured if not each.still]
    found = find(door, pattern, names)
    captured = tuple(
        each._replace(existing=found.get(each.dataset))
        for each in selection.captured
        if each.still or each.dataset in found
    )
    reason = f"none of its snapshots matches '{pattern}'"
    lacking = [
        LeftOut(each.dataset, reason, NO_SNAPSHOT, each.named)
        for each in selection.captured
        if not (each.still or each.dataset in found)
    ]
    if lacking and not captured:
        command = quote(["zfs", "list", "-t", "snapshot", lacking[0].name])
        raise Refusal(
            f"no chosen dataset has a snapshot that matches '{pattern}'; "
            f"look at what there is, with: {command}",
            EX_NOINPUT,
        )
    return selection._replace(captured=captured, left_out=(*selection.left_out, *lacking))


def retake(captured: Sequence[Captured], found: Mapping[str, Existing]) -> tuple[Captured, ...]:
    """Return what is captured with other snapshots taken of some datasets."""
    return tuple(
        each._replace(existing=found[each.dataset]) if each.dataset in found else each
        for each in captured
    )


def find(door: Door, pattern: str, datasets: Sequence[str]) -> dict[str, Existing]:
    """Return the snapshot to take of each dataset that has one; raises CommandFailed."""
    matching: dict[str, list[Listed]] = {}
    for each in zfs.snapshots_on(door, datasets) if datasets else ():
        name, _, short = each.name.partition("@")
        if fnmatchcase(short, pattern):
            matching.setdefault(name, []).append(each)
    for of_dataset in matching.values():
        of_dataset.sort(key=lambda each: each.txg, reverse=True)
    return _settle(door, matching)


def _settle(door: Door, matching: dict[str, list[Listed]]) -> dict[str, Existing]:
    """Choose among what matches, newest first, without what is ours or has gone meanwhile.

    Properties are asked of what would be taken, which is one or two of each dataset.
    """
    beginnings = tuple(beginning_of(program) for program in programs())
    known: dict[str, float] = {}
    suspects = [e.name for of in matching.values() for e in of if _short(e).startswith(beginnings)]
    while matching:
        agreed = _agreed(matching)
        wanted = [e.name for of, each in matching.items() for e in (each[0], agreed.get(of)) if e]
        fresh = [name for name in dict.fromkeys((*wanted, *suspects)) if name not in known]
        if not fresh:
            break
        created = zfs.created_at(door, fresh)
        unfit = {*fresh}.difference(created) | zfs.bear_our_mark(door, fresh)
        known |= created
        matching = _without(matching, unfit)
        # Ours under other names are rare: then all are asked about, and no more rounds needed.
        suspects = [e.name for of in matching.values() for e in of] if unfit else []
    return _chosen(matching, known)


def _short(listed: Listed) -> str:
    return listed.name.partition("@")[2]


def _without(
    matching: Mapping[str, Sequence[Listed]], unfit: Collection[str]
) -> dict[str, list[Listed]]:
    rest = {of: [e for e in each if e.name not in unfit] for of, each in matching.items()}
    return {of: each for of, each in rest.items() if each}


def _agreed(matching: Mapping[str, Sequence[Listed]]) -> dict[str, Listed]:
    """Return for datasets whose newest snapshots differ in name the newest one that all have."""
    pools: dict[str, list[str]] = {}
    for name in matching:
        pools.setdefault(pool_of(name), []).append(name)
    agreed: dict[str, Listed] = {}
    for names in pools.values():
        if len({_short(matching[name][0]) for name in names}) == 1:
            continue
        by_name = {name: {_short(each): each for each in matching[name]} for name in names}
        fewest = min(names, key=lambda name: len(matching[name]))
        for each in matching[fewest]:
            if all(_short(each) in by_name[name] for name in names):
                agreed |= {name: by_name[name][_short(each)] for name in names}
                break
    return agreed


def _chosen(
    matching: Mapping[str, Sequence[Listed]], created: Mapping[str, float]
) -> dict[str, Existing]:
    newest = {of: _existing(each[0], created) for of, each in matching.items()}
    agreed = {of: _existing(each, created) for of, each in _agreed(matching).items()}
    for pool in {pool_of(name) for name in agreed}:
        names = [name for name in agreed if pool_of(name) == pool]
        if all(newest[name].created - agreed[name].created <= AGREE for name in names):
            newest |= {name: agreed[name] for name in names}
    return newest


def _existing(listed: Listed, created: Mapping[str, float]) -> Existing:
    return Existing(listed.name, listed.guid, listed.txg, created[listed.name])


# Whether there is anything new


def is_backed_up(
    captured: Sequence[Captured], selection: Mapping[str, object], entry: Mapping[str, object]
) -> bool:
    """Say whether a backup has all these snapshots; ``entry`` is its history's.

    The guid tells, not the time: of two that were created in one second, or on either side of
    a rollback, each has files of its own.
    """
    rows = entry.get("captured")
    if entry.get("selection") != selection or not isinstance(rows, list):
        return False
    known = {row.get("dataset"): row for row in rows if isinstance(row, dict)}
    return all(_is_in(each, known.get(each.dataset, {})) for each in captured)


def _is_in(captured: Captured, row: Mapping[str, object]) -> bool:
    existing = captured.existing
    return (
        existing is not None
        and row.get("guid") == existing.guid
        and row.get("mountpoint") == captured.point
        and row.get("directories", []) == list(captured.directories)
    )


# What there is to say about them


def taken(captured: Iterable[Captured]) -> list[Existing]:
    """Return the existing snapshots that are taken."""
    return [each.existing for each in captured if each.existing is not None]


def moments(captured: Iterable[Captured]) -> dict[str, float]:
    """Return for each pool when the newest of the snapshots taken there was created."""
    newest: dict[str, float] = {}
    for each in taken(captured):
        pool = pool_of(each.name)
        newest[pool] = max(each.created, newest.get(pool, each.created))
    return newest


def is_one_moment(snapshots: Sequence[Existing]) -> bool:
    """Say whether snapshots are known to be of one transaction group."""
    return len({(pool_of(each.name), each.txg) for each in snapshots}) == 1


def headline(captured: Sequence[Captured]) -> str:
    """Say of which moment the snapshots are, or how far apart: the title of what is captured."""
    snapshots = taken(captured)
    first = min(snapshots, key=lambda each: each.created)
    last = max(snapshots, key=lambda each: each.created)
    names = {each.short for each in snapshots}
    called = f"snapshots @{last.short}" if len(names) == 1 else f"{len(names)} sets of snapshots"
    if is_one_moment(snapshots):
        return f"Captured at one moment, {clock(last.created)}, by existing {called}"
    if last.created - first.created <= SLACK:
        return f"Captured by existing {called}, created {clock(last.created)}"
    return (
        f"Captured by existing {called}, created {clock(first.created)} to "
        f"{clock(last.created)}; {first.name} and {last.name} lie "
        f"{duration(last.created - first.created)} apart"
    )


def rows(captured: Sequence[Captured]) -> list[tuple[str, str]]:
    """Return what is captured as rows, with the snapshot of each where they differ."""
    snapshots = taken(captured)
    if len({(each.short, int(each.created)) for each in snapshots}) <= 1:
        return [(each.dataset, each.shown) for each in captured]
    return [
        (each.dataset, f"{each.shown}  ({told(each.existing)})" if each.existing else each.shown)
        for each in captured
    ]


def told(existing: Existing) -> str:
    """Say which snapshot that is, and when it was created."""
    return f"@{existing.short}, {clock(existing.created)}"


def would_take(captured: Sequence[Captured], now: float) -> list[tuple[str, str]]:
    """Return rows for a plan: the snapshot that would be taken of each dataset, and its age."""
    return [
        (e.existing.name, f"{clock(e.existing.created)}, {_old(now - e.existing.created)}")
        for e in captured
        if e.existing is not None
    ]


def _old(seconds: float) -> str:
    told = age(seconds)
    return told if told in ("just now", "in the future") else f"{told} old"


def as_dict(captured: Sequence[Captured]) -> dict[str, object]:
    """Return as plain data how far the snapshots lie apart; nothing where none are taken."""
    snapshots = taken(captured)
    if not snapshots:
        return {}
    first = min(snapshots, key=lambda each: each.created)
    last = max(snapshots, key=lambda each: each.created)
    told = {
        "oldest": iso(first.created),
        "oldest_snapshot": first.name,
        "newest": iso(last.created),
        "seconds_apart": round(last.created - first.created),
        "one_moment": is_one_moment(snapshots),
    }
    return {"existing": told}


def row_of(existing: Existing) -> dict[str, object]:
    """Return what there is to keep of the snapshot that a dataset was captured by."""
    return {
        "snapshot": existing.name,
        "guid": existing.guid,
        "created": iso(existing.created),
    }


def with_ages(captured: Sequence[Captured], rows: object, now: float) -> list[dict[str, object]]:
    """Return the rows of a plan with the age of each snapshot, in seconds."""
    listed = rows if isinstance(rows, list) else []
    return [
        {**row, "age_seconds": round(now - each.existing.created)} if each.existing else row
        for each, row in zip(captured, listed, strict=True)
    ]


def nothing_new(captured: Sequence[Captured], now: float) -> list[str]:
    """Say that there is no snapshot that is in no good backup yet."""
    snapshots = taken(captured)
    if not snapshots:
        return []
    last = max(snapshots, key=lambda each: each.created)
    return [
        "  all snapshots that would be taken are in a good backup already; the newest is",
        f"  {last.name}, {clock(last.created)}, {_old(now - last.created)}",
    ]
