"""Which earlier snapshot restic is told to continue, where it finds none by itself."""

from collections.abc import Mapping, Sequence

from kopiatomic.system.machine import ancestors, nearest


def choose(
    snapshots: Sequence[Mapping[str, object]], paths: Sequence[str], host: str
) -> str | None:
    """Return the id of the newest of this host's snapshots that share most paths.

    None if no snapshot shares any, or if one holds them all: that one restic
    finds by itself.
    """
    best: tuple[int, str, str] | None = None
    for snapshot in snapshots:
        listed = snapshot["paths"]
        if snapshot.get("hostname") != host or not isinstance(listed, list):
            continue
        theirs = {path for path in listed if isinstance(path, str)}
        if theirs.issuperset(paths):
            return None
        above = {up for path in theirs for up in ancestors(path)}
        shared = sum(path in above or nearest(path, theirs) is not None for path in paths)
        candidate = (shared, str(snapshot["time"]), str(snapshot["id"]))
        if shared and (best is None or candidate > best):
            best = candidate
    return best[2] if best else None
