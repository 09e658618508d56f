"""What the tests of drills share."""

from __future__ import annotations

import os


def node(path: str, size: int = 3, kind: str = "file") -> dict[str, object]:
    """Return a file as restic lists it."""
    return {
        "name": os.path.basename(path), "type": kind, "path": path, "size": size, "inode": 7,
        "mtime": "2026-01-02T03:04:05.000000006Z", "ctime": "2026-01-02T03:04:05.7+01:00",
    }  # fmt: skip
