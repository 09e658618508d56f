"""Making the view and taking it down: mounts that are not what they say, and what stays."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
from support.nmount import Swap

from kopiatomic.backup import view
from kopiatomic.backup.plan import Names, Plan, ViewMount
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


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (FROZEN, PROGRAM),
        (ViewMount("live", "/", "/"), ["mount_nullfs", "/", VIEW]),
        (ViewMount("device", "devfs", "/dev"), ["mount", "-t", "devfs", "devfs", f"{VIEW}/dev"]),
    ],
)
def test_the_command_of_a_mount(mount, words):
    assert view.mount_command(mount, NAMES) == words


LOOK = "mount -v --libxo json"


class TestBuilding:
    """What cannot be shown is passed over only where the client does without it."""

    def build(self, monkeypatch, mount: ViewMount) -> list[str]:
        def refuse(door, each, names):
            raise CommandFailed(view.mount_command(each, names), "no memory")

        monkeypatch.setattr(view, "_make", refuse)
        said: list[str] = []
        view.build(Door(), Plan(NAMES, (), (), (mount,), (), ("/thawed",), None, ()), said.append)
        return said

    def test_a_live_mount_is_told(self, monkeypatch):
        said = self.build(monkeypatch, ViewMount("live", "/x", "/x"))
        assert said == ["/x is not in the view: no memory"]

    @pytest.mark.parametrize(
        "mount",
        [
            FROZEN, ViewMount("live", "/", "/"), ViewMount("live", "/x", "/x", needed=True),
            ViewMount("live", "/thawed", "/thawed"), ViewMount("device", "devfs", "/dev"),
            ViewMount("gap", "/gap/0", "/x"),
        ],
    )  # fmt: skip
    def test_any_other_is_a_failure(self, monkeypatch, mount):
        with pytest.raises(CommandFailed):
            self.build(monkeypatch, mount)


class TestPreparing:
    def test_what_stands_in_for_a_directory_looks_like_it(self, tmp_path):
        live = tmp_path / "live"
        (live / "in").mkdir(parents=True)
        (live / "in/file").write_text("x")
        os.chmod(live, 0o1777)
        os.utime(live / "in", ns=(5, 7))
        names = Names("run", "snapshot", f"{tmp_path}/job")
        gap = ViewMount("gap", f"{names.gaps}/0", str(live), directories=("in",))
        plan = Plan(names, (), (), (gap,), (), (), names.temporary, ())
        view.prepare(plan, lambda path: os.mkdir(path, 0o700))
        assert os.stat(gap.source).st_mode & 0o7777 == 0o1777
        assert os.stat(f"{gap.source}/in").st_mtime_ns == 7
        assert os.listdir(gap.source) == ["in"]
        assert os.listdir(f"{gap.source}/in") == []
        assert os.stat(names.view).st_mode & 0o777 == 0o700
        assert view.remove_directories(names) == []
        assert (live / "in/file").exists()


class TestTakingDown:
    """Mounts go in reverse, by name of the mount table alone, and by force in the end."""

    BELOW = (VIEW, f"{VIEW}/a", f"{VIEW}/dev")
    ALL = ("umount", f"{VIEW}/dev", f"{VIEW}/a", VIEW)

    @pytest.fixture(autouse=True)
    def no_patience(self, monkeypatch):
        monkeypatch.setattr(view.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(view, "GRACE", 0.0)

    def see(self, fp, *points: str) -> None:
        mounted = [{"special": "/", "node": point, "fstype": "nullfs"} for point in points]
        fp.register(LOOK, stdout=json.dumps({"mount": {"mounted": mounted}}))

    def test_the_latest_first(self, fp):
        self.see(fp, "/", "/nowhere2/view", *self.BELOW)
        fp.register(self.ALL)
        assert view.take_down(Door(), "/nowhere") == view.TakenDown()
        assert tuple(fp.calls[-1]) == self.ALL

    def test_nothing_is_mounted(self, fp):
        self.see(fp, "/", "/nowhere2")
        assert view.take_down(Door(), "/nowhere") == view.TakenDown()
        assert len(fp.calls) == 1

    def test_what_was_read_already_is_not_read_again(self, fp):
        fp.register(self.ALL)
        view.take_down(Door(), "/nowhere", self.BELOW)
        assert len(fp.calls) == 1

    def test_what_keeps_it_busy_is_ended_and_named(self, fp):
        fp.pass_command([sys.executable, fp.any()])
        code = "import time; print(flush=True); time.sleep(60)"
        user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        user.stdout.readline()
        fp.register(["umount", fp.any()], returncode=1, stderr="umount: Device busy")
        self.see(fp, VIEW)
        fp.register(
            ["fstat", "-f", VIEW],
            stdout="USER     CMD          PID   FD MOUNT      INUM MODE         SZ|DV R/W\n"
            f"root     my cat     {user.pid:>5}   wd /view  2 drwxr-xr-x       2  r\n"
            f"root     python     {os.getpid():>5} text /view  3 -rwxr-xr-x       2  r\n"
            f"root     init           1 root /view  2 drwxr-xr-x       2  r\n",
        )  # fmt: skip
        fp.register(["umount", fp.any()])
        done = view.take_down(Door(), "/nowhere", [VIEW])
        assert (done.stopped, done.left) == ([f"my cat ({user.pid})"], [])
        assert user.wait() == -signal.SIGTERM
        user.stdout.close()

    def test_what_stays_busy_goes_by_force(self, fp):
        for _ in range(3):
            fp.register(["umount", VIEW], returncode=1, stderr="umount: Device busy")
            self.see(fp, VIEW)
        fp.register(["fstat", fp.any()], occurrences=2)
        fp.register(["umount", "-f", VIEW])
        assert view.take_down(Door(), "/nowhere", [VIEW]).left == []
        assert list(fp.calls[-1]) == ["umount", "-f", VIEW]

    def test_what_not_even_force_removes_is_told_with_the_reason(self, fp):
        for _ in range(4):
            fp.register(["umount", fp.any()], returncode=1, stderr="umount: Device busy")
            self.see(fp, VIEW)
        fp.register(["fstat", fp.any()], occurrences=2)
        done = view.take_down(Door(), "/nowhere", [VIEW])
        assert done.left == [VIEW]
        assert "Device busy" in done.reason

    def test_where_the_mount_table_cannot_be_read_nothing_is_unmounted(self, fp):
        fp.register(LOOK, returncode=1, stderr="no memory", occurrences=len(view.PATIENCE))
        done = view.take_down(Door(), "/nowhere")
        assert "no memory" in done.unknown
        assert len(fp.calls) == len(view.PATIENCE)


class TestRemovingDirectories:
    """Nothing goes but what is empty, and plain files of our own TMPDIR."""

    @pytest.fixture
    def names(self, tmp_path) -> Names:
        made = Names("run", "snapshot", f"{tmp_path}/job")
        for path in (made.directory, made.view, made.temporary, made.gaps):
            os.mkdir(path)
        return made

    def test_empty_ones_go(self, names):
        os.makedirs(f"{names.gaps}/0/a/b")
        assert view.remove_directories(names) == []
        assert not os.path.lexists(names.directory)

    @pytest.mark.parametrize("where", ["view/file", "gap/0/a/file", "file"])
    def test_a_file_stays_and_where_it_is_is_told(self, names, where):
        path = os.path.join(names.directory, where)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("precious")
        assert view.remove_directories(names) == [names.directory]
        with open(path) as file:
            assert file.read() == "precious"

    def test_of_a_temporary_directory_plain_files_go_and_the_rest_stays(self, names, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("x")
        open(f"{names.temporary}/left", "w").close()
        os.makedirs(f"{names.temporary}/inside")
        open(f"{names.temporary}/inside/file", "w").close()
        os.symlink(tmp_path / "precious", f"{names.temporary}/link")
        assert view.remove_directories(names) == [names.directory]
        assert sorted(os.listdir(names.temporary)) == ["inside", "link"]
        assert os.listdir(f"{names.temporary}/inside") == ["file"]
        assert (tmp_path / "precious/file").exists()

    def test_there_are_none(self, tmp_path):
        assert view.remove_directories(Names("run", "snapshot", f"{tmp_path}/no")) == []
