"""Reading several objects of a kopia repository by one process of kopia.

A process of kopia takes a good part of a second to open the repository, whatever it reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress

from kopiatomic.clients.kopia_proof import Directories, entries_in
from kopiatomic.clients.parsing import member
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.room import Room, batches
from kopiatomic.record import TYPE_CHECKING

# What kopia calls the files that stand for what it was told not to restore yet.
PLACEHOLDER = ".kopia-entry"

# Nothing of what the backup says of a file, beside its content, is restored. What cannot be
# read does not keep the others away.
_RESTORE = (
    "restore", "--skip-owners", "--skip-permissions", "--skip-times", "--ignore-errors",
)  # fmt: skip

# What an entry of a directory takes in kopia's listing, in bytes, with a long name.
_ENTRY = 1024

# So many directories are kept in memory.
_HELD = 32

if TYPE_CHECKING:
    from typing import TypeVar

    Entry = Mapping[str, object]
    Listing = list[dict[str, object]]
    Result = TypeVar("Result")
    # A walk down a tree: it yields the entry of a directory whenever it needs what is in there,
    # and is sent that.
    Walk = Generator[Entry, Listing, Result]


def write(reader: Reader, room: Room, objects: Mapping[str, str]) -> set[str]:
    """Have objects written to files of these names in the room; return the names of those that are.

    kopia-restore takes placeholders, as it leaves them itself where it is not to restore
    all of a tree: JSON that names an object, in a file beside which the object's content
    comes to stand. Once it is there the placeholder goes. So no name out of the backup
    reaches the file system. Raises Interrupted.
    """
    placeholders = {name: name + PLACEHOLDER for name in objects}
    try:
        # It may be an old kopia, or one that runs elsewhere, and the room may be full: why
        # something is not there hears who asks for it alone.
        with suppress(ClientFailed, OSError):
            for name, key in objects.items():
                # With a size, kopia would fill up what is shorter than it should be.
                room.put(placeholders[name], json.dumps({"type": "f", "obj": key}).encode())
            paths = [os.path.join(room.path, each) for each in placeholders.values()]
            reader.whole(*_RESTORE, *paths)
        return {
            name
            for name, placeholder in placeholders.items()
            if room.has(name) and not room.has(placeholder)
        }
    finally:
        for name, placeholder in placeholders.items():
            if room.has(placeholder):
                room.drop(placeholder)
                room.drop(name)


class Listings:
    """Reads directories of a repository, many by one process; raises ClientFailed, OSError."""

    def __init__(self, reader: Reader, room: Room) -> None:
        self.reader, self.room = reader, room
        self.alone = Directories(reader)
        self.held: dict[str, Listing] = {}
        self.together = True

    def several(self, entries: Sequence[Entry]) -> Iterator[tuple[str, Listing]]:
        """Yield what is in the directories of these entries, by the names of their objects."""
        sizes: dict[str, int] = {}
        limit = self.room.free()
        for entry in entries:
            key = str(entry["obj"])
            if key in self.held:
                yield key, self.held[key]
            else:
                sizes[key] = _length(entry, limit)
        for batch in batches(sizes, limit):
            yield from self._read(batch)

    def _read(self, batch: Sequence[str]) -> Iterator[tuple[str, Listing]]:
        named = {str(number): key for number, key in enumerate(batch)}
        written: set[str] = set()
        if self.together and len(batch) > 1:
            written = write(self.reader, self.room, named)
            # A kopia that writes none at all will not do so the next time.
            self.together = bool(written)
        for name, key in named.items():
            listing = self._taken(name) if name in written else self.alone(key)
            self.held[key] = listing
            if len(self.held) > _HELD:
                del self.held[next(iter(self.held))]
            yield key, listing

    def _taken(self, name: str) -> Listing:
        with self.room.taken(name) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return entries_in(file.read())


def _length(entry: Entry, unknown: int) -> int:
    """Return what a directory's listing may take at most, in bytes, by what lies below it."""
    counts = [member(entry, "summ", name) for name in ("files", "symlinks", "dirs")]
    known = [each for each in counts if isinstance(each, int) and each >= 0]
    return _ENTRY * sum(known) if known else unknown + 1


def walked(listings: Listings, walks: Sequence[Walk[Result]]) -> list[Result]:
    """Return what walks down a tree return, in their order; raises what they and listings raise.

    They go side by side, so that what all of them need at a time is read at once.
    """
    done: dict[int, Result] = {}
    ahead: dict[int, Entry] = {}

    def go(number: int, listing: Listing | None) -> None:
        try:
            ahead[number] = (
                next(walks[number]) if listing is None else walks[number].send(listing)
            )
        except StopIteration as end:
            done[number] = end.value

    for number in range(len(walks)):
        go(number, None)
    while ahead:
        waiting: dict[str, list[int]] = {}
        for number, entry in ahead.items():
            waiting.setdefault(str(entry["obj"]), []).append(number)
        needed = [*ahead.values()]
        ahead.clear()
        for key, listing in listings.several(needed):
            for number in waiting.pop(key, ()):
                go(number, listing)
    return [done[number] for number in range(len(walks))]
