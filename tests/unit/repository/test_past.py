"""What histories tell of a job's backups."""

import pytest

from kopiatomic import state
from kopiatomic.clients.base import Task
from kopiatomic.job import Job
from kopiatomic.repository import past
from kopiatomic.state import Place

TASK = Task(Job("restomic"), None, None, {}, "", str)
ENTRY = {
    "began": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:01:00+00:00",
    "paths": ["/home", "/src/x"],
    "captured": [
        {"dataset": "tank/home", "mountpoint": "/home"},
        {"dataset": "tank/src", "mountpoint": "/src"},
    ],
    "client": {"command": ["restic", "backup"], "snapshots": ["ab"]},
}


def test_of_a_run(place):
    state.remember(place, ENTRY)
    (run,) = past.runs_of(place)
    assert (run.job, run.ended - run.began) == ("default", 60)
    assert (run.paths, run.backups) == (("/home", "/src/x"), ("ab",))
    assert run.command == ("restic", "backup")


def test_which_backups_are_whole(place):
    """Those of files; of several repositories, those in the one that is asked about."""
    rows = [
        {"kind": "files", "env_file": file, "outcome": outcome, "backups": [name]}
        for file, outcome, name in (("/a.env", "success", "aa"), ("/b.env", "incomplete", "bb"))
    ]
    rows.append({"kind": "layout", "env_file": "/a.env", "outcome": "success", "backups": ["ll"]})
    state.remember(place, {**ENTRY, "outcome": "success"})
    state.remember(place, {**ENTRY, "outcome": "incomplete"})
    state.remember(place, {**ENTRY, "outcome": "incomplete", "client_runs": rows})
    assert [run.whole for run in past.runs_of(place)] == [("ab",), (), ("aa",)]
    jobs = [Job("restomic", env_files=(f"/{name}.env",)) for name in "ab"]
    tasks = [TASK._replace(job=job, repository=job.env_files[0][1:]) for job in jobs]
    assert [past.runs_of(place, task)[-1].whole for task in tasks] == [("aa",), ()]


@pytest.mark.parametrize(
    ("kind", "meant"), [("locked", ("/src/x",)), ("excluded", ()), ("property", ())]
)
def test_what_was_meant_to_be_in_a_run(place, kind, meant):
    state.remember(place, ENTRY)
    left_out = [{"name": "tank/src", "kind": kind, "reason": "r"}]
    state.remember(place, {**ENTRY, "paths": ["/home"], "left_out": left_out})
    assert past.runs_of(place)[1].meant == meant


def test_volumes_are_told_beside_the_paths(place):
    device = "/dev/zvol/tank/v"
    captured = [{"dataset": "tank/v", "mountpoint": device, "kind": "volume"}]
    runs = [{"kind": "files", "stream": None}, {"kind": "volume", "stream": device}, "odd"]
    state.remember(place, {**ENTRY, "captured": captured, "client_runs": runs})
    left_out = [{"name": "tank/v", "kind": "locked", "reason": "r"}]
    state.remember(place, {**ENTRY, "left_out": left_out})
    first, second = past.runs_of(place)
    assert (first.paths, first.streams) == (("/home", "/src/x"), (device,))
    assert (second.streams, second.meant) == ((), (device,))


def test_a_directory_that_was_not_there_was_meant(place):
    state.remember(place, ENTRY)
    left_out = [{"name": "/src/x", "kind": "lost", "reason": "r"}]
    state.remember(place, {**ENTRY, "paths": ["/home"], "left_out": left_out})
    assert past.runs_of(place)[1].meant == ("/src/x",)


def test_other_jobs_are_told_apart(place):
    state.remember(place, ENTRY)
    state.remember(Place("restomic", "other"), ENTRY)
    state.remember(Place("kopiatomic", "third"), ENTRY)
    found = past.read(place, TASK)
    assert [run.job for run in found.own] == ["default"]
    assert [run.job for run in found.others] == ["other"]


@pytest.mark.parametrize(
    "entry",
    [{}, {"began": "soon"}, {"paths": 5, "client": [], "captured": {}, "left_out": [1]}],
)
def test_a_history_that_makes_no_sense(place, entry):
    state.remember(place, {"began": ENTRY["began"], **entry})
    state.remember(place, ENTRY)
    assert past.runs_of(place)[-1].paths == ("/home", "/src/x")


def test_no_history(place):
    assert past.read(place, TASK) == ((), ())


def test_of_several_repositories_each_has_its_own_backups(place):
    """The ids of one are unknown in another; an older entry is that of its env file."""
    rows = [
        {"env_file": f"/{name}", "client": {"snapshots": [name], "command": ["restic", name]}}
        for name in ("here", "away")
    ]
    state.remember(place, {**ENTRY, "env_file": "/here"})
    state.remember(place, {**ENTRY, "client_runs": rows})

    def made(task):
        return [run.backups for run in past.read(place, task).own]

    job = Job("restomic", env_files=("/here",))
    assert made(TASK._replace(job=job, repository="here")) == [("ab",), ("here",)]
    job = Job("restomic", env_files=("/away",))
    assert made(TASK._replace(job=job, repository="away")) == [("away",)]
    assert made(TASK) == [("ab",), ("here", "away")]
