"""Trees of files of every kind, and what a tree looks like as data to compare."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

# What kopia does not keep of a tree, of a live one neither: fifos, hard links, the times of
# symbolic links, and the times of directories, which it takes from the newest file within.
KEPT_BY_KOPIA = {
    "fifos": False, "hard_links": False, "symlink_times": False, "directory_times": False,
}  # fmt: skip

NIGHT = 1_600_000_000_123_456_789


def fill(top: Path) -> None:
    """Put files of every kind into a directory."""
    docs = top / "docs"
    docs.mkdir()
    (docs / "letter.txt").write_text("Dear Ada,\n")
    (docs / "with space and ümläut").write_text("x")
    (docs / "new\nline").write_text("a name with a newline")
    (docs / "empty").touch()
    os.link(docs / "letter.txt", docs / "the same letter")
    (docs / "link").symlink_to("letter.txt")
    (docs / "dangling").symlink_to("/nonexistent")
    (top / "hollow").mkdir()
    os.mkfifo(top / "fifo", 0o620)
    with open(top / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"island")
    (top / "big").write_bytes(bytes(range(256)) * 4096)
    (top / "secret").write_text("for ben only")
    os.chmod(top / "secret", 0o400)
    os.chmod(docs / "empty", 0o4755)
    os.chown(top / "secret", 1001, 1002)
    os.chown(docs / "dangling", 1001, 1001, follow_symlinks=False)
    os.chmod(top / "hollow", 0o1777)
    for directory, directories, files in os.walk(top, topdown=False):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            os.utime(path, ns=(NIGHT, NIGHT), follow_symlinks=False)


def picture(top: Path, *, symlink_times: bool = True, fifos: bool = True,
            hard_links: bool = True, directory_times: bool = True,
            ) -> dict[str, tuple[object, ...]]:  # fmt: skip
    """Return everything in a tree, by relative name, in a form that can be compared."""
    first_of: dict[tuple[int, int], str] = {}
    result: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(top):
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            found = os.lstat(path)
            relative = os.path.relpath(path, top)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFIFO and not fifos:
                continue
            timeless = (kind == stat.S_IFLNK and not symlink_times) or (
                kind == stat.S_IFDIR and not directory_times
            )
            when = None if timeless else found.st_mtime_ns
            same = first_of.setdefault((found.st_dev, found.st_ino), relative)
            result[relative] = (
                stat.filemode(found.st_mode), found.st_uid, found.st_gid, when,
                same if hard_links and kind == stat.S_IFREG else None, _content(path, kind),
            )  # fmt: skip
        directories.sort()
    return result


def _content(path: str, kind: int) -> str:
    if kind == stat.S_IFLNK:
        return os.readlink(path)
    if kind == stat.S_IFREG:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return ""
