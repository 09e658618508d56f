"""What was in the last good backup and is not in this one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kopiatomic.backup import missed
from kopiatomic.backup.selection import GONE, INACTIVE, LOCKED, NO_MOUNT_POINT, LeftOut
from kopiatomic.job import Job
from kopiatomic.system.command import CommandFailed


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, int, str]] = []

    def fail(self, *problem) -> None:
        self.problems.append(problem)


def work(captured, monkeypatch, before):
    """Return a run that captures these (dataset, mount point, directories) after another one."""
    rows = [{"dataset": name, "mountpoint": point} for name, point in before]
    monkeypatch.setattr(missed, "last_entry", lambda place: {"captured": rows})
    members = [
        SimpleNamespace(dataset=name, point=point, directories=paths)
        for name, point, paths in captured
    ]
    plan = SimpleNamespace(captured=members, left_out=())
    task = SimpleNamespace(door=None, job=Job("restomic"))
    return SimpleNamespace(plan=plan, place=None, report=Told(), task=task)


BEFORE = [("t", "/t"), ("data", "/t/data")]


@pytest.mark.parametrize("path", ["/t/data", "/t/data/www"])
@pytest.mark.parametrize("away", [True, False])
def test_a_directory_beneath_a_dataset_that_is_away(monkeypatch, path, away):
    run = work([("t", "/t", (path,))], monkeypatch, BEFORE)
    asked = []
    monkeypatch.setattr(missed, "is_away", lambda door, name: asked.append(name) or away)
    missed.miss_replaced(run)
    assert asked == ["data"]
    assert len(run.report.problems) == away
    if away:
        ((text, status, outcome),) = run.report.problems
        assert text.startswith(f"{path} was in the last successful backup as part of data, which")
        assert (status, outcome) == (66, "incomplete")


@pytest.mark.parametrize(
    "captured",
    [
        ("t", "/t", ("/t/etc",)), ("t", "/t", ("/t/data2",)), ("data", "/t/data", ("/t/data/www",)),
        ("data_renamed", "/t/data", ("/t/data/www",)), ("t", "/t", ()),
    ],
)  # fmt: skip
def test_what_lies_where_it_lay_is_not_asked_about(monkeypatch, captured):
    run = work([captured], monkeypatch, BEFORE)
    monkeypatch.setattr(missed, "is_away", lambda *_: pytest.fail("asked"))
    missed.miss_replaced(run)
    assert run.report.problems == []


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"patterns": True}, ["t/home/ben"]), ({"patterns": False}, []),
        ({"patterns": True, "exclude": ("t/home",)}, []),
        ({"patterns": True, "exclude": ("*/ben",)}, []),
        ({"patterns": True, "recursive": True}, []),
    ],
)  # fmt: skip
def test_what_a_pattern_matched_in(monkeypatch, job, told):
    before = [("t", "/t"), ("t/home/ben", "/t/home/ben")]
    run = work([("t", "/t", ("/t/src",))], monkeypatch, before)
    run.task.job = Job("restomic", **job)
    monkeypatch.setattr(missed, "is_away", lambda door, name, mounted: not mounted)
    missed.miss_matched(run)
    assert [text.split(" was in")[0] for text, _, _ in run.report.problems] == told
    assert all(text.endswith("add -x t/home/ben") for text, _, _ in run.report.problems)


def test_one_that_is_mounted_is_not_away(monkeypatch):
    monkeypatch.setattr(missed.zfs, "pools", lambda door: {"t": None})
    found = [SimpleNamespace(mounted=True)]
    monkeypatch.setattr(missed.zfs, "list_datasets", lambda door, names: found)
    assert missed.is_away(None, "t/x")
    assert not missed.is_away(None, "t/x", mounted=False)
    found[0].mounted = False
    assert missed.is_away(None, "t/x", mounted=False)


def test_a_dataset_is_away_unless_it_was_destroyed(monkeypatch):
    def listed(door, names):
        if names != ["t/there"]:
            reason = "cannot open" if names == ["t/odd"] else "dataset does not exist"
            raise CommandFailed(["zfs", "list"], reason)
        return names

    monkeypatch.setattr(missed.zfs, "pools", lambda door: {"t": None})
    monkeypatch.setattr(missed.zfs, "list_datasets", listed)
    away = {name: missed.is_away(None, name) for name in ("t/there", "t/gone", "t/odd", "u/x")}
    assert away == {"t/there": True, "t/gone": False, "t/odd": True, "u/x": True}


@pytest.mark.parametrize("snapshot", [None, "auto-*"])
def test_a_path_that_is_gone(monkeypatch, snapshot):
    """Of existing snapshots that is told where they are taken."""
    run = work([], monkeypatch, BEFORE)
    run.task.job = Job("restomic", snapshot=snapshot)
    run.plan.left_out = (LeftOut("/t/x", "it does not exist", GONE, missed=True, named=True),)
    missed.miss_named(run)
    assert run.report.problems == ([] if snapshot else [
        ("/t/x is not in this backup: it does not exist", 66, "incomplete")
    ])  # fmt: skip


@pytest.mark.parametrize(("kind", "advice"), [
    (LOCKED, "; load it: zfs load-key 'data x'"),
    (INACTIVE, "; name /, which is always the one in use"),
])  # fmt: skip
def test_a_dataset_that_was_named_and_cannot_be_captured(monkeypatch, kind, advice):
    run = work([], monkeypatch, [("data x", "/t/data")])
    run.plan.left_out = (LeftOut("data x", "why", kind, missed=True, named=True),)
    missed.miss_named(run)
    text = f"data x is not in this backup: why{advice}"
    assert run.report.problems == [(text, 66, "incomplete")]


@pytest.mark.parametrize("before", [True, False])
def test_one_that_may_be_named_for_others_counts_if_it_was_there(monkeypatch, before):
    run = work([], monkeypatch, BEFORE if before else [])
    run.plan.left_out = (LeftOut("data", "why", NO_MOUNT_POINT, named=True),)
    missed.miss_named(run)
    assert len(run.report.problems) == before


@pytest.mark.parametrize(
    ("lost", "moved", "told"),
    [
        ("t/gone", [], None), ("t/gone", ["t/new"], "t/gone"), ("t/shown", ["t/new"], None),
        ("t/gone t/shown", ["t/new"], None), ("t/gone t/shown", ["t/x", "t/y"], "t/gone"),
        ("t/gone t/other", ["t/new"], "t/gone, t/other"),
    ],
)  # fmt: skip
def test_what_was_renamed_before_it_was_shown(monkeypatch, lost, moved, told):
    run = work([], monkeypatch, BEFORE)
    run.plan.members = [SimpleNamespace(dataset="t/shown")]
    missed.miss_renamed(run, [f"{each}@s" for each in lost.split()], moved)
    problems = run.report.problems
    assert len(problems) == (told is not None)
    if told:
        ((text, status, outcome),) = problems
        assert text.startswith(f"{told}: not in this backup, as a dataset was renamed")
        assert (status, outcome) == (73, "incomplete")
