"""Making the view and taking it down: mounts that are not what they say, and what stays."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
from support.nmount import Swap

from kopiatomic.backup import view
from kopiatomic.backup.plan import Names, ViewMount
from kopiatomic.system import nullfs
from kopiatomic.system.command import CommandFailed, Door

NAMES = Names("run", "snapshot", "/nowhere")
VIEW = NAMES.view

FROZEN = ViewMount("frozen", "/a/.zfs/snapshot/x", "/a", read_only=True)
PROGRAM = ["mount_nullfs", "-o", "ro", "/a/.zfs/snapshot/x", f"{VIEW}/a"]


@pytest.fixture
def mounted(monkeypatch) -> None:
    """Every mount point is there, and every look at it finds something else than before."""
    looks = itertools.count()
    here = nullcontext((".", lambda: next(looks)))
    monkeypatch.setattr(view, "standing_in", lambda path: here)
    monkeypatch.setattr(view, "way_to", lambda path: [])


NET = ViewMount("live", "/net", "/net", remote=True)


def table(point: str) -> str:
    """Return a mount table with one nullfs mount."""
    entry = {"special": "/net", "node": point, "fstype": "nullfs"}
    return json.dumps({"mount": {"mounted": [entry]}})


def make(mount: ViewMount) -> list[str]:
    """Make one mount and return the command lines that were traced."""
    traced: list[str] = []
    view._make(Door(traced.append, nullfs.find_nmount()), mount, NAMES)
    return traced


def test_no_program_is_started_for_a_mount(call, mounted, fp):
    assert make(FROZEN) == [f"+ {' '.join(PROGRAM)}"]
    assert len(call.given) == 1
    assert not fp.calls


def test_where_it_refuses_no_program_is_asked_to_follow_a_path(call, mounted, fp):
    call.answer = -1
    ctypes.set_errno(errno.EPERM)
    with pytest.raises(CommandFailed, match=r"^mount_nullfs .*: Operation not permitted"):
        make(FROZEN)
    assert len(call.given) == 1
    assert not fp.calls


def test_what_lies_on_another_machine_is_left_to_a_program(call, fp, monkeypatch):
    """A server that does not answer must not keep this process waiting, nor a look at it."""
    monkeypatch.setattr(view, "standing_in", lambda path: pytest.fail("looked"))
    fp.register(["realpath", f"{VIEW}/net"], stdout=f"{VIEW}/net\n")
    fp.register(["mount_nullfs", "/net", f"{VIEW}/net"])
    fp.register("mount -v --libxo json", stdout=table(f"{VIEW}/net"))
    make(NET)
    assert not call.given
    assert len(fp.calls) == 3


def test_and_the_mount_table_is_asked_whether_it_is_there(call, fp):
    fp.register(["realpath", f"{VIEW}/net"], stdout=f"{VIEW}/net\n")
    fp.register(["mount_nullfs", "/net", f"{VIEW}/net"])
    fp.register("mount -v --libxo json", stdout=table("/etc"))
    with pytest.raises(CommandFailed, match="perhaps elsewhere"):
        make(NET)


def test_nor_does_it_follow_a_link_there(call, fp):
    fp.register(["realpath", f"{VIEW}/net"], stdout="/root/.ssh\n")
    with pytest.raises(CommandFailed, match="symbolic link"):
        make(NET)
    assert not call.given


def test_devfs_has_options_of_its_own(call, mounted, fp):
    fp.register(["mount", "-t", "devfs", "-o", "ruleset=4", "devfs", f"{VIEW}/dev"])
    make(ViewMount("device", "devfs", "/dev", ruleset="4"))
    assert not call.given


def test_a_mount_that_is_reported_and_not_there(fp, tmp_path):
    names = Names("run", "snapshot", str(tmp_path))
    (tmp_path / "view/a").mkdir(parents=True)
    fp.register(["mount_nullfs", fp.any()])
    with pytest.raises(CommandFailed, match="nothing is mounted"):
        view._make(Door(), FROZEN, names)


def test_a_symbolic_link_is_not_followed_out_of_the_view(fp, tmp_path, monkeypatch):
    monkeypatch.setattr(view, "way_to", lambda path: [])
    names = Names("run", "snapshot", str(tmp_path))
    (tmp_path / "view").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "view/a").symlink_to(tmp_path / "elsewhere")
    for point in ("/a", "/a/b"):
        with pytest.raises(CommandFailed, match="symbolic link"):
            view._make(Door(), replace(FROZEN, point=point), names)
    assert not fp.calls


def test_a_file_can_be_a_mount_point_too(call, monkeypatch, tmp_path):
    names = Names("run", "snapshot", str(tmp_path))
    (tmp_path / "view").mkdir()
    (tmp_path / "view/conf").write_text("")
    mounted = []

    def over(vector, count, flags):
        mounted.append((os.getcwd(), call(vector, count, flags)))
        (tmp_path / "view/conf").rename(tmp_path / "view/covered")
        (tmp_path / "view/conf").write_text("mounted")
        return 0

    monkeypatch.setattr(ctypes.CDLL, "nmount", Swap(over))
    view._make(Door(nmount=nullfs.find_nmount()), ViewMount("live", "/conf", "/conf"), names)
    assert mounted == [(str(tmp_path / "view"), 0)]
    assert call.given[0][0][3] == b"conf\0"


def test_what_leads_to_the_mount_point_may_change_meanwhile(call, fp, tmp_path, monkeypatch):
    """The directory that was looked at is the one that is mounted on."""
    (tmp_path / "view/a/b").mkdir(parents=True)
    (tmp_path / "elsewhere/b").mkdir(parents=True)
    mounted = []

    def swap(vector, count, flags):
        (tmp_path / "view/a").rename(tmp_path / "view/old")
        (tmp_path / "view/a").symlink_to(tmp_path / "elsewhere")
        call(vector, count, flags)
        mounted.append(os.getcwd())
        return 0

    before = os.getcwd()
    monkeypatch.setattr(ctypes.CDLL, "nmount", Swap(swap))
    door = Door(nmount=nullfs.find_nmount())
    monkeypatch.setattr(view, "way_to", lambda path: [])
    with suppress(CommandFailed):
        view._make(door, replace(FROZEN, point="/a/b"), Names("run", "x", str(tmp_path)))
    assert mounted == [str(tmp_path / "view/old/b")]
    assert b".\0" in call.given[0][0]
    assert os.getcwd() == before


class TestTheWayToTheSource:
    """Of what lies live, snapshots too, the kernel follows the name."""

    @pytest.fixture
    def place(self, tmp_path, monkeypatch, call, mounted):
        monkeypatch.undo()  # the real way_to() is what is tested
        monkeypatch.setattr(ctypes.CDLL, "nmount", call, raising=False)
        looks = itertools.count()
        here = nullcontext((".", lambda: next(looks)))
        monkeypatch.setattr(view, "standing_in", lambda path: here)
        (tmp_path / "work/inner").mkdir(parents=True)
        os.chown(tmp_path, 12345, -1)
        return tmp_path

    def mount(self, place) -> None:
        point = f"{os.path.realpath(place)}/work/inner"
        view._make(
            Door(nmount=nullfs.find_nmount()), ViewMount("live", point, point), NAMES
        )

    def test_a_link_in_it(self, place, call):
        (place / "work").rename(place / "away")
        (place / "work").symlink_to("/root")
        with pytest.raises(CommandFailed, match="symbolic link"):
            self.mount(place)
        assert not call.given

    def test_it_was_led_elsewhere_for_a_moment(self, place, call, monkeypatch, fp):
        """The mount that was made then is undone, and made anew."""
        fp.register(["umount", fp.any()])

        def swap(*words):
            if not call.given:
                (place / "work").rename(place / "away")
                (place / "work").symlink_to("/root")
                (place / "work").unlink()
                (place / "away").rename(place / "work")
            return call(*words)

        monkeypatch.setattr(ctypes.CDLL, "nmount", Swap(swap))
        self.mount(place)
        assert len(call.given) == 2
        assert [argv[0] for argv in fp.calls] == ["umount"]

    def test_it_changes_all_the_time(self, place, call, monkeypatch, fp):
        fp.register(["umount", fp.any()], occurrences=9)

        def touch(*words):
            (place / f"new{len(call.given)}").touch()
            return call(*words)

        monkeypatch.setattr(ctypes.CDLL, "nmount", Swap(touch))
        with pytest.raises(CommandFailed, match="changes all the time"):
            self.mount(place)
        assert len(call.given) == view.TRIES

    def test_what_root_alone_can_change_is_not_looked_at(self, place, call, monkeypatch):
        os.chown(place, 0, -1)

        def touch(*words):
            (place / f"new{len(call.given)}").touch()
            return call(*words)

        monkeypatch.setattr(ctypes.CDLL, "nmount", Swap(touch))
        self.mount(place)
        assert len(call.given) == 1
