"""The restore drill of a volume: what comes back is compared with blocks noted at its backup.

A volume has changed by now, so there is nothing else to compare with: see
system/fingerprint.py. It is read as a stream and never stored.
"""

from collections.abc import Mapping

from kopiatomic import state
from kopiatomic.clients.base import Task
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.records import Source, Tally
from kopiatomic.formatting import iso, size
from kopiatomic.state import Place
from kopiatomic.system import fingerprint
from kopiatomic.system.fingerprint import BLOCK, Fingerprint
from kopiatomic.system.machine import volume_at

_NOTHING_NOTED = "nothing is noted of this backup that it could be compared with"


def is_of_volume(source: Source) -> bool:
    """Say whether a source is a volume: its only path is that of a device below /dev/zvol."""
    return len(source.paths) == 1 and volume_at(source.paths[0]) is not None


def fingerprint_of(place: Place, source: Source) -> Fingerprint | None:
    """Return what a history notes of the volume in a backup; None where none notes anything.

    It is that backup by its id, or where the client did not tell that, by its moment. The last
    backup of a volume may be that of another job of the program.
    """
    others = (other for other in state.places(place.program) if other != place)
    for each in (place, *others):
        found = _noted_by(each, source)
        if found is not None:
            return found
    return None


def _noted_by(place: Place, source: Source) -> Fingerprint | None:
    """Return what the history of a job notes."""
    for entry in state.newest_first(place):
        rows = entry.get("client_runs")
        for row in rows if isinstance(rows, list) else ():
            is_of_it = isinstance(row, dict) and row.get("stream") == source.paths[0]
            if is_of_it and _made(row, source, entry.get("moment")):
                return fingerprint.from_list(row.get("size"), row.get("blocks"))
    return None


def _made(row: Mapping[str, object], source: Source, moment: object) -> bool:
    client = row.get("client")
    names = client.get("snapshots") if isinstance(client, dict) else None
    if isinstance(names, list) and names:
        return any(isinstance(name, str) and source.backup.startswith(name) for name in names)
    return moment == iso(source.moment)


def drill(task: Task, reader: Reader, place: Place, tally: Tally, size_limit: int) -> None:
    """Read a volume from its backup, up to ``size_limit`` bytes of it, and compare it.

    Raises ClientFailed, Interrupted.
    """
    title = tally.source.title
    file = task.client.stream_in(reader, tally.source)
    if file is None:
        tally.problems.append(f"{title}: there is no volume in the backup")
        return
    tally.chosen, tally.size = 1, file.size
    noted = fingerprint_of(place, tally.source)
    known = noted or Fingerprint(file.size, {})
    if known.size != file.size:
        tally.problems.append(
            f"{title}: {file.size} bytes in the backup, although it had {known.size}"
        )
        return
    tally.too_large = int(file.size > size_limit)
    # One byte more than there should be shows that there is more.
    limit = size_limit if tally.too_large else file.size + 1
    found = fingerprint.compare(reader.beginning(limit, *file.fetch), known)
    compared = found.same + len(found.different)
    tally.restored, tally.read = 1, found.read
    tally.blocks = None if noted is None else (found.same, compared)
    if found.read != min(size_limit, file.size):
        tally.problems.append(f"{title}: restored as {found.read} bytes, not {file.size}")
    elif found.different:
        tally.problems.append(
            f"{title}: differs from what was backed up in {len(found.different)} of {compared} "
            f"blocks, from byte {min(found.different) * BLOCK} on"
        )
    elif noted is not None:
        tally.identical = 1
    else:
        # That it can be read shows nothing of what it is.
        tally.problems.append(f"{title}: {_NOTHING_NOTED}")


def told(tally: Tally) -> list[str]:
    """Say in lines what came of the drill of a volume."""
    if not tally.restored:
        return []
    read = f"{size(tally.read)} of it read"
    if tally.too_large:
        read = f"{size(tally.read)} of its {size(tally.size)} read, as far as --size-limit allows"
    if tally.blocks is None:
        return [read, _NOTHING_NOTED]
    same, number = tally.blocks
    return [read, f"{same} of {number} blocks are as noted when it was backed up"]
