"""What a volume was like: some of its blocks, chosen at random, as hashes.

The live volume changes right after the snapshot. So that a restore drill has something to
compare the one in the backup with, a run notes some blocks of what the client has read: few
enough for the history, and so many that of a volume of which a tenth is wrong 29 drills in 30
notice it.
"""

import os
from collections.abc import Iterable, Mapping

from kopiatomic.digest import digest
from kopiatomic.record import TYPE_CHECKING, Record

if TYPE_CHECKING:
    import random

# A block, in bytes: any device can be read in such blocks, from a multiple of them.
BLOCK = 1 << 16

# So many are chosen of all, and so many more of the first part of a volume that is larger than
# that, in bytes: a drill reads no further, unless it is told to.
CHOSEN, MORE, FIRST = 32, 8, 1 << 30


class Fingerprint(Record):
    """The size of a volume in bytes, and the hashes of some of its blocks by their numbers."""

    size: int
    blocks: Mapping[int, str]


class Compared(Record):
    """What came of a comparison: how many bytes were read.

    Of the blocks in them ``same`` are as they were, and those in ``different``, by their
    numbers, are not.
    """

    read: int
    same: int
    different: tuple[int, ...]


def take(device: str, size: int) -> Fingerprint:
    """Return the fingerprint of a device, or a file, of that size; raises OSError."""
    # Not for every run: only for one with volumes.
    import random

    rng = random.SystemRandom()
    numbers = _some(rng, -(-size // BLOCK), CHOSEN)
    if size > FIRST:
        numbers |= _some(rng, FIRST // BLOCK, MORE)
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        blocks = {number: digest(_read(descriptor, number)) for number in sorted(numbers)}
    finally:
        os.close(descriptor)
    return Fingerprint(size, blocks)


def _some(rng: "random.Random", total: int, wanted: int) -> set[int]:
    return set(rng.sample(range(total), min(total, wanted)))


def _read(descriptor: int, number: int) -> bytes:
    """Read a block, of which a device may give less at a time than it is asked for."""
    data = b""
    while len(data) < BLOCK:
        piece = os.pread(descriptor, BLOCK - len(data), number * BLOCK + len(data))
        if not piece:
            break
        data += piece
    return data


def compare(pieces: Iterable[bytes], fingerprint: Fingerprint) -> Compared:
    """Compare a volume, or the beginning of one, that comes in pieces.

    It holds a piece and a block at a time.
    """
    read, number, rest = 0, 0, b""
    verdicts: dict[int, bool] = {}
    for piece in pieces:
        read += len(piece)
        data = rest + piece
        end = number + len(data) // BLOCK
        for each in range(number, end):
            if each in fingerprint.blocks:
                start = (each - number) * BLOCK
                verdicts[each] = digest(data[start : start + BLOCK]) == fingerprint.blocks[each]
        rest, number = data[(end - number) * BLOCK :], end
    if rest and read == fingerprint.size and number in fingerprint.blocks:
        verdicts[number] = digest(rest) == fingerprint.blocks[number]
    different = tuple(each for each, same in verdicts.items() if not same)
    return Compared(read, len(verdicts) - len(different), different)


# In the history


def as_list(fingerprint: Fingerprint) -> list[str]:
    """Return the blocks as plain data: NUMBER:HASH."""
    return [f"{number}:{known}" for number, known in fingerprint.blocks.items()]


def from_list(size: object, blocks: object) -> Fingerprint | None:
    """Return what as_list() was made of; None where it is not that."""
    if not isinstance(size, int) or not isinstance(blocks, list):
        return None
    pairs = [str(each).partition(":") for each in blocks]
    known = {int(number): noted for number, _, noted in pairs if number.isdecimal() and noted}
    return Fingerprint(size, known)
