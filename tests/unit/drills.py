"""What the tests of drills share."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kopiatomic.clients.kopia_objects import PLACEHOLDER
from kopiatomic.clients.reader import ClientFailed


class NoRoom:
    """A room into which nothing fits, so that everything is asked for alone."""

    path = "/nonexistent"

    def free(self) -> int:
        return 0


class Kopia:
    """Stands in for a Reader: answers ``kopia show`` and ``kopia restore`` of placeholders.

    It does not have the objects in ``broken``, and restores none at all where it ``refuses``.
    """

    preface = b""

    def __init__(
        self, objects: dict[str, bytes], broken: tuple[str, ...] = (), refuses: bool = False
    ) -> None:
        self.objects, self.broken, self.refuses = objects, broken, refuses
        self.asked: list[tuple[str, ...]] = []

    def whole(self, *words: str) -> bytes:
        self.asked.append(words)
        if words[0] == "show":
            return self.objects[words[1]]
        if self.refuses:
            raise ClientFailed(1, "kopia restore: no")
        for word in words[1:]:
            if not word.endswith(PLACEHOLDER):
                continue
            placeholder = Path(word)
            key = json.loads(placeholder.read_text())["obj"]
            # What it begins to write, and cannot finish, is left.
            target = Path(word.removesuffix(PLACEHOLDER))
            target.write_bytes(b"" if key in self.broken else self.objects[key])
            if key not in self.broken:
                placeholder.unlink()
        return b""


def node(path: str, size: int = 3, kind: str = "file") -> dict[str, object]:
    """Return a file as restic lists it."""
    return {
        "name": os.path.basename(path), "type": kind, "path": path, "size": size, "inode": 7,
        "mtime": "2026-01-02T03:04:05.000000006Z", "ctime": "2026-01-02T03:04:05.7+01:00",
    }  # fmt: skip
