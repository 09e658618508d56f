"""What is new in a backup since the last good one of its job. Pure: nothing here acts.

What was so the last time, what nobody can put files into, and what the user wants left out
is no news. What was in the last good backup and is not in this one always is.
"""

from collections.abc import Mapping
from types import MappingProxyType

from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import (
    CANNOT_MOUNT,
    EXCLUDED,
    LOST,
    NO_MOUNT_POINT,
    PROPERTY,
    SHOWN_TWICE,
    LeftOut,
    shown,
)
from kopiatomic.record import Record
from kopiatomic.system.machine import lies_in, nearest

# What is mounted nowhere by its own properties, and what the user has said is to be left out.
UNMOUNTABLE = frozenset({CANNOT_MOUNT, NO_MOUNT_POINT})
ASKED = frozenset({EXCLUDED, PROPERTY})
QUIET = UNMOUNTABLE | ASKED | {SHOWN_TWICE}


class Before(Record):
    """What the history says of the job's last good backup.

    ``captured`` are datasets with their mount points, ``left_out`` names with the kind of
    the reason, which older entries do not tell. ``parts`` are the directories of datasets
    that are only in part in it.
    """

    when: str
    captured: Mapping[str, str]
    left_out: Mapping[str, str]
    live: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class News(Record):
    """What is new ``since`` the moment of the last good backup, or all if there was none.

    What is ``missing`` was in the last good backup and is left out of this one; what is
    ``gone`` the job does not even find any more. ``captured`` are rows of a dataset and its
    mount point, or directories of it; ``notes`` are those of the plan.
    """

    since: str | None = None
    captured: tuple[tuple[str, str], ...] = ()
    missing: tuple[LeftOut, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    gone: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether there is any."""
        return any(self[1:])


def before_of(entry: Mapping[str, object] | None) -> Before | None:
    """Return what an entry of the history says, or None if it does not say what was captured."""
    if entry is None or not isinstance(entry.get("captured"), list):
        return None
    when = str(entry.get("moment") or entry.get("began") or "")
    return Before(
        when=f"{when[:10]} {when[11:16]}".strip(),
        captured=_pairs(entry.get("captured"), "dataset", "mountpoint"),
        left_out=_pairs(entry.get("left_out"), "name", "kind"),
        live=_texts(entry.get("not_frozen")),
        notes=_texts(entry.get("notes")),
        parts=_parts(entry.get("captured")),
    )


def _parts(value: object) -> dict[str, tuple[str, ...]]:
    rows = value if isinstance(value, list) else []
    known = [row for row in rows if isinstance(row, dict) and "dataset" in row]
    found = {}
    for row in known:
        paths = row.get("directories")
        texts = (path for path in paths if isinstance(path, str)) if isinstance(paths, list) else ()
        found[str(row["dataset"])] = tuple(sorted(texts))
    return {dataset: paths for dataset, paths in found.items() if paths}


def _pairs(value: object, key: str, other: str) -> dict[str, str]:
    rows = value if isinstance(value, list) else []
    known = [row for row in rows if isinstance(row, dict) and key in row]
    return {str(row[key]): str(row.get(other, "")) for row in known}


def _texts(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()


def news(plan: Plan | None, before: Before | None) -> News:
    """Return what is new in what a plan captures and leaves out."""
    if plan is None:
        return News(before.when if before else None)
    if before is None:
        may_hold = tuple(each for each in plan.left_out if each.kind not in QUIET)
        return News(left_out=may_hold, live=plan.live, notes=plan.notes)
    known = {*before.captured, *before.captured.values()}
    known |= {path for paths in before.parts.values() for path in paths}
    missing = tuple(each for each in plan.left_out if each.name in known)
    return News(
        since=before.when,
        captured=tuple(_newly_captured(plan, before)),
        missing=missing,
        left_out=tuple(e for e in plan.left_out if e not in missing and _is_new(e, before)),
        gone=tuple(_gone(plan, before)),
        live=tuple(each for each in plan.live if not _was_live(each, before)),
        notes=tuple(each for each in plan.notes if each not in before.notes),
    )


def _newly_captured(plan: Plan, before: Before) -> list[tuple[str, str]]:
    rows = []
    for each in plan.members:
        old, parts = before.captured.get(each.dataset), before.parts.get(each.dataset, ())
        if old is None:
            rows.append((each.dataset, each.shown))
        elif old != each.point or bool(parts) != bool(each.directories):
            rows.append((each.dataset, f"{each.shown} (before: {shown(old, parts)})"))
        else:
            known = frozenset(parts)  # there may be thousands
            new = (path for path in each.directories if path not in known)
            rows += [(each.dataset, path) for path in new]
    return rows


def _is_new(each: LeftOut, before: Before) -> bool:
    """Say whether it is news that something is left out that was not captured before."""
    if each.kind == LOST:
        return True
    if each.kind in QUIET:
        return False
    # What the user has wanted to be left out, and now cannot be captured, is another matter.
    return before.left_out.get(each.name, EXCLUDED) in QUIET


def _was_live(place: str, before: Before) -> bool:
    """Say whether a place was live, or one that it is in, or one in it.

    What the client has made by now is shown live itself, and before that its directory was.
    """
    return any(lies_in(place, old) or lies_in(old, place) for old in before.live)


def _gone(plan: Plan, before: Before) -> list[str]:
    here = {each.dataset for each in plan.members} | {each.name for each in plan.left_out}
    # What is mounted there still, and not chosen any more, is left out by its mount point.
    gone = [
        name for name, point in before.captured.items() if name not in here and point not in here
    ]
    for each in plan.captured:
        # Of what is captured as a whole now nothing is.
        directories = frozenset(each.directories)
        for path in before.parts.get(each.dataset, ()) if directories else ():
            if path not in here and nearest(path, directories) is None:
                gone.append(path)
    return gone
