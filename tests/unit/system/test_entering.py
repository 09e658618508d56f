"""Directories that are entered one by one, and no link on the way."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.libc import mounted

from kopiatomic.system.entering import mount_on, standing_in, walk

# What open(2) answers: of links it depends on the system.
REFUSED = "|".join(map(os.strerror, (errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.ENOENT)))


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A directory with another and a file in it, and links to both; no link leads to it."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_text("text")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a/to-b").symlink_to("b")
    (tmp_path / "a/to-file").symlink_to("file")
    return os.path.realpath(tmp_path)


class TestWalking:
    @pytest.mark.parametrize("path", ["", "/a", "/a/b", "/a/file"])
    def test_to_what_is_there(self, place: str, path: str):
        with ExitStack() as opened:
            found = os.fstat(walk(place + path, opened))
        there = os.stat(place + path)
        assert (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)

    def test_to_the_root(self):
        with ExitStack() as opened:
            assert os.fstat(walk("/", opened)).st_ino == os.stat("/").st_ino

    @pytest.mark.parametrize(
        "path", ["/link", "/link/b", "/a/to-b", "/a/to-file", "/a/file/x", "/no"]
    )
    def test_over_no_link_and_nothing_else(self, place: str, path: str):
        with ExitStack() as opened, pytest.raises(OSError, match=REFUSED):
            walk(place + path, opened)

    def test_all_is_closed_afterwards(self, place: str):
        with ExitStack() as opened:
            descriptor = walk(f"{place}/a/b", opened)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)


class TestStanding:
    @pytest.mark.parametrize(
        ("path", "name", "inside"), [("/a/b", ".", "/a/b"), ("/a/file", "file", "/a")]
    )
    def test_where_a_mount_is_made(self, place: str, path: str, name: str, inside: str):
        before = os.getcwd()
        with standing_in(place + path) as (called, enter):
            assert (called, os.getcwd()) == (name, place + inside)
            descriptor = enter()
            assert os.fstat(descriptor).st_ino == os.stat(place + path).st_ino
            os.close(descriptor)
        assert os.getcwd() == before

    def test_what_is_there_may_change_meanwhile(self, place: str):
        with standing_in(f"{place}/a/b") as (_, enter):
            os.rename(f"{place}/a/b", f"{place}/a/old")
            assert os.getcwd() == f"{place}/a/old"
            with pytest.raises(FileNotFoundError):
                enter()

    @pytest.mark.parametrize("path", ["/link/b", "/a/to-b", "/no/b", "/a/no"])
    def test_over_no_link(self, place: str, path: str):
        before = os.getcwd()
        with pytest.raises(OSError, match=REFUSED), standing_in(place + path):
            pass
        assert os.getcwd() == before


def test_the_mount_that_a_directory_is_on(library, place: str):
    entry = mounted(b"tank/a", os.fsencode(place), b"zfs", (7, 41))
    library.put(place, entry)
    assert mount_on(library.kernel(), place).special == "tank/a"
    with pytest.raises(OSError, match=REFUSED):
        mount_on(library.kernel(), f"{place}/link")
