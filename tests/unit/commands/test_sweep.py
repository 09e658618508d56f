"""--sweep -a: what is told of each job, and what ends all of it."""

from __future__ import annotations

import json

import pytest

from kopiatomic import cli, state
from kopiatomic.backup.report import Report
from kopiatomic.commands import common, sweep
from kopiatomic.errors import EX_OSERR, EX_TEMPFAIL, EX_USAGE, Refusal
from kopiatomic.monitoring.leftovers import Leftover
from kopiatomic.state import Place


@pytest.fixture
def jobs(monkeypatch):
    """What comes of each job's sweep: what is removed, or why it is not."""
    jobs: dict[str, object] = {}

    def swept(place, door, wait):
        outcome = jobs[place.job]
        if isinstance(outcome, Refusal):
            raise outcome
        report = Report(place.program, place.job, "", 0.0)
        report.swept = list(outcome)
        return report

    def leftovers(door, thoroughly):
        assert thoroughly
        return [
            *(Leftover(Place("restomic", job), "snapshot", "x") for job in reversed([*jobs])),
            Leftover(Place("kopiatomic", "other"), "snapshot", "x"),
        ]

    monkeypatch.setattr(common, "need_root", lambda job: None)
    monkeypatch.setattr(sweep, "_swept", swept)
    monkeypatch.setattr(sweep, "find_leftovers", leftovers)
    monkeypatch.setattr(sweep, "find_running", lambda program: set())
    monkeypatch.setattr(state, "is_locked", lambda place: False)
    return jobs


def main(*words: str) -> int:
    return cli.main("restomic", ["--sweep", "-a", *words])


def test_what_was_removed_is_told_by_job(jobs, capfd):
    jobs.update({"b": ["snapshot p/b@x"], "a": ["mount /v", "snapshot p/a@x"], "c": []})
    assert main() == 0
    assert capfd.readouterr() == (
        "job a: removed mount /v\njob a: removed snapshot p/a@x\njob b: removed snapshot p/b@x\n",
        "",
    )


def test_nothing(jobs, capfd):
    assert main() == 0
    assert capfd.readouterr() == ("nothing was left behind\n", "")
    assert main("--periodic") == 0
    assert capfd.readouterr() == ("", "")


def test_the_first_that_cannot_be_swept_decides_about_the_status(jobs, capfd):
    jobs.update({"a": Refusal("stuck", EX_TEMPFAIL), "b": ["snapshot s"], "c": Refusal("x", 70)})
    assert main() == EX_TEMPFAIL
    assert capfd.readouterr() == (
        "job b: removed snapshot s\n", "restomic (job a): stuck\nrestomic (job c): x\n"
    )  # fmt: skip
    assert main("--periodic") == 3
    assert capfd.readouterr() == (
        "job b: removed snapshot s\nrestomic (job a): stuck\nrestomic (job c): x\n", ""
    )  # fmt: skip


def test_a_note_of_a_snapshot_that_stays_is_trouble(jobs, capfd, monkeypatch):
    done = Report("restomic", "a", "", 0.0)
    done.notes.append("the snapshot p@x stays")
    monkeypatch.setattr(sweep, "_swept", lambda *words: done)
    jobs["a"] = []
    assert main() == EX_OSERR
    assert capfd.readouterr() == ("", "restomic (job a): the snapshot p@x stays\n")


def test_a_job_that_began_meanwhile_is_passed_over(jobs, capfd, monkeypatch):
    jobs.update({"a": Refusal("still runs", EX_TEMPFAIL), "b": ["snapshot s"]})
    monkeypatch.setattr(state, "is_locked", lambda place: place.job == "a")
    assert main() == 0
    assert capfd.readouterr() == (
        "job b: removed snapshot s\njob a runs now and was passed over\n", ""
    )  # fmt: skip


def test_a_signal_ends_all_of_it(jobs, capfd):
    jobs.update({"a": Refusal("interrupted by SIGTERM", 143), "b": ["snapshot s"]})
    assert main() == 143
    assert capfd.readouterr() == ("", "restomic: interrupted by SIGTERM\n")


def test_as_json(jobs, capfd, monkeypatch):
    running = {"restomic": {Place("restomic", "c")}, "kopiatomic": {Place("kopiatomic", "e")}}
    monkeypatch.setattr(sweep, "find_running", running.__getitem__)
    jobs.update({"a": ["snapshot s"], "b": Refusal("stuck", EX_TEMPFAIL)})
    assert main("--json") == EX_TEMPFAIL
    assert json.loads(capfd.readouterr().out) == {
        "jobs": [{"job": "a", "removed": ["snapshot s"]}],
        "running": ["c"],
        "problems": [{"job": "b", "problem": "stuck"}],
    }


@pytest.mark.parametrize("words", [["-j", "a"], ["tank"], ["-n"]])
def test_what_does_not_go_with_it(jobs, capfd, words):
    assert main(*words) == EX_USAGE
    assert capfd.readouterr().err.count("\n") == 1
