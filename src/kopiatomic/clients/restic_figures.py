"""The figures with which restic closes a backup, of its text and of its JSON."""

import re
from collections.abc import Mapping

from kopiatomic.clients.parsing import count, json_objects
from kopiatomic.clients.records import Figures

# A count, and an amount, as restic writes them; what else it could be is no number.
_N = "([0-9]{1,18})"
_DECIMAL = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"

_UNITS = {
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTP", 1)},
}


def read(text: str) -> Figures:
    """Return what restic said of its backup: of the last, where it made several, with all names."""
    summaries = [each for each in json_objects(text) if each.get("message_type") == "summary"]
    if not summaries:
        return _in_text(text)
    # A wrapper may call restic more than once, for several repositories.
    every = [_in_json(each) for each in summaries]
    made = tuple(name for each in every for name in each.snapshots)
    return every[-1]._replace(snapshots=made)


def _in_json(summary: Mapping[str, object]) -> Figures:
    def number(name: str) -> int:
        return count(summary.get(name))

    made, tried = summary.get("snapshot_id"), summary.get("dry_run")
    return Figures(
        files=number("total_files_processed"),
        new_or_changed=number("files_new") + number("files_changed"),
        directories_changed=number("dirs_new") + number("dirs_changed"),
        size=number("total_bytes_processed"),
        added=number("data_added"),
        # A dry run names a snapshot as well, which will never be.
        snapshots=() if tried or not made else (str(made),),
        unchanged=not tried and not made,
    )


def _in_text(text: str) -> Figures:
    """Read the lines with which restic closes a backup."""
    files = re.search(rf"^Files:\s+{_N} new,\s+{_N} changed,\s+{_N} unmodified", text, re.M)
    dirs = re.search(rf"^Dirs:\s+{_N} new,\s+{_N} changed", text, re.M)
    added = re.search(rf"^Added to the repo\w*: {_DECIMAL} (\w+)", text, re.M)
    total = re.search(rf"^processed \d+ files?, {_DECIMAL} (\w+) in", text, re.M)
    saved = re.findall(r"^snapshot ([0-9a-f]{8,64}) saved", text, re.M)
    counts = [int(each) for each in files.groups()] if files else []
    return Figures(
        files=sum(counts) if counts else None,
        new_or_changed=counts[0] + counts[1] if counts else None,
        directories_changed=int(dirs[1]) + int(dirs[2]) if dirs else None,
        size=_bytes(total[1], total[2]) if total else None,
        added=_bytes(added[1], added[2]) if added else None,
        snapshots=tuple(saved),
        unchanged=bool(re.search(r"^skipped creating snapshot", text, re.M)),
    )


def _bytes(number: str, unit: str) -> int | None:
    return round(float(number) * _UNITS[unit]) if unit in _UNITS else None
