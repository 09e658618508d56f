"""What one run calls its things."""

from __future__ import annotations

import re

from kopiatomic import state
from kopiatomic.backup import names
from kopiatomic.backup.names import Names, job_of, marks_of, name_run
from kopiatomic.state import Place

PLACE = Place("restomic", "home")


def test_all_lies_in_the_jobs_directory():
    names = Names("r", "s", "/var/run/restomic/job")
    assert names.view == "/var/run/restomic/job/view"
    assert names.gaps == "/var/run/restomic/job/gap"
    assert names.temporary == "/var/run/restomic/job/tmp"


def test_the_mark_and_the_snapshot_are_of_one_run(monkeypatch):
    monkeypatch.setattr(state, "RUN_ROOT", "/nonexistent")
    monkeypatch.setattr(names.time, "gmtime", lambda: (2026, 11, 23, 5, 4, 1, 0, 327, 0))
    named = name_run(PLACE)
    found = re.fullmatch(r"restomic:home:([0-9a-f]{12})", named.run)
    assert found
    assert named.snapshot == f"restomic-20261123T050401Z-{found[1]}"
    assert named.directory == "/nonexistent/restomic/home"


def test_no_two_runs_are_called_alike():
    found = {name_run(PLACE)[:2] for _ in range(100)}
    assert len({run for run, _ in found}) == len({snapshot for _, snapshot in found}) == 100


def test_marks_tell_the_job():
    assert name_run(PLACE).run.startswith(marks_of(PLACE))
    assert job_of(name_run(PLACE).run) == ("restomic", "home")


def test_marks_tell_a_jail_from_its_host():
    """Each sees snapshots of the other, and may have a job of the same name."""
    host, jail = name_run(PLACE).run, name_run(PLACE, jailed=True).run
    assert job_of(host, jailed=True) is None
    assert job_of(jail) is None
    assert job_of(jail, jailed=True) == ("restomic", "home")
    assert not jail.startswith(marks_of(PLACE))
    assert not host.startswith(marks_of(PLACE, jailed=True))
    assert jail.startswith(marks_of(PLACE, jailed=True))


def test_a_job_whose_name_begins_alike_has_other_marks():
    assert not name_run(Place("restomic", "home2")).run.startswith(marks_of(PLACE))
    assert not name_run(Place("kopiatomic", "home")).run.startswith(marks_of(PLACE))


def test_what_is_no_mark_of_ours():
    for mark in ("", "-", "restomic", "restomic:home", "a:b:c:d"):
        assert job_of(mark) is None
