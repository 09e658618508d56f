"""Directories and files that are chosen alone: where they are in the snapshots, and if they are."""

import os
import stat
from collections.abc import Collection, Mapping

from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import Captured
from kopiatomic.backup.view import Lost
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.system.machine import lies_in, nearest

ABSENT = "it was not there at the moment of the snapshot"
LED_ELSEWHERE = "at the moment of the snapshot a symbolic link was in its place, or on the way"


def places(plan: Plan) -> dict[str, str]:
    """Return where the files of each path of the captured datasets are while a run goes on.

    That is in the snapshots, which must be mounted; of a pool that stands still it is live.
    """
    holds = {hold.dataset: hold.directory for hold in plan.holds}
    return {
        path: _place_of(path, each, holds) for each in plan.captured for path in each.paths
    }


def _place_of(path: str, captured: Captured, holds: Mapping[str, str]) -> str:
    """Return where a path of a captured dataset is, by the directories of the snapshots."""
    hold = holds.get(captured.dataset)
    return path if hold is None else hold + _within(path, captured.point)


def covered(plan: Plan) -> dict[str, Lost]:
    """Return the datasets that would hide files of the snapshot in which they are shown.

    They are not mounted, and their place was free in the live system when the plan was drawn.
    The snapshot of what lies above it may be older, or newer. It must be mounted.
    """
    lost: dict[str, Lost] = {}
    shown = {each.point: each for each in plan.captured if not each.unmounted}
    holds = {hold.dataset: hold.directory for hold in plan.holds}
    for each in plan.captured if len(shown) < len(plan.captured) else ():
        place = each.below or each.point
        above = shown.get(nearest(place, shown) or "") if each.unmounted else None
        if above is None or not any(_meet(place, path) for path in above.paths):
            continue
        if _has_entries(_place_of(place, above, holds)):
            reason = f"in the snapshot of {above.dataset} there are files in {place}"
            lost[each.dataset] = Lost(reason, gone=False)
    return lost


def _meet(place: str, path: str) -> bool:
    return lies_in(place, path) or lies_in(path, place)


def _has_entries(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def _within(path: str, point: str) -> str:
    """Return how a path is called in the file system that is mounted at ``point``."""
    return path[len(point.rstrip("/")) :].rstrip("/")


def absent(plan: Plan, links: Collection[str] = ()) -> dict[str, Lost]:
    """Return the directories and files that are not in the snapshots; these must be mounted.

    A symbolic link would lead the client out of the snapshot. Only in place of ``links``,
    which it keeps as they are, it may be.
    """
    lost: dict[str, Lost] = {}
    where = places(plan)
    for each in plan.captured:
        for path in each.directories:
            root = where[path].removesuffix(_within(path, each.point)) or "/"
            try:
                reason = _obstacle(root, where[path], path in links)
            except OSError:
                reason = ABSENT
            if reason is not None:
                lost[path] = Lost(reason, gone=False)
    return lost


def _obstacle(root: str, place: str, may_be_link: bool) -> str | None:
    """Say why what is at a place in a file system cannot be backed up; raises OSError."""
    mode = os.lstat(place).st_mode
    above = os.path.dirname(place)
    straight = os.path.realpath(root) + above[len(root.rstrip("/")) :]
    if os.path.realpath(above) != (straight.rstrip("/") or "/"):
        return LED_ELSEWHERE
    return None if may_be_link or not stat.S_ISLNK(mode) else LED_ELSEWHERE


def check_shown(plan: Plan) -> None:
    """Refuse a file that would have to be shown alone in a view; looks at the live system."""
    alone = plan.parts
    for each in plan.view:
        is_alone = each.kind == "frozen" and each.point in alone
        if is_alone and (not os.path.isdir(each.point) or os.path.islink(each.point)):
            above = os.path.dirname(each.point)
            raise Refusal(
                f"'{each.point}' is no directory, and cannot be backed up alone within a path "
                f"that is backed up without {each.dataset}; name {above}, or add -r",
                EX_NOINPUT,
            )
