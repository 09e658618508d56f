"""Sources in a kopia repository that no job backs up any more."""

from collections.abc import Mapping, Sequence

from kopiatomic.clients.parsing import UNKNOWN_BYTE, as_stored, member, nanoseconds
from kopiatomic.clients.records import ByHand, Made, Past
from kopiatomic.formatting import clock
from kopiatomic.system.command import quote

# How many sources are told one by one.
NAMED = 20


def given_up(listed: Sequence[Mapping[str, object]], past: Past, by_hand: ByHand) -> list[str]:
    """Return a sentence for each source that was a job's and is no longer, with what removes it.

    ``listed`` are the backups of this user and machine. kopia applies the retention of a source
    when it makes the next backup of that source, so those of a source that is given up stay for
    ever. One that the user goes on backing up by hand is theirs. Raises what comes of a listing
    that has another form.
    """
    ended = _given_up((*past.own, *past.others))
    backups: dict[str, list[float]] = {}
    sources: dict[str, str] = {}
    for each in listed:
        path = member(each, "source", "path")
        if isinstance(path, str) and path in ended and UNKNOWN_BYTE not in path:
            backups.setdefault(path, []).append((nanoseconds(each["startTime"]) or 0) / 1e9)
            source = f"{member(each, 'source', 'userName')}@{member(each, 'source', 'host')}"
            sources[path] = f"{source}:{path}"
    gone = [path for path in sorted(backups) if max(backups[path]) <= ended[path]]
    told = [_told(sources[path], backups[path], by_hand) for path in gone[:NAMED]]
    more = len(gone) - NAMED
    return [*told, f"and {more} more sources that no job backs up any more"] if more > 0 else told


def _given_up(runs: Sequence[Made]) -> dict[str, float]:
    """Return the paths that no job backs up any more, and when the last run that did was over."""
    last: dict[str, Made] = {}
    ended: dict[str, float] = {}
    for run in runs:
        if run.paths or run.streams:
            last[run.job] = run
        for path in map(as_stored, (*run.paths, *run.streams)):
            ended[path] = max(ended.get(path, run.ended), run.ended)
    kept = {as_stored(path) for run in last.values() for path in _kept(run)}
    return {path: moment for path, moment in ended.items() if path not in kept}


def _kept(run: Made) -> tuple[str, ...]:
    return (*run.paths, *run.streams, *run.meant)


def _told(source: str, backups: Sequence[float], by_hand: ByHand) -> str:
    number = "1 backup" if len(backups) == 1 else f"{len(backups)} backups"
    words = quote(["snapshot", "delete", "--all-snapshots-for-source", source, "--delete"])
    return (
        f"no job backs up {source} any more, and kopia keeps {number} of it for ever, the last of "
        f"{clock(max(backups))}; if they are not wanted, and it is not only away for a while: "
        f"{by_hand(words)}"
    )
