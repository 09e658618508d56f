"""Making the view and taking it down: mounts that are not what they say, and what stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
from support import libc
from support.libc import Library, mounted

from kopiatomic import state
from kopiatomic.backup import takedown, view
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Hold, Plan, ViewMount
from kopiatomic.backup.selection import Existing
from kopiatomic.system.command import CommandFailed, Door

NAMES = Names("run", "snapshot", "/nowhere")
VIEW = NAMES.view

FROZEN = ViewMount("frozen", "/hold/0", "/a", "tank/a", read_only=True)
NET = ViewMount("live", "/net", "/net", remote=True)


def plan_of(*mounts: ViewMount, names: Names = NAMES, **changes: object) -> Plan:
    """Return a plan that consists of these mounts."""
    return Plan(names, (), (), (), mounts, ())._replace(**changes)


class World:
    """Mounts that are made by system call, in memory: what they show is what their source names.

    As the kernel does, they follow the name that the source has at the moment.
    """

    def __init__(self, library: Library, empty: Path) -> None:
        self.library = library
        self.empty = str(empty)
        self.shown: dict[str, str] = {}
        self.last = ""
        self.unmade = False  # whether a mount is reported and not made
        library.does = self.mount

    def mount(self, options: dict[str, str]) -> None:
        if not self.unmade:
            source = options.get("target") or self.empty
            self.shown[self.last] = os.path.realpath(source)
            number = len(self.library.given)
            where = os.fsencode(self.last)
            entry = mounted(os.fsencode(source), where, b"nullfs", (900 + number, 41))
            self.library.table.append(entry)

    @contextmanager
    def standing_in(self, target: str) -> Iterator[tuple[str, Callable[[], int]]]:
        self.last = target

        def enter() -> int:
            shown = self.shown.get(target)
            # Some sources are made up: then it is the numbers alone that matter.
            there = shown if shown and os.path.exists(shown) else self.empty
            descriptor = os.open(there, os.O_RDONLY)
            if shown:
                self.library.shown[descriptor] = self.library.table[-1]
            return descriptor

        with chdir("."):
            yield ".", enter

    def make(self, mount: ViewMount) -> list[str]:
        """Make one mount and return the command lines that were traced."""
        traced: list[str] = []
        view._make(Door(traced.append, self.library.kernel()), mount, NAMES)
        return traced


@pytest.fixture
def world(library, tmp_path, monkeypatch) -> World:
    """Every mount point is there."""
    (tmp_path / "empty").mkdir()
    made = World(library, tmp_path / "empty")
    monkeypatch.setattr(view, "_is_held", lambda door, directory: True)
    monkeypatch.setattr(view, "standing_in", made.standing_in)
    return made


class TestMakingAMount:
    def test_no_program_is_started(self, world, library, fp):
        assert world.make(FROZEN) == [f"+ mount_nullfs -o ro /hold/0 {VIEW}/a"]
        assert library.given == [
            ({"fstype": "nullfs", "fspath": ".", "target": "/hold/0", "ro": ""}, libc.IGNORE)
        ]
        assert not fp.calls

    def test_it_keeps_the_flags_of_what_is_live(self, world, library):
        live = ViewMount("live", "/x", "/x", options=("nosuid", "nosymfollow"))
        told = f"+ mount_nullfs -o nosuid,nosymfollow /x {VIEW}/x"
        assert world.make(live) == [told]
        assert library.given[0][0] == {
            "fstype": "nullfs", "fspath": ".", "target": "/x", "nosuid": "", "nosymfollow": ""
        }  # fmt: skip

    def test_devfs_too_so_that_mountd_hears_of_nothing(self, world, library, fp):
        world.make(ViewMount("device", "devfs", "/dev", ruleset="4"))
        world.make(ViewMount("device", "devfs", "/dev"))
        devfs = {"fstype": "devfs", "fspath": ".", "from": "devfs"}
        assert library.given == [({**devfs, "ruleset": "4"}, libc.IGNORE), (devfs, libc.IGNORE)]
        assert not fp.calls

    def test_where_it_is_refused_no_program_is_asked_to_follow_a_path(self, world, library, fp):
        library.refusals["nmount"] = [errno.EPERM]
        with pytest.raises(CommandFailed, match=r"^mount_nullfs .*: Operation not permitted"):
            world.make(FROZEN)
        assert not fp.calls

    def test_one_that_is_reported_and_not_there(self, world):
        world.unmade = True
        with pytest.raises(CommandFailed, match="nothing is mounted"):
            world.make(FROZEN)

    def test_without_the_call(self, world, fp):
        fp.register(["mount_nullfs", "-o", "ro", "/hold/0", f"{VIEW}/a"])
        with pytest.raises(CommandFailed, match="nothing is mounted"):
            view._make(Door(), FROZEN, NAMES)
        assert len(fp.calls) == 1


class TestAnotherMachine:
    """A server that does not answer must not keep this process waiting, nor a look at it."""

    @pytest.fixture(autouse=True)
    def _no_look(self, monkeypatch):
        monkeypatch.setattr(view, "standing_in", lambda path: pytest.fail("looked"))

    def make(self, library, *points: bytes) -> None:
        library.table = [mounted(b"/net", point, b"nullfs") for point in points]
        view._make(Door(kernel=library.kernel()), NET, NAMES)

    def test_is_left_to_a_program(self, library, fp):
        fp.register(["realpath", f"{VIEW}/net"], stdout=f"{VIEW}/net\n")
        fp.register(["mount_nullfs", "/net", f"{VIEW}/net"])
        self.make(library, b"/", f"{VIEW}/net".encode())
        assert not library.given
        assert len(fp.calls) == 2

    def test_and_the_mount_table_is_asked_whether_it_is_there(self, library, fp):
        fp.register(["realpath", f"{VIEW}/net"], stdout=f"{VIEW}/net\n")
        fp.register(["mount_nullfs", "/net", f"{VIEW}/net"])
        with pytest.raises(CommandFailed, match="perhaps elsewhere"):
            self.make(library, b"/", b"/etc")

    def test_nor_does_it_follow_a_link_there(self, library, fp):
        fp.register(["realpath", f"{VIEW}/net"], stdout="/root/.ssh\n")
        with pytest.raises(CommandFailed, match="symbolic link"):
            self.make(library)
        assert len(fp.calls) == 1


class TestTheWayIntoTheView:
    """Whoever owns a directory above a mount point can put something else in its place."""

    @pytest.fixture
    def names(self, tmp_path) -> Names:
        (tmp_path / "view/a/b").mkdir(parents=True)
        (tmp_path / "elsewhere/b").mkdir(parents=True)
        return Names("run", "snapshot", os.path.realpath(tmp_path))

    def test_a_symbolic_link_is_not_followed(self, library, names, tmp_path):
        (tmp_path / "view/a").rename(tmp_path / "view/old")
        (tmp_path / "view/a").symlink_to(tmp_path / "elsewhere")
        for point in ("/a", "/a/b"):
            with pytest.raises(CommandFailed, match="symbolic link"):
                view._make(Door(kernel=library.kernel()), FROZEN._replace(point=point), names)
        assert not library.given

    def test_what_leads_there_may_change_meanwhile(self, library, names, tmp_path):
        """The directory that was looked at is the one that is mounted on."""
        on = []

        def swap(options):
            (tmp_path / "view/a").rename(tmp_path / "view/old")
            (tmp_path / "view/a").symlink_to(tmp_path / "elsewhere")
            on.append((os.getcwd(), options["fspath"]))

        library.does = swap
        before = os.getcwd()
        with pytest.raises(CommandFailed, match="nothing is mounted"):
            view._make(Door(kernel=library.kernel()), FROZEN._replace(point="/a/b"), names)
        assert on == [(f"{names.view}/old/b", ".")]
        assert os.getcwd() == before

    def test_a_file_can_be_a_mount_point_too(self, library, names, tmp_path):
        (tmp_path / "view/conf").write_text("")
        on = []

        def over(options):
            on.append((os.getcwd(), options["fspath"]))
            (tmp_path / "view/conf").rename(tmp_path / "view/covered")
            (tmp_path / "view/conf").write_text("mounted")

        library.does = over
        view._make(Door(kernel=library.kernel()), ViewMount("live", "/conf", "/conf"), names)
        assert on == [(names.view, "conf")]


class TestTheWayToTheSource:
    """Of what lies live, a name leads where its owner wants it to: what was mounted is looked at.

    Both stories were tried on FreeBSD: a directory above that is swapped, and one that a
    program makes and removes files in all the time.
    """

    LIVE = (21, 41)

    @pytest.fixture
    def place(self, world, library, tmp_path) -> Path:
        """A file system of somebody's, mounted on home/data."""
        top = Path(os.path.realpath(tmp_path))
        (top / "home/data").mkdir(parents=True)
        (top / "away/data").mkdir(parents=True)
        library.put(top / "home/data", mounted(b"p/d", b"/x", b"zfs", self.LIVE))
        return top

    def mount_of(self, place: Path, kind: str = "live") -> ViewMount:
        point = f"{place}/home/data"
        return ViewMount(kind, point, point, "p/d", fsid=self.LIVE)

    def swap(self, place: Path) -> None:
        (place / "home").rename(place / "home2")
        (place / "home").symlink_to("away")

    def test_as_it_should_be(self, world, place, library):
        world.make(self.mount_of(place))
        assert library.unmounted == []

    @pytest.mark.parametrize("kind", ["live", "frozen"])
    def test_led_elsewhere(self, world, place, library, kind):
        """What was mounted then is taken away at once, by its number."""
        self.swap(place)
        with pytest.raises(CommandFailed, match="somebody led its path elsewhere meanwhile"):
            world.make(self.mount_of(place, kind))
        assert library.unmounted == [((901, 41), 0)]

    def test_for_a_moment_only(self, world, place, library):
        """When it is looked at, all is as it was before."""

        def swap(options):
            self.swap(place)
            world.mount(options)
            (place / "home").unlink()
            (place / "home2").rename(place / "home")

        library.does = swap
        with pytest.raises(CommandFailed, match="led its path elsewhere"):
            world.make(self.mount_of(place))
        assert library.unmounted == [((901, 41), 0)]

    def test_to_where_another_file_system_is(self, world, place, library):
        """It has the same inode number, as each root of a ZFS has."""
        library.put(place / "home/data", mounted(b"p/o", b"/x", b"zfs", (22, 41)))
        with pytest.raises(CommandFailed, match="led its path elsewhere"):
            world.make(self.mount_of(place))
        assert library.unmounted == [((901, 41), 0)]

    def test_a_busy_directory_above_is_no_attack(self, world, place, library):
        def busy(options):
            (place / "home/a").touch()
            (place / "home/a").unlink()
            world.mount(options)
            (place / "home/b").touch()

        library.does = busy
        world.make(self.mount_of(place))
        assert len(library.given) == 1
        assert library.unmounted == []


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (FROZEN, ["mount_nullfs", "-o", "ro", "/hold/0", f"{VIEW}/a"]),
        (ViewMount("live", "/", "/"), ["mount_nullfs", "/", VIEW]),
        (ViewMount("live", "/x", "/x", read_only=True, options=("nosuid", "noexec")),
         ["mount_nullfs", "-o", "ro,nosuid,noexec", "/x", f"{VIEW}/x"]),
        (ViewMount("device", "devfs", "/dev"), ["mount", "-t", "devfs", "devfs", f"{VIEW}/dev"]),
        (ViewMount("device", "devfs", "/dev", ruleset="4"),
         ["mount", "-t", "devfs", "-o", "ruleset=4", "devfs", f"{VIEW}/dev"]),
    ],
)  # fmt: skip
def test_the_command_of_a_mount(mount, words):
    assert view.mount_command(mount, NAMES) == words


class TestHolding:
    """Snapshots are mounted at places of ours, where nothing of the live datasets is."""

    @pytest.fixture
    def plan(self, tmp_path) -> Plan:
        names = Names("run", "s", str(tmp_path))
        holds = tuple(
            Hold(f"t/{name}", f"t/{name}@s", f"{names.holds}/{number}")
            for number, name in enumerate("abc")
        )
        return Plan(names, (), (), holds, (), ())

    def test_each_by_the_call_read_only_and_not_to_be_seen(self, plan, library, fp):
        traced = []
        assert view.hold_all(Door(traced.append, library.kernel()), plan) == {}
        assert library.given == [
            ({"fstype": "zfs", "fspath": hold.directory, "from": hold.snapshot, "ro": "",
              "nosuid": ""}, libc.IGNORE)
            for hold in plan.holds
        ]  # fmt: skip
        first = plan.holds[0]
        assert traced[0] == f"+ mount -t zfs -o ro,nosuid t/a@s {first.directory}"
        assert os.stat(plan.names.holds).st_mode & 0o777 == 0o700
        assert os.stat(first.directory).st_mode & 0o777 == 0o700
        assert not fp.calls

    def test_by_a_program_where_there_is_no_call(self, plan, fp):
        for hold in plan.holds[:2]:
            command = ["mount", "-t", "zfs", "-o", "ro,nosuid", hold.snapshot, hold.directory]
            fp.register(command, callback=lambda _, hold=hold: self.cover(hold))
        # Which may say that it did what it did not.
        fp.register(["mount", fp.any()])
        lost = view.hold_all(Door(), plan)
        assert lost == {"t/c": view.Lost(view.NOTHING, gone=False)}

    def cover(self, hold: Hold) -> None:
        """Let another directory be there, as after a mount."""
        os.rename(hold.directory, f"{hold.directory}.covered")
        os.mkdir(hold.directory)

    @pytest.mark.parametrize(
        ("number", "gone"), [(errno.ENOENT, True), (errno.EACCES, False), (errno.EIO, False)]
    )
    def test_one_that_cannot_be_costs_itself(self, plan, library, number, gone):
        library.refusals["nmount"] = [number]
        lost = view.hold_all(Door(kernel=library.kernel()), plan)
        assert lost == {"t/a": view.Lost(os.strerror(number), gone)}
        assert len(library.given) == 3

    def test_one_that_somebody_has_looked_into(self, plan, library):
        """ZFS has mounted it by itself, in .zfs/snapshot, and no snapshot is mounted twice."""
        library.table = [
            mounted(b"t/a", b"/t/a", b"zfs", (1, 1)),
            mounted(b"t/a@s", b"/t/a/.zfs/snapshot/s", b"zfs", (1, 2)),
            mounted(b"t/a@other", b"/t/a/.zfs/snapshot/other", b"zfs", (1, 3)),
        ]
        library.refusals["nmount"] = [errno.EBUSY]
        assert view.hold_all(Door(kernel=library.kernel()), plan) == {}
        assert library.unmounted == [((1, 2), 0)]
        assert [given["from"] for given, _ in library.given] == ["t/a@s", "t/a@s", "t/b@s", "t/c@s"]

    def test_one_that_stays_busy(self, plan, library):
        library.table = [mounted(b"t/a@s", b"/t/a/.zfs/snapshot/s", b"zfs", (1, 2))]
        library.busy = {(1, 2)}
        library.refusals["nmount"] = [errno.EBUSY]
        lost = view.hold_all(Door(kernel=library.kernel()), plan)
        assert lost == {"t/a": view.Lost(os.strerror(errno.EBUSY), gone=False)}

    @pytest.mark.parametrize(
        ("point", "busy", "mounts"),
        [
            (b"/mnt/look", False, "nullfs"),  # the user has mounted it himself
            (b"/t/a/.zfs/snapshot/s", True, "nullfs"),  # and here somebody still reads
            (b"/t/a/.zfs/snapshot/s", False, "zfs"),
        ],
    )
    def test_a_mount_that_others_need_of_their_own_snapshot_stays(
        self, plan, library, point, busy, mounts
    ):
        taken = Existing("t/a@s", "g", 5, 0.0)
        plan = plan._replace(holds=(plan.holds[0]._replace(existing=taken),))
        library.table = [mounted(b"t/a@s", point, b"zfs", (1, 2))]
        library.busy = {(1, 2)} if busy else set()
        library.refusals["nmount"] = [errno.EBUSY]
        assert view.hold_all(Door(kernel=library.kernel()), plan) == {}
        made = library.given[-1][0]
        assert made["fstype"] == mounts
        assert made.get("target", "t/a@s") in ("t/a@s", point.decode())
        assert bool(library.unmounted) == (mounts == "zfs")

    def test_what_another_job_reads_is_not_shown_twice(self, plan, library, monkeypatch):
        taken = Existing("t/a@s", "g", 5, 0.0)
        plan = plan._replace(holds=(plan.holds[0]._replace(existing=taken),))
        monkeypatch.setattr(state, "RUN_ROOT", "/nowhere")
        library.table = [mounted(b"t/a@s", b"/nowhere/kopiatomic/x/hold/0", b"zfs", (1, 2))]
        library.refusals["nmount"] = [errno.EBUSY]
        lost = view.hold_all(Door(kernel=library.kernel()), plan)
        assert "another job backs it up just now" in lost["t/a"].reason
        assert len(library.given) == 1

    def test_places_that_cannot_be_made(self, plan, library):
        os.mkdir(plan.names.holds)
        with pytest.raises(CommandFailed, match=r"^mkdir .*/hold: File exists"):
            view.hold_all(Door(kernel=library.kernel()), plan)
        assert not library.given


class TestHeldStill:
    """Until there is a nullfs on it, any zfs destroy takes a mounted snapshot away."""

    @pytest.mark.parametrize("special", [b"t/a@s", b"zroot/var/run"])
    def test_what_is_shown_is_the_snapshot(self, world, library, tmp_path, special, monkeypatch):
        monkeypatch.undo()
        monkeypatch.setattr(view, "standing_in", world.standing_in)
        (tmp_path / "hold").mkdir()
        library.put(tmp_path / "hold", mounted(special, b"/hold", b"zfs"))
        mount = FROZEN._replace(source=str(tmp_path / "hold"))
        if b"@" in special:
            world.make(mount)
            assert library.unmounted == []
        else:
            before = os.getcwd()
            with pytest.raises(CommandFailed, match="unmounted or destroyed its snapshot"):
                world.make(mount)
            assert os.getcwd() == before
            assert library.unmounted == [((901, 41), 0)]

    def test_where_there_are_no_calls_it_is_not_known(self):
        assert view._is_held(Door(), "/nowhere")


class TestBuilding:
    """What cannot be shown is passed over only where the client does without it."""

    def build(self, monkeypatch, mount: ViewMount) -> list[str]:
        def refuse(door, each, names):
            raise CommandFailed(view.mount_command(each, names), "no memory")

        monkeypatch.setattr(view, "_make", refuse)
        said: list[str] = []
        plan = plan_of(
            mount, live=("/thawed", "/cache", "/our/tmp"), written=("/cache", "/our/tmp"),
            temporary="/our/tmp",
        )  # fmt: skip
        view.build(Door(), plan, said.append)
        return said

    def test_the_client_does_without_a_cache_too(self, monkeypatch):
        """It may be that it could not be made: the file system is full, or read-only."""
        said = self.build(monkeypatch, ViewMount("live", "/cache", "/cache"))
        assert said == ["/cache is not in the view: no memory"]

    def test_a_live_mount_is_told(self, monkeypatch):
        said = self.build(monkeypatch, ViewMount("live", "/x", "/x"))
        assert said == ["/x is not in the view: no memory"]

    def test_what_cannot_be_closed_stays_as_it_is(self, monkeypatch):
        assert self.build(monkeypatch, ViewMount("closed", "/gap/closed", "/x")) == []

    @pytest.mark.parametrize(
        "mount",
        [
            ViewMount("live", "/", "/"), ViewMount("live", "/x", "/x", needed=True),
            ViewMount("live", "/thawed", "/thawed"), ViewMount("device", "devfs", "/dev"),
            ViewMount("live", "/our/tmp", "/our/tmp"),
            ViewMount("gap", "/gap/0", "/x"),
        ],
    )  # fmt: skip
    def test_any_other_is_a_failure(self, monkeypatch, mount):
        with pytest.raises(CommandFailed) as caught:
            self.build(monkeypatch, mount)
        assert not isinstance(caught.value, view.Misled)

    def test_of_what_is_frozen_it_is_told_which(self, monkeypatch):
        with pytest.raises(view.Misled) as caught:
            self.build(monkeypatch, FROZEN)
        assert (caught.value.dataset, caught.value.reason) == ("tank/a", "no memory")


class TestPreparing:
    def prepare(self, tmp_path, *directories: str, again: bool = False) -> ViewMount:
        names = Names("run", "snapshot", f"{tmp_path}/job")
        point = str(tmp_path / "live")
        gap = ViewMount("gap", f"{names.gaps}/0", point, directories=directories)
        plan = plan_of(gap, names=names, temporary=names.temporary)
        for _ in range(1 + again):
            view.prepare(plan, lambda path: os.makedirs(path, 0o700, exist_ok=True))
        return gap

    def test_what_stands_in_for_a_directory_looks_like_it(self, tmp_path):
        live = tmp_path / "live"
        (live / "in").mkdir(parents=True)
        (live / "in/file").write_text("x")
        os.chmod(live, 0o1777)
        gap = self.prepare(tmp_path, "in", again=True)  # for a plan that is drawn anew
        names = Names("", "", f"{tmp_path}/job")
        assert os.stat(gap.source).st_mode & 0o7777 == 0o1777
        assert os.listdir(gap.source) == ["in"]
        assert os.listdir(f"{gap.source}/in") == []
        assert os.stat(names.view).st_mode & 0o777 == 0o700
        assert takedown.remove_directories(names) == []
        assert (live / "in/file").exists()

    def test_what_is_closed_is_one_empty_directory(self, tmp_path):
        names = Names("run", "snapshot", f"{tmp_path}/job")
        closed = [ViewMount("closed", names.closed, point) for point in ("/a", "/b")]
        for _ in range(2):  # for a plan that is drawn anew
            view.prepare(
                plan_of(*closed, names=names), lambda path: os.makedirs(path, 0o700, exist_ok=True)
            )
        assert os.listdir(names.gaps) == ["closed"]
        assert os.stat(names.closed).st_mode & 0o222 == 0
        assert takedown.remove_directories(names) == []

    def test_each_has_the_times_of_its_own_when_all_is_made(self, tmp_path):
        live = tmp_path / "live"
        (live / "a/b/c").mkdir(parents=True)
        (live / "a/d").mkdir()
        paths = ("", "a", "a/b", "a/b/c", "a/d")
        for number, path in enumerate(paths):
            os.utime(live / path, ns=(number * 10, number * 10 + 7))
        gap = self.prepare(tmp_path, "a/b/c", "a/d")
        found = [os.stat(f"{gap.source}/{path}") for path in paths]
        assert [each.st_mtime_ns for each in found] == [7, 17, 27, 37, 47]


class TestThePlacesOfTheClient:
    def test_are_made_closed_to_others(self, tmp_path):
        place = tmp_path / "cache/restic"
        assert view.make_places(plan_of(written=(str(place), str(tmp_path)))) == []
        assert os.stat(place).st_mode & 0o777 == 0o700

    def test_what_is_there_stays_as_it_is(self, tmp_path):
        (tmp_path / "file").write_text("x")
        (tmp_path / "link").symlink_to("nowhere")
        os.chmod(tmp_path, 0o755)
        skipped = tuple(str(tmp_path / name) for name in ("file", "link", ""))
        assert view.make_places(plan_of(written=skipped)) == []
        assert (tmp_path / "file").read_text() == "x"
        assert not os.path.lexists(tmp_path / "nowhere")
        assert os.stat(tmp_path).st_mode & 0o777 == 0o755

    def test_one_that_cannot_be_made_is_told(self, tmp_path):
        (tmp_path / "file").write_text("x")
        (note,) = view.make_places(plan_of(written=(f"{tmp_path}/file/cache",)))
        assert note == f"{tmp_path}/file/cache cannot be made: Not a directory"
