"""Taking a view down: what is unmounted and who is ended, and what stays."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from support import libc
from support.libc import mounted

from kopiatomic.backup import takedown
from kopiatomic.backup.names import Names
from kopiatomic.system.command import Door
from kopiatomic.system.machine import Mount

NAMES = Names("run", "snapshot", "/nowhere")
VIEW = NAMES.view

LOOK = "mount -v --libxo json"


def table(*points: str) -> str:
    """Return a mount table, of mount(8), with nullfs mounts on these points."""
    found = [{"special": "/net", "node": point, "fstype": "nullfs"} for point in points]
    return json.dumps({"mount": {"mounted": found}})


class TestAMountPointThatHasGone:
    @pytest.fixture
    def mount(self, library, tmp_path) -> Mount:
        """A nullfs of a held snapshot, at a directory that is there."""
        (tmp_path / "a").mkdir()
        entry = mounted(b"/x/hold/0", os.fsencode(tmp_path / "a"), b"nullfs", (7, 41))
        library.put(tmp_path / "a", entry)
        library.table.append(entry)
        return library.kernel().mounts()[-1]

    def look(self, library) -> list[str]:
        door = Door(kernel=library.kernel())
        return [m.special for m in library.kernel().mounts() if takedown._is_astray(door, m)]

    def test_one_that_leads_there(self, library, mount):
        assert self.look(library) == []

    def test_another_directory_in_its_place(self, library, mount, tmp_path):
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        assert self.look(library) == ["/x/hold/0"]

    def test_nothing_in_its_place(self, library, mount, tmp_path):
        (tmp_path / "a").rmdir()
        assert self.look(library) == ["/x/hold/0"]

    def test_a_file_or_link_in_its_place(self, library, mount, tmp_path):
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").symlink_to("b")
        assert self.look(library) == ["/x/hold/0"]

    def test_on_the_way_to_it_lies_another_machine_that_may_not_answer(self):
        nfs = Mount("/net", "/view/net", "nullfs", local=False)
        assert not takedown._is_near(Mount("/x/hold/0", "/view/net/d", "nullfs"), [nfs])
        assert takedown._is_near(Mount("/x/hold/0", "/view/network", "nullfs"), [nfs])

    def test_without_the_calls_it_is_not_known(self, mount):
        assert not takedown._is_astray(Door(), mount._replace(point="/nonesuch"))


def below(*points: str) -> list[Mount]:
    """Return what the mount table has there."""
    return [Mount("/", point, "nullfs", fsid=(n, 41)) for n, point in enumerate(points, 100)]


class TestTakingDown:
    """Mounts go in reverse, by the numbers of the mount table alone, and by force in the end."""

    BELOW = (VIEW, f"{VIEW}/a", f"{VIEW}/dev")

    @pytest.fixture(autouse=True)
    def _no_patience(self, monkeypatch):
        monkeypatch.setattr(takedown.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(takedown, "GRACE", 0.0)

    @pytest.fixture
    def here(self, library) -> list[Mount]:
        """The view as it is mounted, among other mounts."""
        made = below(*self.BELOW)
        library.table = [
            mounted(b"/dev/vtbd0", b"/", b"ufs", (1, 1)),
            mounted(b"x", b"/nowhere2/view", b"nullfs", (2, 2)),
            *(mounted(b"/", os.fsencode(m.point), b"nullfs", m.fsid) for m in made),
        ]
        return made

    @pytest.fixture
    def door(self, library) -> Door:
        return Door(kernel=library.kernel())

    def test_the_latest_first_and_nothing_else(self, door, library, here, fp):
        done = takedown.take_down(door, "/nowhere")
        assert library.unmounted == [((102, 41), 0), ((101, 41), 0), ((100, 41), 0)]
        assert (done.left, done.stopped, done.reason, done.unknown) == ([], [], "", "")
        assert len(library.table) == 2
        assert not fp.calls

    def test_in_a_jail_by_paths_that_lead_there(self, library, tmp_path, fp):
        """A jail knows no numbers; what is found elsewhere by now stays, and is told."""
        place = os.path.realpath(tmp_path)
        names = ("view", "view/a", "view/b")
        for name in names:
            os.mkdir(f"{place}/{name}")
            entry = mounted(b"/", os.fsencode(f"{place}/{name}"), b"nullfs", (0, 0))
            library.table.append(entry)
            library.put(f"{place}/{name}", entry)
        os.rename(f"{place}/view/b", f"{place}/b")
        os.symlink(f"{place}/b", f"{place}/view/b")
        fp.register(["umount", fp.any()], occurrences=9)
        fp.register(["umount", "-f", fp.any()], occurrences=9)
        fp.register(["fstat", "-n"], occurrences=9)
        door = Door(kernel=library.kernel(), jailed=True)
        done = takedown.take_down(door, place)
        first, second = fp.calls[0], fp.calls[1]
        assert list(first) == ["umount", f"{place}/view/a"]
        assert list(second) == ["umount", f"{place}/view"]
        assert ["umount", f"{place}/view/b"] not in [list(call) for call in fp.calls]
        assert f"{place}/view/b" in [mount.point for mount in done.left]

    def test_nothing_is_mounted(self, door, library):
        library.table = [mounted(b"x", b"/nowhere2/view", b"nullfs", (2, 2))]
        assert takedown.take_down(door, "/nowhere").left == []
        assert library.unmounted == []

    def test_what_was_read_already_is_not_read_again(self, door, library, here, monkeypatch):
        monkeypatch.setattr(library, "getfsstat", lambda *_: pytest.fail("read again"))
        assert takedown.take_down(door, "/nowhere", here).left == []

    def test_by_programs_where_there_are_no_calls(self, fp):
        fp.register(LOOK, stdout=table("/", "/nowhere2/view", *self.BELOW))
        for point in reversed(self.BELOW):
            fp.register(["umount", point])
        assert takedown.take_down(Door(), "/nowhere").left == []
        assert [call[-1] for call in fp.calls][1:] == [*reversed(self.BELOW)]

    def test_what_has_gone_meanwhile_is_no_reason_for_force(self, door, library, here, fp):
        """Somebody has unmounted it by hand: then its path leads to what is below it."""
        library.table.pop()
        done = takedown.take_down(door, "/nowhere", here)
        assert (done.left, done.stopped) == ([], [])
        assert not [flags for _, flags in library.unmounted if flags]
        assert not fp.calls

    def test_what_keeps_it_busy_is_ended_and_named(self, door, library, here, fp):
        fp.pass_command([sys.executable, fp.any()])
        code = "import time; print(flush=True); time.sleep(60)"
        user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        user.stdout.readline()
        library.busy = {(101, 41)}
        fp.register(
            ["fstat", "-n"],
            stdout="USER     CMD          PID   FD DEV        INUM       MODE SZ|DV R/W\n"
            f"root     my cat     {user.pid:>5} root 0x64  2 40755       2  r\n"
            f"root     python     {os.getpid():>5} root 0x65  3 40755       2  r\n"
            f"root     init           1 root 0x65  2 40755       2  r\n"
            f"root     kernel         0 root 0x65  2 40755       2  r\n",
            # It lets go.
            callback=lambda _: library.busy.clear(),
        )
        done = takedown.take_down(door, "/nowhere", here)
        assert (done.stopped, done.left) == ([f"my cat ({user.pid})"], [])
        assert user.wait() == -signal.SIGTERM
        user.stdout.close()

    def test_what_stays_busy_goes_by_force(self, door, library, here, fp):
        library.busy = {(100, 41)}
        fp.register(["fstat", "-n"], occurrences=2)
        assert takedown.take_down(door, "/nowhere", here).left == []
        assert library.unmounted[-1] == ((100, 41), libc.FORCE)

    def test_what_not_even_force_removes_is_told_with_the_reason(self, fp):
        fp.register(["fstat", "-n"], occurrences=2)
        for _ in range(4):
            fp.register(["umount", fp.any()], returncode=1, stderr="umount: Device busy")
            fp.register(LOOK, stdout=table(VIEW))
        done = takedown.take_down(Door(), "/nowhere", below(VIEW))
        assert [each.point for each in done.left] == [VIEW]
        assert "Device busy" in done.reason
        assert takedown.unmount_by_hand(done.left[0]) == f"umount -f {VIEW}"

    def test_where_the_mount_table_cannot_be_read_nothing_is_unmounted(self, door, library, here):
        library.refusals["getfsstat"] = [errno.EFAULT] * len(takedown.PATIENCE)
        done = takedown.take_down(door, "/nowhere")
        assert "getfsstat: Bad address" in done.unknown
        assert library.unmounted == []
        assert library.refusals["getfsstat"] == []


class TestTheUsersOfMounts:
    """Root kills them: so it matters whose files they have open, and not what they are called."""

    OURS = Mount("/a", "/v/a", "nullfs", fsid=(0x2904FFE7, 0x29))
    HEAD = "USER     CMD          PID   FD DEV        INUM       MODE SZ|DV R/W"

    def users(self, fp, *lines: str, mounts=(OURS,)) -> dict[int, str]:
        fp.register(["fstat", "-n"], stdout="\n".join((self.HEAD, *lines)) + "\n")
        return takedown._users(Door(), mounts)

    def test_by_the_device_as_it_was_seen_on_freebsd(self, fp):
        assert self.users(
            fp,
            "root     tail        1676   wd 0x2904ffe3     34      40755     29  r",
            "root     tail        1676 root 0x2904ffe7     34      40755     29  r",
            "root     tail        1676    3 0x2904ffe7      2     100644      2  r",
            "root     sleep       1666    0 0x2904ffe3    135     100644      0  r",
            "root     sh          1700 root 0x2904ffe7     34      40755     29  r",
        ) == {1676: "tail", 1700: "sh"}

    def test_somebody_else_who_looks_into_the_view_is_none_of_them(self, fp):
        """Their root directory is that of the machine."""
        looks = ("wd", "text", "0", "3", "jail", "mmap")
        lines = [f"root sh 1700 {use:>4} 0x2904ffe7 34 40755 29  r" for use in looks]
        assert self.users(fp, "root sh 1700 root 0x2904ffe3 34 40755 29  r", *lines) == {}

    @pytest.mark.parametrize(
        "line",
        [
            # As much as can be belongs to the name: what comes last is fstat's own.
            "ben x 1666 root 0x2904ffe7 2 40755 2 r   1999   root 0x29000000  34  40755  29  r",
            "ben x 1 root 0x2904ffe7 2 4 2 r   1999    3* internet stream tcp fffff80003a2b000",
            "ben x 1666 root 0x2904ffe7 2 4 2 r   1999    4* pipe fffff800 <-> fffff801   0 rw",
            "ben x 1666 root 0x2904ffe7 2 4   1999    0* pseudo-terminal master   pts/0 rw",
            "ben      cat         1999    3 -         -          bad    -",
            "ben      cat         1999    root 0x2904ffe70    2     100644      2  r",
            "1666",
            "",
        ],
    )
    def test_no_name_makes_another_process_one_of_them(self, fp, line):
        assert self.users(fp, line) == {}

    def test_and_none_hides_its_own(self, fp):
        name = "x 1666 root 0x2904fff0"
        line = f"ben      {name}  1999    root 0x2904ffe7      2     100644      2  r"
        assert self.users(fp, line) == {1999: name}

    def test_a_name_with_newlines(self, fp):
        lines = ("ben      x", "u c 1666  1999   root 0x2904ffe7      2      40755      2  r")
        assert set(self.users(fp, *lines)) == {1999}

    def test_of_a_snapshot_the_device_is_all_of_its_number(self, fp):
        held = Mount("t/a@s", "/hold/0", "zfs", fsid=(-0x21, -0x2))
        assert takedown.device_of(held) == 0xFFFFFFFEFFFFFFDF
        assert self.users(
            fp,
            "root     find        1999   root 0xfffffffeffffffdf     34      40755     29  r",
            "root     find        2000   root 0xffffffdf     34      40755     29  r",
            mounts=(held,),
        ) == {1999: "find"}

    def test_of_a_nullfs_it_is_the_first_half(self):
        assert takedown.device_of(self.OURS) == 0x2904FFE7
        assert takedown.device_of(Mount("", "", "nullfs", fsid=(-1, 5))) == 0xFFFFFFFF

    def test_of_mounts_without_numbers_nobody_is_known(self, fp):
        """fstat(1) would tell them by path only, and that leads to whatever is there now."""
        assert takedown._users(Door(), [Mount("/a", "/v/a", "nullfs")]) == {}
        assert not fp.calls

    def test_in_a_jail_it_is_that_of_what_is_mounted_there(self, fp, library, tmp_path):
        """What has been unmounted already has none: there, all of the jail would be of us."""
        place = os.path.realpath(tmp_path)
        for name in ("on", "off"):
            os.mkdir(f"{place}/{name}")
        entry = mounted(b"/a", os.fsencode(f"{place}/on"), b"nullfs", (0, 0))
        library.put(f"{place}/on", entry)
        device = os.stat(f"{place}/on").st_dev
        line = f"root sh 1700 root {device:#x} 34 40755 29  r"
        fp.register(["fstat", "-n"], stdout=f"{self.HEAD}\n{line}\n")
        door = Door(kernel=library.kernel(), jailed=True)
        there, gone = (Mount("/a", f"{place}/{name}", "nullfs") for name in ("on", "off"))
        assert takedown._users(door, [gone]) == {}
        assert not fp.calls
        assert takedown._users(door, [gone, there]) == {1700: "sh"}

    def test_fstat_fails(self, fp):
        fp.register(["fstat", "-n"], returncode=1, stderr="fstat: no memory")
        assert takedown._users(Door(), [self.OURS]) == {}


class TestRemovingDirectories:
    """Nothing goes but what is empty, and plain files of our own TMPDIR."""

    @pytest.fixture
    def names(self, tmp_path) -> Names:
        made = Names("run", "snapshot", f"{tmp_path}/job")
        for path in (made.directory, made.view, made.temporary, made.gaps, made.holds):
            os.mkdir(path)
        return made

    def test_empty_ones_go(self, names):
        os.makedirs(f"{names.gaps}/0/a/b")
        os.mkdir(f"{names.holds}/0")
        assert takedown.remove_directories(names) == []
        assert not os.path.lexists(names.directory)

    @pytest.mark.parametrize(
        "where", ["view/file", "gap/0/a/file", "file", "hold/0/file", "hold/file"]
    )
    def test_a_file_stays_and_where_it_is_is_told(self, names, where):
        path = os.path.join(names.directory, where)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("precious")
        assert takedown.remove_directories(names) == [names.directory]
        with open(path) as file:
            assert file.read() == "precious"

    def test_of_a_temporary_directory_plain_files_go_and_the_rest_stays(self, names, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("x")
        open(f"{names.temporary}/left", "w").close()
        os.makedirs(f"{names.temporary}/inside")
        open(f"{names.temporary}/inside/file", "w").close()
        os.symlink(tmp_path / "precious", f"{names.temporary}/link")
        assert takedown.remove_directories(names) == [names.directory]
        assert sorted(os.listdir(names.temporary)) == ["inside", "link"]
        assert os.listdir(f"{names.temporary}/inside") == ["file"]
        assert (tmp_path / "precious/file").exists()

    @pytest.mark.parametrize("where", ["gap/0", "gap", "tmp", "hold", "hold/0", "gap/1/in"])
    def test_a_symbolic_link_leads_nowhere(self, names, tmp_path, where):
        """What is empty elsewhere stays, and so do plain files there."""
        for path in ("precious/0", "precious/in/deep"):
            (tmp_path / path).mkdir(parents=True)
        (tmp_path / "precious/file").write_text("x")
        link = os.path.join(names.directory, where)
        if os.path.isdir(link):
            os.rmdir(link)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(tmp_path / "precious", link)
        assert takedown.remove_directories(names) == [names.directory]
        assert os.path.islink(link)
        assert sorted(os.listdir(tmp_path / "precious")) == ["0", "file", "in"]
        assert os.listdir(tmp_path / "precious/in") == ["deep"]

    def test_there_are_none(self, tmp_path):
        assert takedown.remove_directories(Names("run", "snapshot", f"{tmp_path}/no")) == []
