"""The routine's commands, in their order, with nothing behind them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from dataclasses import replace

import pytest

from kopiatomic import state
from kopiatomic.backup import routine, view
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.clients import make_ready
from kopiatomic.clients.base import Client, Task
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system import process
from kopiatomic.system.command import Door
from kopiatomic.system.machine import Mount
from kopiatomic.system.process import Ended, Streams
from unit.machines import NAMES

LIST = (
    "kta/a\tfilesystem\tyes\ton\toff\t-\t-\n"
    "kta/b\tfilesystem\tyes\ton\toff\t-\t-\n"
    "ktb\tfilesystem\tyes\ton\toff\t-\t-\n"
)
MOUNTED = [
    ("/dev/vtbd0", "/", "ufs"), ("devfs", "/dev", "devfs"),
    ("kta/a", "/a", "zfs"), ("kta/b", "/b", "zfs"), ("ktb", "/c", "zfs"),
]  # fmt: skip

LOOK = "mount -v --libxo json"


def table(*points: str) -> str:
    """Return the machine's mount table with nullfs mounts on these points."""
    mounted = [*MOUNTED, *(("/x", point, "nullfs") for point in points)]
    entries = [{"special": s, "node": n, "fstype": t, "opts": ["local"]} for s, n, t in mounted]
    return json.dumps({"mount": {"mounted": entries}})


@pytest.fixture
def world(fp, tmp_path, monkeypatch):
    """A machine that consists of answers; returns the list of what was run by the user."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
    monkeypatch.setattr(Client, "program", lambda self, job: "/usr/local/bin/restic")
    started, looks = [], itertools.count()

    def fake(door, argv, environment, signals, streams):
        started.append(list(argv))
        fp.calls.append(list(argv))
        return Ended(0, 0.1)

    monkeypatch.setattr(process, "run", fake)
    # Every look finds something else, as if each mount had been made.
    look = contextlib.nullcontext((".", lambda: next(looks)))
    monkeypatch.setattr(view, "way_to", lambda path: [])
    monkeypatch.setattr(view, "standing_in", lambda path: look)
    fp.keep_last_process(True)
    fp.register(["sysctl", fp.any()], stdout="0\n")
    fp.register(["zfs", "list", fp.any()], stdout=LIST)
    fp.register(LOOK, stdout=table())
    fp.register(["mount_nullfs", fp.any()])
    fp.register(["umount", fp.any()])
    fp.register(["restic", fp.any()], stdout="[]")
    return started


def run(job: Job, **inherited: str) -> Report:
    """Run a job and return the report."""
    return routine.run(ready(job, **inherited), Streams())


def ready(job: Job, **inherited: str) -> Task:
    """Return a job made ready for somebody whose home is /root."""
    return make_ready(job, Door(), {"HOME": "/root", **inherited})


def issued(fp) -> list[str]:
    """Return the commands without what differs in every run, shortened to what tells them apart."""
    lines = []
    for call in fp.calls:
        words = [word.partition("@")[0] for word in call]
        lines.append(" ".join(words[:3] if words[0] != "zfs" else words[:2]))
    return lines


def succeed(fp, *commands: tuple[str, ...]) -> None:
    for command in commands:
        fp.register([*command, fp.any()])


def mounted(fp) -> str:
    """Let the second look at the mount table find the view; return where that is."""
    view = f"{os.path.realpath(state.RUN_ROOT)}/restomic/default/view"
    fp.register(LOOK, stdout=table(view, f"{view}/c", f"{view}/dev"))
    return view


SNAPSHOT, DESTROY, DEVFS = ("zfs", "snapshot"), ("zfs", "destroy"), ("mount", "-t")


def test_order(world, fp):
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    job = Job(
        "restomic", targets=("kta/a", "ktb"), before="freeze", after_snapshot="thaw", after="tell"
    )
    view = mounted(fp)
    report = run(job)
    assert report.problems == []
    assert issued(fp) == [
        "sysctl -n security.jail.jailed",
        "mount -v --libxo",
        "zfs list",
        "/bin/sh -c freeze",
        "zfs snapshot",
        "zfs snapshot",
        "/bin/sh -c thaw",
        f"mount_nullfs / {view}",
        "mount_nullfs -o ro",
        f"mount_nullfs /b {view}/b",
        "mount_nullfs -o ro",
        "mount -t devfs",
        "restic --no-lock snapshots",
        f"chroot {view} restic",
        "mount -v --libxo",
        f"umount {view}/dev {view}/c",
        "zfs destroy",
        "zfs destroy",
        "/bin/sh -c tell",
    ]


def test_a_snapshot_that_fails_is_the_end_of_it(world, fp):
    fp.register(
        ["zfs", "snapshot", fp.any()], returncode=1, stderr="cannot create snapshots : out of space"
    )
    fp.register(
        ["zfs", "destroy", fp.any()], returncode=1, stderr="could not find any snapshots to destroy"
    )
    job = Job("restomic", targets=("kta/a",), before="freeze", after_snapshot="thaw", after="tell")
    report = run(job)
    assert report.status == 73
    assert "out of space" in report.problems[0]
    assert [argv[-1] for argv in world] == ["freeze", "thaw", "tell"]
    assert not [
        line for line in issued(fp) if line.startswith(("mount_nullfs", "umount", "chroot"))
    ]


def test_a_mount_that_fails_takes_down_what_was_made(world, fp):
    succeed(fp, SNAPSHOT, DESTROY)
    fp.register(
        ["mount", "-t", fp.any()], returncode=1, stderr="mount: /dev: Operation not permitted"
    )
    fp.register(["kldstat", fp.any()])
    view = mounted(fp)
    report = run(Job("restomic", targets=("kta/a",)))
    assert report.status == 71
    assert "cannot build the view" in report.problems[0]
    assert world == []
    assert issued(fp)[-2:] == [f"umount {view}/dev {view}/c", "zfs destroy"]


def test_only_snapshots_that_were_made_are_destroyed(world, fp):
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    run(Job("restomic", targets=("kta/a",)))
    made = next(call for call in fp.calls if call[:2] == ["zfs", "snapshot"])
    gone = [call for call in fp.calls if call[:2] == ["zfs", "destroy"]]
    assert [call[2] for call in gone] == made[4:]


def test_the_report_names_the_programs_of_the_hooks(world, fp, tmp_path, monkeypatch):
    """For --check, which looks at who can write them."""
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    hook = tmp_path / "freeze"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o700)
    job = Job("restomic", targets=("kta/a",), before=f"{hook} now", after_snapshot="echo thaw")
    report = run(job)
    assert as_dict(report)["hooks"] == [str(hook)]
    monkeypatch.chdir(tmp_path)
    report = run(replace(job, before="./freeze"))
    assert as_dict(report)["hooks"] == [str(hook)]


@pytest.mark.parametrize(("plain", "told"), [(False, True), (True, False)])
def test_statuses_are_explained_of_the_real_client_only(world, fp, monkeypatch, plain, told):
    """Any other program may mean something else by 11 than that a repository is locked."""
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    monkeypatch.setattr(process, "run", lambda *_: Ended(11, 0.1))
    job = Job("restomic", targets=("kta/a",), command=("restic", "backup"), plain=plain)
    report = run(job)
    assert report.status == 11
    assert ("is locked" in report.problems[0]) is told


def test_a_mount_table_that_cannot_be_read_at_the_end(world, fp, monkeypatch):
    """What may be mounted still is told, and the next run knows that there is something."""
    monkeypatch.setattr(view.time, "sleep", lambda seconds: None)
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    fp.register(LOOK, returncode=1, stderr="mount: no memory")
    report = run(Job("restomic", targets=("kta/a",)))
    assert report.status == 71
    assert "the view may still be mounted: mount -v" in report.problems[0]
    assert report.problems[0].endswith("or: restomic --sweep -j default")
    assert not [line for line in issued(fp) if line.startswith("umount")]
    assert state.is_unfinished(state.Place("restomic", "default"))
    # Once at the beginning, and as often as patience lasts at the end.
    assert issued(fp).count("mount -v --libxo") == 1 + len(view.PATIENCE)


def test_a_snapshot_that_has_gone_elsewhere_is_looked_for_by_its_mark(world, fp):
    """Where that cannot be seen, the note that the run has begun stays for the next one."""
    gone = "cannot open 'kta/a': dataset does not exist"
    succeed(fp, SNAPSHOT, DEVFS)
    fp.register(["zfs", "destroy", fp.any()], returncode=1, stderr=gone)
    fp.register(["zfs", "get", fp.any()], returncode=1, stderr="cannot iterate filesystems")
    report = run(Job("restomic", targets=("kta/a",)))
    assert report.status == 71
    assert report.problems[0].startswith("the snapshot kta/a@restomic-")
    assert report.problems[0].endswith("or: restomic --sweep -j default")
    assert state.is_unfinished(state.Place("restomic", "default"))
    assert issued(fp)[-2:] == ["zfs destroy", "zfs get"]


def test_more_paths_than_a_command_line_takes_are_refused_beforehand(fp, monkeypatch):
    """Where a chosen dataset is mounted above them, they are one path."""
    names = ["t", *(f"t/{number:04}{'x' * 90}" for number in range(4000))]
    listing = "".join(f"{name}\tfilesystem\tyes\ton\toff\t-\t-\n" for name in names)
    fp.register(["zfs", "list", fp.any()], stdout=listing, occurrences=2)
    above, *below = (Mount(name, f"/{name}", "zfs") for name in names)
    root = Mount("/dev/vtbd0", "/", "ufs")
    monkeypatch.setattr(Client, "program", lambda self, job: "/usr/local/bin/restic")
    task = ready(Job("restomic", everything=True))
    with pytest.raises(Refusal, match="cannot be given 4000 paths") as caught:
        routine.draw_plan(task, NAMES, [root, *below])
    assert caught.value.status == 78
    table = [root, above, *below]
    assert routine.draw_plan(task, NAMES, table).paths == ("/t",)


def test_what_the_client_needs_must_be_in_the_view(world, fp, monkeypatch):
    """A repository that cannot be shown is no new one, and nothing is written beside it."""
    succeed(fp, SNAPSHOT, DESTROY, DEVFS)
    nas = [*MOUNTED, ("nas:/b", "/backup", "nfs")]
    monkeypatch.setattr(routine.mounts, "table", lambda door: [
        Mount(*each, local=each[2] != "nfs") for each in nas
    ])  # fmt: skip
    fp.register(["realpath", fp.any()], returncode=1, stderr="realpath: Operation timed out")
    fp.register(["kldstat", fp.any()])
    job = Job("restomic", targets=("kta/a",), options=("-r", "/backup/restic"))
    report = run(job)
    assert report.status == 71
    assert "timed out" in report.problems[0]
    assert world == []
    report = run(replace(job, options=()))
    assert report.status == 0
    assert any("/backup is not in the view" in note for note in report.notes)
