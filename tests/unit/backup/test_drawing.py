"""Drawing the plan: one look at the machine, and again with less."""

from __future__ import annotations

import pytest
from support.datasets import NAMES
from support.libc import Library, mounted

from kopiatomic.backup.drawing import draw
from kopiatomic.clients import make_ready
from kopiatomic.clients.base import Client, Task
from kopiatomic.errors import EX_CONFIG, EX_OSERR, Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door
from kopiatomic.system.machine import Mount

ROOT = Mount("/dev/vtbd0", "/", "ufs")


def listing(*names: str) -> str:
    """Return zfs(8)'s list of mounted file systems."""
    return "".join(f"{name}\tfilesystem\tyes\ton\toff\t-\t/x\t-\n" for name in names)


@pytest.fixture(autouse=True)
def _client(monkeypatch) -> None:
    monkeypatch.setattr(Client, "program", lambda self, job: "/usr/local/bin/restic")


def task_of(job: Job, library: Library) -> Task:
    """Return a job made ready for somebody whose home is /root."""
    return make_ready(job, Door(kernel=library.kernel()), {"HOME": "/root"})


@pytest.fixture
def machine(library, fp) -> Library:
    """A machine with t on /t, t/a on /t/a, u on /u."""
    fp.keep_last_process(True)
    fp.register(["zfs", "list", fp.any()], stdout=listing("t", "t/a", "u"))
    library.table = [mounted(b"/dev/vtbd0", b"/", b"ufs", (1, 1))]
    for number, name in enumerate((b"t", b"t/a", b"u")):
        library.table.append(mounted(name, b"/" + name, b"zfs", (number, 41)))
    return library


def test_one_list_and_one_look_at_the_mount_table(machine, fp, monkeypatch):
    drawing = draw(task_of(Job("restomic", everything=True), machine), NAMES)
    assert [each.dataset for each in drawing.plan.captured] == ["t", "t/a", "u"]
    assert len(fp.calls) == 1
    # Not even that, where somebody has looked already.
    monkeypatch.setattr(machine, "getfsstat", lambda *_: pytest.fail("looked"))
    table = [ROOT, Mount("t", "/t", "zfs")]
    drawing = draw(task_of(Job("restomic", targets=("t",)), machine), NAMES, table)
    assert drawing.plan.paths == ("/t",)


def test_again_without_some(machine):
    drawing = draw(task_of(Job("restomic", everything=True), machine), NAMES)
    less = drawing.without({"t": "gone"})
    assert [each.dataset for each in less.plan.captured] == ["t/a", "u"]
    assert less.without({"u": "gone"}).plan.paths == ("/t/a",)
    assert [each.name for each in less.plan.left_out] == ["t"]
    with pytest.raises(Refusal, match="no selected dataset"):
        less.without({"u": "gone", "t/a": "gone"})


def test_again_with_some_that_stand_still(machine):
    drawing = draw(task_of(Job("restomic", everything=True), machine), NAMES)
    still = drawing.standing_still(["u"])
    assert [name.partition("@")[0] for name in still.plan.snapshots] == ["t", "t/a"]
    assert still.without({"t": "gone"}).plan.captured[-1].still


def test_what_cannot_be_seen(machine, fp):
    machine.refusals["getfsstat"] = [14]
    with pytest.raises(Refusal, match="cannot see what there is to back up: getfsstat") as caught:
        draw(task_of(Job("restomic", everything=True), machine), NAMES)
    assert caught.value.status == EX_OSERR


def test_a_client_that_stays_on_a_file_system_gets_every_mount_point(machine, monkeypatch):
    job = Job("restomic", everything=True)
    assert draw(task_of(job, machine), NAMES).plan.paths == ("/t", "/u")
    task = task_of(job, machine)
    monkeypatch.setattr(type(task.client), "one_file_system", lambda self, job, script: True)
    assert draw(task, NAMES).plan.paths == ("/t", "/t/a", "/u")


def test_more_paths_than_a_command_line_takes_are_refused_beforehand(fp, library):
    """Where a chosen dataset is mounted above them, they are one path."""
    names = ["t", *(f"t/{number:04}{'x' * 90}" for number in range(4000))]
    fp.register(["zfs", "list", fp.any()], stdout=listing(*names), occurrences=2)
    above, *below = (Mount(name, f"/{name}", "zfs") for name in names)
    task = task_of(Job("restomic", everything=True), library)
    with pytest.raises(Refusal, match="cannot be given 4000 paths") as caught:
        draw(task, NAMES, [ROOT, *below])
    assert caught.value.status == EX_CONFIG
    assert draw(task, NAMES, [ROOT, above, *below]).plan.paths == ("/t",)
