"""How a file that came back is compared with what is there."""

from __future__ import annotations

import json
import os
import time

import pytest

from kopiatomic.clients.records import File
from kopiatomic.repository.comparison import CHANGED, IDENTICAL, Comparer, against
from kopiatomic.system.command import Door


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "live"
    path.write_bytes(b"x" * 300_000 + b"end")
    return path


def recorded(path, **changes):
    found = os.stat(path)
    fields = {
        "path": str(path), "size": found.st_size, "mtime": found.st_mtime_ns, "fetch": (),
        "ctime": found.st_ctime_ns, "inode": found.st_ino,
    }  # fmt: skip
    return File(**{**fields, **changes})


def compare(tmp_path, file, content, moment=None):
    (tmp_path / "restored").write_bytes(content)
    descriptor = os.open(tmp_path / "restored", os.O_RDONLY)
    try:
        moment = time.time() + 60 if moment is None else moment
        return Comparer(Door()).compare(descriptor, file, moment)
    finally:
        os.close(descriptor)


@pytest.fixture
def no_zfs(fp):
    table = '{"mount": {"mounted": []}}'
    fp.register(["mount", "-v", "--libxo", "json"], stdout=table, occurrences=9)


@pytest.mark.usefixtures("no_zfs")
class TestComparison:
    def test_identical(self, tmp_path, live):
        assert compare(tmp_path, recorded(live), live.read_bytes()) == IDENTICAL

    def test_identical_whatever_its_inode_and_change(self, tmp_path, live):
        file = recorded(live, ctime=1, inode=1)
        assert compare(tmp_path, file, live.read_bytes()) == IDENTICAL

    def test_different_although_unchanged(self, tmp_path, live):
        verdict = compare(tmp_path, recorded(live), b"x" * 300_000 + b"eNd")
        assert verdict.startswith("differs from byte 300001 on, although ")

    def test_a_backup_without_change_times_goes_by_its_moment(self, tmp_path, live):
        file = recorded(live, ctime=None, inode=None)
        other = b"x" * 300_000 + b"eNd"
        assert "differs" in compare(tmp_path, file, other)
        assert compare(tmp_path, file, other, moment=1.0) == CHANGED

    @pytest.mark.parametrize("field", ["mtime", "ctime", "inode"])
    def test_a_changed_live_file_is_no_difference(self, tmp_path, live, field):
        file = recorded(live, **{field: 5})
        assert compare(tmp_path, file, b"y" * 300_003) == CHANGED

    def test_a_live_file_that_is_gone_or_else(self, tmp_path, live):
        file = recorded(live)
        content = live.read_bytes()
        live.unlink()
        assert compare(tmp_path, file, content) == CHANGED
        os.mkfifo(live)
        assert compare(tmp_path, file, content) == CHANGED
        live.unlink()
        live.symlink_to("/dev/zero")
        assert compare(tmp_path, file, content) == CHANGED

    def test_another_size_than_recorded(self, tmp_path, live):
        verdict = compare(tmp_path, recorded(live), b"short")
        assert verdict == "restored as 5 bytes, but backed up as 300003"


def test_a_changed_file_is_looked_for_in_the_nearest_zfs_snapshots(fp, tmp_path):
    point = tmp_path / "data"
    entry = {"special": "tank/a", "node": str(point), "fstype": "zfs"}
    fp.register(
        ["mount", "-v", "--libxo", "json"], stdout=json.dumps({"mount": {"mounted": [entry]}})
    )
    fp.register(
        ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation", "tank/a"],
        stdout="tank/a@old\t10\ntank/a@before\t90\ntank/a@after\t110\ntank/a@late\t200\n",
    )
    (point / "d").mkdir(parents=True)
    (point / "d/f").write_text("new")
    for name in ("old", "before", "after", "late"):
        (point / ".zfs/snapshot" / name / "d").mkdir(parents=True)
    kept = point / ".zfs/snapshot/after/d/f"
    kept.write_text("as it was")
    file = recorded(kept)._replace(path=str(point / "d/f"))
    assert compare(tmp_path, file, b"as it was", moment=100.5) == IDENTICAL


class TestAttributes:
    @pytest.fixture
    def file(self, tmp_path):
        """A file as restic has noted it."""
        path = tmp_path / "file"
        path.write_text("content")
        path.chmod(0o640)
        found = path.stat()
        return File(
            str(path), 7, found.st_mtime_ns, (), found.st_ctime_ns, found.st_ino,
            found.st_uid, found.st_gid, 0o640,
        )  # fmt: skip

    def verdict(self, file: File, moment: float = 0.0, content: bytes = b"content") -> str:
        with open(file.path + ".restored", "w+b") as restored:
            restored.write(b"preface" + content)
            restored.flush()
            return against(restored.fileno(), file, file.path, moment, 7)

    def test_the_same(self, file: File):
        assert self.verdict(file) == IDENTICAL
        assert self.verdict(file._replace(owner=None, group=None, mode=None)) == IDENTICAL

    @pytest.mark.parametrize(("name", "other", "told"), [
        ("owner", 4711, "has the owner 4711 in the backup and "),
        ("group", 4711, "has the group 4711 in the backup and "),
        ("mode", 0o4755, "has the mode 4755 in the backup and 0640 here, although "),
    ])  # fmt: skip
    def test_others_of_a_file_that_is_unchanged(self, file, name, other, told):
        wrong = file._replace(**{name: other})
        assert self.verdict(wrong).startswith(told)
        # kopia does not note the time of the last change.
        assert self.verdict(wrong._replace(ctime=None), moment=4e9).startswith(told)
        assert self.verdict(wrong._replace(ctime=None)) == IDENTICAL
        # Somebody has changed it since.
        assert self.verdict(wrong._replace(ctime=1)) == IDENTICAL

    def test_the_content_comes_first(self, file):
        verdict = self.verdict(file._replace(mode=0o600), content=b"cOntent")
        assert verdict.startswith("differs from byte 1 on, although ")
