"""The routine's steps, in their order, with nothing behind them."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.libc import LOCAL, RDONLY, Library, mounted

from kopiatomic import state
from kopiatomic.backup import proof, routine, takedown, view
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.clients import make_ready
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.restic import Restic
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system import mounts, process, zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp, Result
from kopiatomic.system.process import Ended, Interrupted, Streams

MOUNTED = [
    ("/dev/vtbd0", "/", "ufs"), ("devfs", "/dev", "devfs"),
    ("kta/a", "/a", "zfs"), ("kta/b", "/b", "zfs"), ("ktb", "/c", "zfs"),
]  # fmt: skip
DATASETS = ("kta/a", "kta/b", "ktb")


def listing(*names: str) -> str:
    """Return zfs(8)'s list of mounted file systems."""
    return "".join(f"{name}\tfilesystem\tyes\ton\toff\t-\t/x\t-\n" for name in names)


class World:
    """A machine that consists of answers: what it is asked is noted, and what it says is said.

    ``answers`` are to be used up by the beginnings of command lines: a status, with output
    where that is 0 and a message where it is not, or what is to be raised.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.said: list[str] = []
        self.programs: list[str] = []
        self.answers: dict[str, list[object]] = {}
        self.datasets = list(DATASETS)
        self.does: dict[str, object] = {}
        self.client = Ended(0, 0.1)
        self.environments: dict[str, dict[str, str]] = {}
        self.roots: dict[str, str | None] = {}
        library.does = self.mount
        self.last = ""
        for number, (special, point, kind) in enumerate(MOUNTED):
            self.enter(special, point, kind, (number, 41))

    def enter(self, special, point, kind, fsid, flags=LOCAL) -> None:
        """Enter a mount into the table."""
        words = (os.fsencode(special), os.fsencode(point), kind.encode())
        self.library.table.append(mounted(*words, fsid, flags))

    def mount(self, options: dict[str, str]) -> None:
        source = options.get("target") or options["from"]
        point = options["fspath"] if options["fspath"] != "." else self.last
        what = f"mount {options['fstype']} {source}"
        self.said.append(shortened(what, self.top))
        self.enter(source, point, options["fstype"], (len(self.library.given), 77))

    @property
    def top(self) -> str:
        return os.path.realpath(state.RUN_ROOT)

    # The door

    def run(self, argv, *, text=None, check=True, **_) -> Result:
        words = [argv[0], argv[1]] if len(argv) > 1 else [argv[0]]
        verb = " ".join(words)
        if verb == "zfs program":
            verb = "destroy" if "zfs.check" not in text else "snapshot"
            verb = f"zfs program {verb} {argv[-2]}"
            self.texts.append(text)
        self.said.append(verb)
        self.programs.append(verb)
        act = self.does.pop(verb, None)
        if act is not None:
            act()
        status, out = 0, ""
        if verb == "zfs list":
            out = listing(*self.datasets)
        elif verb.startswith("zfs program"):
            out = '{"return":{}}'
        planned = next((a for a in self.answers if verb.startswith(a) and self.answers[a]), None)
        if planned is not None:
            answer = self.answers[planned].pop(0)
            if isinstance(answer, Exception):
                raise answer
            status, out = answer
        result = Result(tuple(argv), status, out if status == 0 else "", "" if not status else out)
        if check and status:
            raise CommandFailed(argv, f"{out} (exit status {status})")
        return result

    def run_user(self, door, argv, environment, signals, streams, root=None, source=None) -> Ended:
        hook = argv[:2] == ["/bin/sh", "-c"]
        name = argv[2] if hook else "client"
        self.said.append(name)
        self.environments[name] = dict(environment)
        self.roots[name] = root
        act = self.does.pop(name, None)
        if act is not None:
            act()
        if not hook:
            self.words = list(argv)
            return self.client
        return Ended(0, 0.1)


def shortened(text: str, top: str) -> str:
    """Return a text without what differs in each run."""
    return text.partition("@")[0].replace(f"{top}/restomic/default/", "")


@pytest.fixture
def world(library, places, monkeypatch) -> World:
    """The machine; its door calls the kernel, and nothing is real."""
    made = World(library)
    made.texts = []
    # Somebody has looked since the boot for what earlier runs have left behind.
    os.mkdir(state.STATE_DIRECTORY, 0o700)
    state.note_search(["kta", "ktb"])
    monkeypatch.setattr(Client, "program", lambda self, job: "/usr/local/bin/restic")
    monkeypatch.setattr(Restic, "parent", lambda *_: None)
    monkeypatch.setattr(Door, "run", lambda self, argv, **options: made.run(argv, **options))
    monkeypatch.setattr(process, "run", made.run_user)
    monkeypatch.setattr(process, "run_hook", made.run_user)
    monkeypatch.setattr(takedown.time, "sleep", lambda seconds: None)

    @contextmanager
    def standing_in(target):
        made.last = target

        def enter() -> int:
            descriptor = os.open("/", os.O_RDONLY)
            # After a mount it is on another file system than before.
            library.shown[descriptor] = library.table[-1]
            return descriptor

        yield ".", enter

    monkeypatch.setattr(view, "standing_in", standing_in)
    monkeypatch.setattr(view, "_is_meant", lambda *_: True)
    monkeypatch.setattr(view, "_is_held", lambda *_: True)
    monkeypatch.setattr(takedown, "_is_astray", lambda *_: False)
    return made


JOB = Job("restomic", targets=("kta/a", "ktb"), proof=False)
ALL = JOB._replace(targets=(), everything=True)
HOOKS = {"before": "freeze", "after_snapshot": "thaw", "after": "tell"}


def ready(job: Job, library: Library, **inherited: str) -> Task:
    """Return a job made ready for somebody whose home is /root."""
    return make_ready(job, Door(kernel=library.kernel()), {"HOME": "/root", **inherited})


def run(job: Job, world: World, **inherited: str) -> Report:
    """Run a job and return the report."""
    return routine.run(ready(job, world.library, **inherited), Streams())


def captured(report: Report) -> list[str]:
    assert report.plan is not None
    return [each.dataset for each in report.plan.captured]


class TestOrder:
    def test_of_a_good_run(self, world):
        report = run(JOB._replace(**HOOKS), world)
        assert report.problems == []
        assert world.said == [
            "zfs list",
            "freeze",
            "zfs list",
            "zfs program snapshot kta",
            "zfs program snapshot ktb",
            "thaw",
            "mount zfs kta/a",
            "mount zfs ktb",
            "mount nullfs /",
            "mount nullfs hold/0",
            "mount nullfs gap/closed",
            "mount nullfs hold/1",
            "mount devfs devfs",
            "client",
            "zfs destroy",
            "zfs destroy",
            "tell",
        ]
        assert world.roots == {
            "freeze": None, "thaw": None, "tell": None,
            "client": f"{world.top}/restomic/default/view",
        }  # fmt: skip
        assert world.words[-2:] == ["/a", "/c"]

    def test_programs_are_few(self, world):
        """A list, one for the snapshots of a pool and one for their end; and the client."""
        report = run(ALL._replace(exclude=("ktb",)), world)
        assert report.status == 0
        assert world.programs == ["zfs list", "zfs program snapshot kta", "zfs program destroy kta"]

    def test_what_was_mounted_is_unmounted_the_latest_first_and_nothing_else(self, world):
        before = len(world.library.table)
        run(ALL, world)
        numbers = [fsid[0] for fsid, _ in world.library.unmounted]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 3 + 3 + 2
        assert len(world.library.table) == before
        assert not any(flags for _, flags in world.library.unmounted)

    def test_only_snapshots_that_were_made_are_destroyed(self, world):
        run(ALL._replace(exclude=("ktb",)), world)
        made, gone = world.texts
        names = [line for line in made.split("\n") if "@restomic-" in line]
        assert len(names) == 2
        assert names == [line for line in gone.split("\n") if "@" in line]

    def test_a_jail_is_refused(self, world, monkeypatch):
        monkeypatch.setattr("kopiatomic.backup.jail.ZFS", "/")
        world.library.jailed = 1
        with pytest.raises(Refusal, match="this jail may not mount"):
            run(ALL, world)
        assert world.said == []

    def test_nothing_pins_what_the_job_has_nothing_to_do_with(self, world):
        """A nullfs on a live dataset keeps it from being unmounted by anybody."""
        run(JOB._replace(targets=("kta/a",)), world)
        sources = [options.get("target", "") for options, _ in world.library.given]
        assert not {"/a", "/b", "/c"} & set(sources)
        assert not [source for source in sources if ".zfs" in source]

    def test_the_report_names_the_programs_of_the_hooks(self, world, tmp_path, monkeypatch):
        """For --check, which looks at who can write them."""
        hook = tmp_path / "freeze"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o700)
        job = JOB._replace(before=f"{hook} now", after_snapshot="echo thaw")
        assert as_dict(run(job, world))["hooks"] == [str(hook)]
        monkeypatch.chdir(tmp_path)
        assert as_dict(run(job._replace(before="./freeze"), world))["hooks"] == [str(hook)]

    def test_the_client_gets_a_place_for_what_is_temporary(self, world):
        run(JOB._replace(targets=("kta/a",)), world, TMPDIR="/a/tmp")
        place = f"{world.top}/restomic/default/tmp"
        assert world.environments["client"]["TMPDIR"] == place


class TestWhatIsLeftFromBeforeTheBoot:
    """The note of a run that was killed may be in another boot environment."""

    NAME = "kta/a@restomic-20261127T020000Z-0123456789ab"

    @pytest.fixture
    def booted(self, world):
        os.unlink(f"{state.RUN_ROOT}/kopiatomic.searched")
        world.answers["zpool list"] = [(0, "kta\toff\tONLINE\nktb\toff\tONLINE\n")]
        return world

    def test_the_first_run_looks_and_no_other(self, booted):
        booted.answers["zfs list"] = [(0, "kta/a@daily\n")]
        first = run(JOB, booted)
        assert booted.said[:3] == ["zpool list", "zfs list", "zfs list"]
        booted.said.clear()
        second = run(JOB, booted)
        assert booted.said[:2] == ["zfs list", "zfs program snapshot kta"]
        assert [each.outcome for each in (first, second)] == ["success", "success"]
        assert first.swept == second.swept == []

    def test_its_own_are_removed(self, booted):
        booted.answers["zfs list"] = [(0, f"{self.NAME}\nkta/b@restomic-x\n")]
        booted.answers["zfs get"] = [
            (0, f"{self.NAME}\tlocal\trestomic:default:1\n"
                "kta/b@restomic-x\tlocal\trestomic:other:2\n")
        ]
        report = run(JOB, booted)
        assert booted.said[:4] == ["zpool list", "zfs list", "zfs get", "zfs destroy"]
        assert report.swept == [f"snapshot {self.NAME}"]
        assert report.outcome == "success"

    def test_what_stays_is_told_and_the_note_with_it(self, booted):
        booted.answers["zfs list"] = [(0, f"{self.NAME}\n")]
        booted.answers["zfs get"] = [(0, f"{self.NAME}\tlocal\trestomic:default:1\n")]
        booted.answers["zfs destroy"] = [(1, "dataset is busy")]
        report = run(JOB, booted)
        assert report.notes[0].startswith(f"the snapshot {self.NAME} of an earlier run stays: ")
        assert state.is_unfinished(state.Place("restomic", "default"))

    def test_not_being_able_to_look_costs_no_backup(self, booted):
        booted.answers["zfs list"] = [(1, "cannot iterate filesystems: I/O error")]
        report = run(JOB, booted)
        assert report.outcome == "success"
        assert "could not be looked for" in report.notes[0]
        assert "I/O error" in report.notes[0]


class TestWhatHooksDo:
    """The plan is drawn early, so that typos are found, and again after -p."""

    def test_without_one_the_early_plan_is_final(self, world):
        with pytest.raises(Refusal, match="no dataset is called"):
            run(JOB._replace(targets=("kta/typo",)), world)
        assert world.said == ["zfs list"]

    def test_what_it_mends_is_no_longer_refused(self, world):
        world.datasets.remove("ktb")
        world.does["freeze"] = lambda: world.datasets.append("ktb")
        report = run(JOB._replace(targets=("ktb",), **HOOKS), world)
        assert report.status == 0
        assert captured(report) == ["ktb"]

    def test_and_where_it_does_not_the_second_refusal_is_the_runs_end(self, world):
        report = run(JOB._replace(targets=("kta/typo",), **HOOKS), world)
        assert (report.outcome, report.status) == ("failed", 66)
        assert "no dataset is called 'kta/typo'" in report.problems[0]
        assert world.said == ["zfs list", "freeze", "zfs list", "thaw", "tell"]
        assert report.plan is None
        assert as_dict(report)["captured"] == []

    def test_a_disk_that_it_mounts_is_in_the_view(self, world, tmp_path):
        job = JOB._replace(targets=("kta/a",), options=("-r", "/backup/restic"), **HOOKS
        )
        world.does["freeze"] = lambda: world.enter("/dev/da0", "/backup", "ufs", (60, 41))
        report = run(job, world)
        assert report.status == 0
        assert "mount nullfs /backup" in world.said

    def test_what_has_gone_by_then_is_not_taken_along(self, world):
        world.does["freeze"] = lambda: world.datasets.remove("kta/b")
        report = run(ALL._replace(**HOOKS), world)
        assert report.status == 0
        assert captured(report) == ["kta/a", "ktb"]

    @pytest.mark.parametrize("ends", [
        "zfs program snapshot", "client", "freeze", "thaw", "no view", "interrupted", "the plan",
    ])  # fmt: skip
    def test_what_undoes_it_runs_in_every_case_in_which_it_ran(self, world, monkeypatch, ends):
        def interrupt() -> None:
            raise Interrupted(15)

        def fail() -> None:
            raise CommandFailed(["sh"], "no")

        if ends == "no view":
            world.library.refusals["nmount"] = [errno.EIO] * 9
        elif ends == "interrupted":
            world.does["client"] = interrupt
        elif ends == "the plan":
            world.does["freeze"] = world.datasets.clear
        elif ends == "zfs program snapshot":
            world.answers[ends] = [(1, "no")] * 2
        else:
            world.does[ends] = fail
        report = run(JOB._replace(**HOOKS), world)
        assert report.status
        assert world.said.count("freeze") == world.said.count("tell") == 1
        assert world.said[-1] == "tell"
        assert world.environments["tell"]["KOPIATOMIC_OUTCOME"] == report.outcome
        # The services that -p stopped go on whatever became of the rest.
        assert "thaw" in world.said

    def test_what_undoes_it_is_told_no_secret(self, world):
        secret = "dump --password=battery"
        world.does[secret] = lambda: (_ for _ in ()).throw(CommandFailed(["sh"], "battery is flat"))
        run(JOB._replace(before=secret, after="tell"), world)
        message = world.environments["tell"]["KOPIATOMIC_MESSAGE"]
        assert message == "the command of -p: [hidden] is flat"

    def test_a_fault_of_ours_there_is_in_the_history_as_well(self, world):
        def broken() -> None:
            raise ZeroDivisionError("at night")

        world.does["tell"] = broken
        report = run(JOB._replace(after="tell"), world)
        assert "internal error" in report.problems[-1]
        (entry,) = state.read_history(state.Place("restomic", "default"))
        assert entry["problems"] == report.problems

    def test_nothing_runs_after_a_plan_that_is_refused_at_once(self, world):
        with pytest.raises(Refusal):
            run(JOB._replace(targets=("kta/typo",), after="tell"), world)
        assert "tell" not in world.said


class TestWhatIsLost:
    """It costs itself, and not the others; and the run says so."""

    def refuse(self, world, **numbers: int) -> None:
        """Let datasets of kta not be snapshotted."""
        given: list[str] = []

        def answer() -> None:
            names = [line.strip('\t",') for line in world.texts[-1].split("\n") if "@" in line]
            failed = {n: numbers[n[4]] for n in names if n[4] in numbers and n.startswith("kta/")}
            given.append("x")
            world.answers["zfs program snapshot kta"] = [(0, json.dumps({"return": failed}))]

        world.does["zfs program snapshot kta"] = answer

    def test_no_room_for_one(self, world):
        self.refuse(world, a=28)
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 73)
        assert report.problems == ["no snapshot of kta/a: out of space"]
        assert captured(report) == ["kta/b", "ktb"]
        left = {each.name: each.reason for each in report.plan.left_out}
        assert left["kta/a"] == "out of space"
        assert world.words[-2:] == ["/b", "/c"]
        # It is not ours to destroy: it was not made.
        assert [verb for verb in world.said if "destroy" in verb] == ["zfs destroy"] * 2

    def test_one_that_has_gone_is_left_out_and_named(self, world):
        self.refuse(world, a=2)
        report = run(ALL, world)
        assert (report.outcome, report.problems) == ("success", [])
        left = {each.name: each.reason for each in report.plan.left_out}
        assert left["kta/a"] == "it has gone since the run began"

    def test_but_one_that_was_named_is_missed(self, world):
        self.refuse(world, a=2)
        report = run(ALL._replace(targets=("kta/a",)), world)
        assert report.outcome == "incomplete"
        assert report.problems == ["no snapshot of kta/a: no such dataset"]

    def test_and_so_is_one_that_is_lost_beside_a_hook_that_fails(self, world):
        """A run with less than was asked for is no good one, whatever else goes wrong."""
        self.refuse(world, a=28)

        def fail() -> None:
            raise CommandFailed(["sh"], "no")

        world.does["thaw"] = fail
        report = run(ALL._replace(**HOOKS), world)
        assert report.outcome == "incomplete"
        assert "client" in world.said

    def test_nothing_is_left(self, world):
        self.refuse(world, a=2)
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert (report.outcome, report.status) == ("failed", 73)
        assert "no selected dataset can be backed up" in report.problems[-1]
        assert "client" not in world.said

    def test_a_snapshot_that_cannot_be_mounted(self, world):
        world.library.refusals["nmount"] = [errno.EACCES]
        report = run(ALL, world)
        assert report.outcome == "incomplete"
        assert report.problems == ["cannot mount the snapshot of kta/a: Permission denied"]
        assert captured(report) == ["kta/b", "ktb"]
        assert "mount nullfs hold/0" not in world.said
        # Its snapshot goes all the same.
        assert "kta/a@" in next(text for text in world.texts if "check" not in text)

    def test_one_that_has_gone_before_it_could_be_mounted(self, world, monkeypatch):
        world.library.refusals["nmount"] = [errno.ENOENT]
        listed, looks = zfs.list_datasets, []

        def look(door):
            looks.append(door)
            return [each for each in listed(door) if len(looks) == 1 or each.name != "kta/a"]

        monkeypatch.setattr(zfs, "list_datasets", look)
        report = run(ALL, world)
        assert report.status == 0
        assert captured(report) == ["kta/b", "ktb"]

    def test_one_whose_pool_has_gone_before_it_could_be_mounted(self, world, monkeypatch):
        """It may come back with all that is in it, so it is not known to be destroyed."""
        world.library.refusals["nmount"] = [errno.ENOENT]
        listed, looks = zfs.list_datasets, []

        def look(door):
            looks.append(door)
            return [each for each in listed(door) if len(looks) == 1 or each.name == "ktb"]

        monkeypatch.setattr(zfs, "list_datasets", look)
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 73)
        told = "cannot mount the snapshot of kta/a: its pool is not imported any more"
        assert report.problems == [told]

    def test_one_whose_snapshot_alone_has_gone(self, world):
        world.library.refusals["nmount"] = [errno.ENOENT]
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 73)
        assert "its snapshot has been destroyed" in report.problems[0]
        assert captured(report) == ["kta/b", "ktb"]

    def test_one_that_was_named_and_captured_last_time(self, world, monkeypatch):
        job = JOB._replace(targets=("kta/a", "kta/b"), recursive=True)
        assert run(job, world).outcome == "success"
        mounted = mounts.table
        monkeypatch.setattr(
            mounts, "table",
            lambda door: [each for each in mounted(door) if each.special != "kta/a"],
        )
        report = run(job, world)
        assert report.outcome == "incomplete"
        assert report.problems == [
            "kta/a is not in this backup: another file system is mounted over it"
        ]

    def test_one_whose_mount_point_was_led_elsewhere(self, world, monkeypatch):
        """The view is made anew without it, and the snapshots stay where they are mounted."""
        real, tried = view._make, []

        def make(door, mount, names):
            tried.append(mount.point)
            if mount.point == "/b":
                raise CommandFailed(["mount_nullfs", "/b"], view.LINK)
            real(door, mount, names)

        monkeypatch.setattr(view, "_make", make)
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 73)
        assert report.problems == [f"cannot show at its mount point kta/b: {view.LINK}"]
        assert captured(report) == ["kta/a", "ktb"]
        assert tried == ["/", "/a", "/b", "/", "/a", "/b", "/c", "/dev"]
        assert world.said.count("mount zfs kta/a") == 1
        assert world.words[-2:] == ["/a", "/c"]
        assert len(world.library.table) == len(MOUNTED)

    def test_a_view_that_cannot_be_taken_down_to_be_made_anew(self, world, monkeypatch):
        def make(door, mount, names):
            raise CommandFailed(["mount_nullfs", mount.point], view.LINK)

        monkeypatch.setattr(view, "_make", make)
        monkeypatch.setattr(takedown, "take_down", lambda *_: busy())
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.outcome == "failed"


def busy() -> takedown.TakenDown:
    """Return what taking down came to where the mount table could not be read."""
    made = takedown.TakenDown()
    made.unknown = "getfsstat: Bad address"
    return made


class TestPools:
    def pools(self, world, read_only: str) -> None:
        rows = "".join(f"{pool}\t{'on' if pool == read_only else 'off'}\tONLINE\n"
                       for pool in ("kta", "ktb"))  # fmt: skip
        world.answers["zpool list"] = [(0, rows)]

    def test_one_that_is_read_only_stands_still_by_itself(self, world):
        world.library.table[4].flags |= RDONLY
        world.answers["zfs program snapshot ktb"] = [(1, "pool is read-only")]
        self.pools(world, "ktb")
        report = run(ALL, world)
        assert (report.outcome, report.problems) == ("success", [])
        assert captured(report) == ["kta/a", "kta/b", "ktb"]
        assert report.notes == [
            "the pool ktb is read-only and so stands still: it is backed up without a snapshot"
        ]
        assert "mount nullfs /c" in world.said
        assert set(report.captured_at) == {"kta", "ktb"}

    def test_any_other_costs_its_own_datasets(self, world):
        world.answers["zfs program snapshot ktb"] = [(1, "pool I/O is suspended")]
        self.pools(world, "")
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 73)
        assert report.problems == ["no snapshot of ktb: pool I/O is suspended (exit status 1)"]
        assert captured(report) == ["kta/a", "kta/b"]
        assert set(report.captured_at) == {"kta"}

    def test_its_snapshots_may_have_been_made_all_the_same(self, world):
        """And by now they may have other names: so they are looked for by their mark."""
        world.answers["zfs program snapshot ktb"] = [(-9, "")]
        world.answers["zfs destroy"] = [(1, "cannot open 'ktb': dataset does not exist")]
        self.pools(world, "")
        moved: list[str] = []

        def answer() -> None:
            mark = re.search(r"restomic:default:[0-9a-f]+", world.texts[0])[0]
            name = "ktb2@" + re.search(r"@(restomic-[0-9A-Za-z-]+)", world.texts[0])[1]
            world.answers["zfs list"] = [(0, f"{name}\nktb2@daily\n")]
            world.answers["zfs get"] = [(0, f"{name}\tlocal\t{mark}\n")]
            moved.append(name)

        world.does["zfs destroy"] = answer
        report = run(ALL, world)
        assert world.said[-4:] == ["zfs destroy", "zfs list", "zfs get", "zfs destroy"]
        assert any(f"its snapshot was {moved[0]} in the end" in note for note in report.notes)

    def test_where_nobody_knows_what_is_the_matter(self, world):
        world.answers["zfs program snapshot ktb"] = [(1, "no")]
        world.answers["zpool list"] = [(1, "out of memory")]
        assert run(ALL, world).problems == ["no snapshot of ktb: no (exit status 1)"]

    def test_all_of_them(self, world):
        world.answers["zfs program snapshot"] = [(1, "no")] * 2
        self.pools(world, "")
        report = run(ALL._replace(**HOOKS), world)
        assert (report.outcome, report.status) == ("failed", 73)
        assert [each for each in world.said if each in HOOKS.values()] == ["freeze", "thaw", "tell"]
        assert not [each for each in world.said if each.startswith(("mount", "client"))]

    def test_one_that_does_not_answer_may_yet_make_its_snapshots(self, world):
        """The next run looks for them."""
        world.answers["zfs program snapshot ktb"] = [GivenUp(["zfs"], "did not end within 900 s")]
        self.pools(world, "")
        report = run(ALL, world)
        assert report.outcome == "incomplete"
        assert state.is_unfinished(state.Place("restomic", "default"))
        assert world.said.count("zfs destroy") == 1


class TestTheView:
    def test_a_mount_that_fails_takes_down_what_was_made(self, world):
        real = world.library.nmount

        def nmount(vector, count, flags):
            if len(world.library.given) == 5:  # devfs
                world.library.refusals["nmount"] = [errno.EPERM]
            return real(vector, count, flags)

        world.library.nmount = nmount
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.status == 71
        assert "cannot build the view" in report.problems[0]
        assert "client" not in world.said
        assert len(world.library.table) == len(MOUNTED)
        assert world.said[-1] == "zfs destroy"

    def test_without_nullfs_it_is_told_what_to_load(self, world, monkeypatch):
        def refuse(*_):
            raise CommandFailed(["mount_nullfs"], "Operation not supported by device")

        monkeypatch.setattr(view, "build", refuse)
        world.answers["kldstat"] = [(1, "")]
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert (report.outcome, report.status) == ("failed", 71)
        assert report.problems[0].endswith("; there is no nullfs in this kernel: kldload nullfs")

    def test_what_the_client_needs_must_be_in_it(self, world):
        """A repository that cannot be shown is no new one, and nothing is written beside it."""
        world.enter("nas:/b", "/backup", "nfs", (60, 41), 0)
        world.answers["realpath"] = [(1, "realpath: Operation timed out")]
        job = JOB._replace(targets=("kta/a",), options=("-r", "/backup/restic"))
        report = run(job, world)
        assert report.status == 71
        assert "timed out" in report.problems[0]
        assert "client" not in world.said

    def test_and_what_it_does_not_is_not(self, world):
        world.enter("nas:/b", "/backup", "nfs", (60, 41), 0)
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.status == 0
        assert report.plan.unseen == ("/b", "/backup", "/c")
        assert not [each for each in world.said if "/backup" in each]


class TestTheClient:
    @pytest.mark.parametrize(("plain", "told"), [(False, True), (True, False)])
    def test_statuses_are_explained_of_the_real_one_only(self, world, plain, told):
        """Any other program may mean something else by 11 than that a repository is locked."""
        world.client = Ended(11, 0.1)
        report = run(JOB._replace(command=("restic", "backup"), plain=plain), world)
        assert report.status == 11
        assert ("is locked" in report.problems[0]) is told

    def test_a_backup_without_some_files_is_incomplete_whatever_else_happens(self, world):
        world.client = Ended(3, 0.1)
        world.answers["zfs destroy"] = [(1, "dataset is busy")] * 9
        report = run(JOB._replace(command=("restic", "backup")), world)
        assert (report.outcome, report.status) == ("incomplete", 3)
        assert len(report.problems) == 3

    def test_a_path_that_is_not_in_the_view_is_told_with_what_helps(self, world):
        world.enter("tank/x", "/mnt/x", "zfs", (60, 41))
        said = b"Fatal: unable to open /mnt/x/file: no such file or directory"
        world.client = Ended(10, 0.1, messages=said)
        report = run(JOB._replace(command=("restic", "backup")), world)
        assert "/mnt/x, which it names, is not in the view" in report.problems[0]
        assert report.problems[0].endswith("if it needs that: --live /mnt/x")
        assert "init" not in report.problems[0]

    def test_any_program_is_told_of_what_is_not_in_the_view(self, world):
        world.client = Ended(1, 0.1, output=b"no /b/x")
        report = run(JOB._replace(command=("mine",), plain=True), world)
        assert report.problems == [
            "mine: exit status 1; /b, which it names, is not in the view, where only what the "
            "client is known to need is live; if it needs that: --live /b"
        ]


class TestSeveralClientRuns:
    """Of one moment, one after the other, to a second repository."""

    @pytest.fixture
    def ends(self, world, monkeypatch) -> list[Ended | Exception]:
        """How the client ends, once for each call."""
        listed: list[Ended | Exception] = []

        def call(door, argv, environment, signals, streams, root=None, source=None):
            if argv[:2] != ["/bin/sh", "-c"]:
                world.said.append(f"client {environment['RESTIC_REPOSITORY']}")
                ended = listed.pop(0)
                if isinstance(ended, Exception):
                    raise ended
                return ended
            return world.run_user(door, argv, environment, signals, streams)

        monkeypatch.setattr(process, "run", call)
        monkeypatch.setattr(process, "run_hook", call)
        return listed

    def run(self, world, job=JOB, here="/r0", there="/r1") -> Report:
        job = job._replace(after="q", environment={"RESTIC_REPOSITORY": here})
        task = ready(job, world.library)
        away = ready(job._replace(environment={"RESTIC_REPOSITORY": there}), world.library)
        task = task._replace(repository="here.env", more=(away._replace(repository="away.env"),))
        return routine.run(task, Streams())

    def test_all_are_good(self, world, ends):
        ends += [Ended(0, 0.1), Ended(0, 0.2)]
        report = self.run(world)
        assert (report.outcome, report.problems) == ("success", [])
        clients = [each for each in world.said if each.startswith("client")]
        assert clients == ["client /r0", "client /r1"]
        assert sum(each.startswith("zfs program snapshot") for each in world.said) == 2
        rows = as_dict(report)["client_runs"]
        assert [row["name"] for row in rows] == ["files to here.env", "files to away.env"]
        assert [row["client"]["seconds"] for row in rows] == [0.1, 0.2]

    @pytest.mark.parametrize("first", [0, 1])
    def test_one_that_fails_does_not_keep_the_next_from_its_work(self, world, ends, first):
        ends += [Ended(1 - first, 0.1), Ended(first, 0.1)]
        report = self.run(world)
        assert (report.outcome, report.status) == ("incomplete", 1)
        name = ("here", "away")[first]
        assert report.problems == [f"files to {name}.env: restic: exit status 1"]
        outcomes = [row["outcome"] for row in as_dict(report)["client_runs"]]
        assert outcomes == [["failed", "success"], ["success", "failed"]][first]
        assert world.said[-1] == "q"

    def test_nor_one_that_cannot_be_started(self, world, ends):
        ends += [CommandFailed(["restic"], "no such file"), Ended(0, 0.1)]
        report = self.run(world)
        assert report.outcome == "incomplete"
        assert [run.outcome for run in report.runs] == ["not run", "success"]

    def test_what_was_lost_before_is_lacking_in_all_of_them(self, world, ends):
        world.answers["zfs program snapshot ktb"] = [(1, "no")]
        world.answers["zpool list"] = [(1, "no")]
        ends += [Ended(0, 0.1), Ended(0, 0.1)]
        report = self.run(world, ALL)
        assert report.outcome == "incomplete"
        assert [run.outcome for run in report.runs] == ["incomplete", "incomplete"]

    def test_one_whose_repository_is_not_to_be_written_is_not_called(self, world, ends):
        """The others get their backup; where there is none, nothing is begun."""
        ends.append(Ended(0, 0.1))
        report = self.run(world, ALL, "/a/restic", "/r1")
        assert report.outcome == "incomplete"
        assert [run.outcome for run in report.runs] == ["not run", "success"]
        assert report.problems[0].startswith("files to here.env: the repository /a/restic would be")
        assert [each for each in world.said if each.startswith("client")] == ["client /r1"]
        with pytest.raises(Refusal, match="/a/restic would be frozen"):
            self.run(world, ALL, "/a/restic", "/b/restic")

    def test_nor_one_that_the_view_cannot_show(self, world, ends):
        world.enter("nas:/b", "/backup", "nfs", (60, 41), 0)
        world.answers["realpath"] = [(1, "realpath: Operation timed out")]
        ends.append(Ended(0, 0.1))
        report = self.run(world, ALL, "/backup/restic", "/r1")
        assert report.outcome == "incomplete"
        assert report.problems == [
            "files to here.env: its repository /backup/restic is not in the view"
        ]
        assert any("timed out" in note for note in report.notes)

    def test_where_all_fail_there_is_no_backup(self, world, ends):
        ends += [Ended(1, 0.1), Ended(12, 0.1)]
        report = self.run(world)
        assert (report.outcome, report.status) == ("failed", 1)
        assert len(report.problems) == 2

    def test_a_signal_ends_them_all(self, world, ends):
        ends.append(Interrupted(signal.SIGTERM))
        report = self.run(world)
        assert (report.outcome, report.status) == ("interrupted", 143)
        assert [run.outcome for run in report.runs] == ["not run", "not run"]

    def test_and_leaves_an_incomplete_backup_where_one_is_done(self, world, ends):
        ends += [Ended(0, 0.1), Interrupted(signal.SIGTERM)]
        report = self.run(world)
        assert (report.outcome, report.status) == ("incomplete", 143)


class TestTheProof:
    """When all has been taken down, the repository is asked; the client's word is not enough."""

    def run(self, world, monkeypatch, job: Job, ended: Ended | None = None) -> list[str]:
        asked: list[str] = []

        def prove(task, evidence, called, report, signals):
            asked.extend(evidence.points)
            world.said.append("prove")

        monkeypatch.setattr(proof, "prove", prove)
        world.client = ended or Ended(0, 0.1)
        run(job, world)
        return asked

    def test_of_every_captured_dataset_when_the_view_has_gone(self, world, monkeypatch):
        job = ALL._replace(proof=True, after="tell")
        assert self.run(world, monkeypatch, job) == ["/a", "/b", "/c"]
        assert world.said[-3:] == ["zfs destroy", "prove", "tell"]

    @pytest.mark.parametrize(
        ("changes", "ended"),
        [
            ({"proof": False}, Ended(0, 0.1)), ({"plain": True}, Ended(0, 0.1)),
            ({}, Ended(1, 0.1)), ({}, Ended(-9, 0.1)),
        ],
    )  # fmt: skip
    def test_not_where_there_is_nothing_to_prove(self, world, monkeypatch, changes, ended):
        job = ALL._replace(**{"proof": True, "command": ("restic", "backup"), **changes})
        assert self.run(world, monkeypatch, job, ended) == []

    def test_of_an_incomplete_backup_as_well(self, world, monkeypatch):
        job = ALL._replace(proof=True, command=("restic", "backup"))
        assert self.run(world, monkeypatch, job, Ended(3, 0.1)) == ["/a", "/b", "/c"]

    def test_not_when_a_signal_came_while_the_client_worked(self, world, monkeypatch):
        """Some end with 0 all the same; the run was interrupted, which is said once."""
        world.does["client"] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        world.client = Ended(0, 0.1)
        report = run(ALL._replace(proof=True), world)
        assert report.outcome == "interrupted"
        assert report.problems == ["interrupted by SIGTERM"]
        assert report.runs[0].proof is None

    def test_of_what_was_captured_in_the_end(self, world, monkeypatch):
        world.library.refusals["nmount"] = [errno.EACCES]
        assert self.run(world, monkeypatch, ALL._replace(proof=True)) == ["/b", "/c"]


class TestTakingDown:
    def test_a_mount_table_that_cannot_be_read(self, world):
        """What may be mounted still is told, and the next run knows that there is something."""
        world.does["client"] = lambda: world.library.refusals.update(getfsstat=[errno.EFAULT] * 3)
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert (report.outcome, report.status) == ("trouble", 71)
        assert "the view may still be mounted: getfsstat" in report.problems[0]
        assert report.problems[0].endswith("or: restomic --sweep -j default")
        assert world.library.unmounted == []
        assert state.is_unfinished(state.Place("restomic", "default"))
        # As often as patience lasts.
        assert world.library.refusals["getfsstat"] == []
        assert len(takedown.PATIENCE) == 3

    def test_a_mount_that_stays(self, world):
        world.does["client"] = lambda: world.library.refusals.update(unmount=[errno.EBUSY] * 99)
        world.answers["fstat"] = [(0, "")] * 9
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.status == 71
        directory = f"{world.top}/restomic/default"
        assert f"{directory}/view cannot be unmounted" in "".join(report.problems)
        assert f"or: umount -f {directory}/view" in "".join(report.problems)

    @pytest.mark.parametrize("jailed", [True, False])
    def test_one_of_an_earlier_run_that_stays(self, world, jailed):
        """A jail that was started anew may not unmount what it had mounted before."""
        world.answers["fstat"] = [(0, "")] * 9
        world.enter("/a", f"{world.top}/restomic/default/view", "nullfs", (9, 77))
        world.library.refusals.update(unmount=[errno.EPERM] * 99)
        door = Door(kernel=world.library.kernel(), jailed=jailed)
        report = Report("restomic", "default", "", began=0.0)
        with pytest.raises(Refusal, match="left by an earlier run, cannot be unmounted") as caught:
            routine.sweep(state.Place("restomic", "default"), door, report)
        assert caught.value.status == 75
        assert ("on the host" in str(caught.value)) is jailed

    def test_one_whose_mount_point_was_removed_meanwhile(self, world, monkeypatch):
        """What the client found there cannot be known, whatever it says."""
        astray = lambda _, mount: mount.point.endswith("/view/b")  # noqa: E731
        monkeypatch.setattr(takedown, "_is_astray", astray)
        report = run(ALL, world)
        assert (report.outcome, report.status) == ("incomplete", 65)
        assert report.problems == [
            "kta/b (/b) is not, or not whole, in the backup: its mount point was removed while "
            "the client ran, as zfs rename does"
        ]

    def test_a_snapshot_that_has_gone_elsewhere_is_looked_for_by_its_mark(self, world):
        """Where that cannot be seen, the note that the run has begun stays for the next one."""
        world.answers["zfs destroy"] = [(1, "cannot open 'kta/a': dataset does not exist")]
        world.does["zfs destroy"] = lambda: world.answers.update(
            {"zfs list": [(1, "cannot iterate filesystems")]}
        )
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.status == 71
        assert report.problems[0].startswith("the snapshot kta/a@restomic-")
        assert report.problems[0].endswith("or: restomic --sweep -j default")
        assert state.is_unfinished(state.Place("restomic", "default"))
        assert world.said[-2:] == ["zfs destroy", "zfs list"]

    def test_one_that_is_busy_for_a_moment_only(self, world):
        world.answers["zfs destroy"] = [(1, "dataset is busy")]
        report = run(JOB._replace(targets=("kta/a",)), world)
        assert report.problems == []
        assert world.said[-2:] == ["zfs destroy", "zfs destroy"]

    def test_the_directories_go(self, world, places):
        run(ALL, world)
        left = os.listdir(Path(state.RUN_ROOT, "restomic"))
        assert left == ["default.lock"]
