"""What is new in a backup since the last good one of its job. Pure: nothing here acts.

What was so the last time, what nobody can put files into, and what the user wants left out
is no news. What was in the last good backup and is not in this one always is.
"""

from collections.abc import Mapping

from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import (
    CANNOT_MOUNT,
    EXCLUDED,
    LOST,
    NO_MOUNT_POINT,
    PROPERTY,
    SHOWN_TWICE,
    LeftOut,
)
from kopiatomic.record import Record

# What is mounted nowhere by its own properties, and what the user has said is to be left out.
UNMOUNTABLE = frozenset({CANNOT_MOUNT, NO_MOUNT_POINT})
ASKED = frozenset({EXCLUDED, PROPERTY})
QUIET = UNMOUNTABLE | ASKED | {SHOWN_TWICE}


class Before(Record):
    """What the history says of the job's last good backup.

    ``captured`` are datasets with their mount points, ``left_out`` names with the kind of
    the reason, which older entries do not tell.
    """

    when: str
    captured: Mapping[str, str]
    left_out: Mapping[str, str]
    live: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()


class News(Record):
    """What is new ``since`` the moment of the last good backup, or all if there was none.

    ``captured`` are rows of a dataset and its mount point; ``gone`` was in the last good
    backup, and the job does not find it any more; ``notes`` are those of the plan.
    """

    since: str | None = None
    captured: tuple[tuple[str, str], ...] = ()
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
    )


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
    points = frozenset(before.captured.values())
    return News(
        since=before.when,
        captured=tuple(_newly_captured(plan, before)),
        left_out=tuple(each for each in plan.left_out if _is_new(each, before, points)),
        gone=tuple(_gone(plan, before)),
        live=tuple(each for each in plan.live if each not in before.live),
        notes=tuple(each for each in plan.notes if each not in before.notes),
    )


def _newly_captured(plan: Plan, before: Before) -> list[tuple[str, str]]:
    rows = []
    for each in plan.captured:
        old = before.captured.get(each.dataset)
        if old is None:
            rows.append((each.dataset, each.point))
        elif old != each.point:
            rows.append((each.dataset, f"{each.point} (before: {old})"))
    return rows


def _is_new(each: LeftOut, before: Before, points: frozenset[str]) -> bool:
    """Say whether it is news that something is left out; ``points`` were captured before."""
    if each.kind == LOST or each.name in before.captured or each.name in points:
        return True
    if each.kind in QUIET:
        return False
    # What the user has wanted to be left out, and now cannot be captured, is another matter.
    return before.left_out.get(each.name, EXCLUDED) in QUIET


def _gone(plan: Plan, before: Before) -> list[str]:
    here = {each.dataset for each in plan.captured} | {each.name for each in plan.left_out}
    # What is mounted there still, and not chosen any more, is left out by its mount point.
    return [
        name for name, point in before.captured.items() if name not in here and point not in here
    ]
