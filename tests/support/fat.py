"""A small FAT12 file system, made and read by hand: what the disk of a machine may hold.

It is the same on every system, and nothing has to be mounted for it.
"""

from __future__ import annotations

import struct

SECTOR = 512
RESERVED, FATS, FAT_SECTORS, ROOT_ENTRIES = 1, 2, 12, 64
ROOT_AT = RESERVED + FATS * FAT_SECTORS
DATA_AT = ROOT_AT + ROOT_ENTRIES * 32 // SECTOR
LAST = 0xFFF


def make(files: dict[str, bytes], size: int = 1 << 20) -> bytes:
    """Return a file system of that size in bytes with these files, called NAME.EXT."""
    image = bytearray(size)
    image[:62] = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s", b"\xeb\x3c\x90", b"KOPIATOM", SECTOR, 1, RESERVED, FATS,
        ROOT_ENTRIES, size // SECTOR, 0xF8, FAT_SECTORS, 32, 2, 0, 0, 0x80, 0, 0x29, 1,
        b"DISK       ", b"FAT12   ",
    )  # fmt: skip
    image[510:512] = b"\x55\xaa"
    table = [0xFF8, LAST]
    for number, (name, content) in enumerate(sorted(files.items())):
        first = len(table)
        count = -(-len(content) // SECTOR)
        table += [*range(first + 1, first + count), LAST] if count else []
        at = (DATA_AT + first - 2) * SECTOR
        image[at : at + len(content)] = content
        stem, _, extension = name.partition(".")
        entry = struct.pack(
            "<8s3sB14xHI", stem.ljust(8).encode(), extension.ljust(3).encode(), 0x20,
            first if count else 0, len(content),
        )  # fmt: skip
        at = ROOT_AT * SECTOR + number * 32
        image[at : at + 32] = entry
    packed = bytearray(FAT_SECTORS * SECTOR)
    for number, value in enumerate(table):
        at, high = number * 3 // 2, number % 2
        packed[at] |= (value << 4 if high else value) & 0xFF
        packed[at + 1] |= (value >> 4 if high else value >> 8) & 0xFF
    for copy in range(FATS):
        at = (RESERVED + copy * FAT_SECTORS) * SECTOR
        image[at : at + len(packed)] = packed
    return bytes(image)


def read(image: bytes) -> dict[str, bytes]:
    """Return the files of a file system; both copies of its table have to agree."""
    assert image[510:512] == b"\x55\xaa"
    tables = [
        image[(RESERVED + copy * FAT_SECTORS) * SECTOR :][: FAT_SECTORS * SECTOR]
        for copy in range(FATS)
    ]
    assert tables[0] == tables[1]
    found = {}
    for number in range(ROOT_ENTRIES):
        stem, extension, kind, cluster, length = struct.unpack_from(
            "<8s3sB14xHI", image, ROOT_AT * SECTOR + number * 32
        )
        if stem[0] and kind == 0x20:
            content = b""
            while cluster and cluster < 0xFF8:
                content += image[(DATA_AT + cluster - 2) * SECTOR :][:SECTOR]
                at = cluster * 3 // 2
                pair = tables[0][at] | tables[0][at + 1] << 8
                cluster = pair >> 4 if cluster % 2 else pair & 0xFFF
            name = f"{stem.decode().strip()}.{extension.decode().strip()}".rstrip(".")
            found[name] = content[:length]
    return found
