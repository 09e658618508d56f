"""The commands about snapshots: what is checked before, what is shown after, the exit status."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from kopiatomic import cli, state
from kopiatomic.backup import routine
from kopiatomic.backup.report import Report
from kopiatomic.commands import backup, common
from kopiatomic.errors import (
    EX_NOINPUT,
    EX_NOPERM,
    EX_OSERR,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    PERIODIC_INFORMATION,
    PERIODIC_TROUBLE,
    Refusal,
)
from kopiatomic.job import Job
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from unit.drills import place

__all__ = ["place"]

JOB = Job("restomic", targets=("tank",), command=("/bin/sh",), plain=True)


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.setattr(common, "need_root", lambda job: None)


class Runs:
    """Stands in for the routine: what it was given, and what comes of it."""

    def __init__(self):
        self.tasks = []
        self.streams = []
        self.report = Report("restomic", "default", "r", 0.0)

    def __call__(self, task, streams):
        self.tasks.append(task)
        self.streams.append(streams)
        return self.report


@pytest.fixture
def runs(monkeypatch):
    made = Runs()
    monkeypatch.setattr(routine, "run", made)
    return made


class TestBackUp:
    def test_a_person_reads_the_report(self, runs, capfd):
        assert backup.back_up(JOB, Door(), {}) == 0
        out, err = capfd.readouterr()
        assert out.startswith("\nrestomic: the backup succeeded, ")
        assert err == ""

    def test_a_program_reads_json(self, runs, capfd):
        assert backup.back_up(JOB, Door(), {"--json": ""}) == 0
        assert json.loads(capfd.readouterr().out)["outcome"] == "success"
        assert runs.streams[0].output == 2

    def test_what_went_wrong_is_told_with_the_runs_status(self, runs, capfd):
        runs.report.fail("no snapshot of tank", 73)
        assert backup.back_up(JOB, Door(), {}) == 73
        out, err = capfd.readouterr()
        assert "the backup FAILED" in out
        assert err == "restomic: no snapshot of tank\n"

    @pytest.mark.parametrize(
        ("notes", "problems", "status"),
        [
            ([], [], 0), (["a note"], [], PERIODIC_INFORMATION),
            (["a note"], ["no"], PERIODIC_TROUBLE), ([], ["no"], PERIODIC_TROUBLE),
        ],
    )  # fmt: skip
    def test_periodics_statuses(self, runs, capfd, notes, problems, status):
        runs.report.notes += notes
        for problem in problems:
            runs.report.fail(problem, 73)
        assert backup.back_up(JOB, Door(), {"--periodic": ""}) == status
        out, err = capfd.readouterr()
        assert "restomic: the backup" in out
        assert err == ""

    def test_the_run_gets_real_paths(self, runs, tmp_path):
        (tmp_path / "link").symlink_to("/etc")
        link = f"{tmp_path}/link"
        job = replace(JOB, targets=(link, "tank"), live=(link,))
        backup.back_up(job, Door(), {})
        etc = os.path.realpath("/etc")
        assert (runs.tasks[0].job.targets, runs.tasks[0].job.live) == ((etc, "tank"), (etc,))

    @pytest.mark.parametrize(
        ("change", "status", "says"),
        [
            ({"targets": ("/no/such",)}, EX_NOINPUT, "'/no/such' does not exist"),
            ({"live": ("/no/such",)}, EX_NOINPUT, "no such directory"),
            ({"before": "/no/hook x"}, EX_UNAVAILABLE, "of -p cannot be run: /no/hook"),
            ({"after": "/no/hook"}, EX_UNAVAILABLE, "of -q cannot be run: /no/hook"),
            ({"command": ("/no/client",)}, EX_UNAVAILABLE, "is not installed"),
        ],
    )
    def test_what_the_user_has_to_mend_is_refused_before_the_run(
        self, runs, change, status, says
    ):
        with pytest.raises(Refusal, match=says) as caught:
            backup.back_up(replace(JOB, **change), Door(), {})
        assert caught.value.status == status
        assert runs.tasks == []

    def test_needs_root(self, runs, monkeypatch):
        def refuse(job):
            raise Refusal("by root", EX_NOPERM)

        monkeypatch.setattr(common, "need_root", refuse)
        with pytest.raises(Refusal):
            backup.back_up(JOB, Door(), {})
        assert runs.tasks == []


@pytest.fixture
def _machine(fp):
    """A machine with tank on /tank."""
    mounted = [
        {"special": "/dev/ada0", "node": "/", "fstype": "ufs", "opts": ["local"]},
        {"special": "tank", "node": "/tank", "fstype": "zfs", "opts": ["local"]},
    ]
    table = json.dumps({"mount": {"mounted": mounted}})
    fp.register(["zfs", "list", fp.any()], stdout="tank\tfilesystem\tyes\ton\toff\t-\t-\n")
    fp.register(["mount", "-v", "--libxo", "json"], stdout=table)


@pytest.mark.usefixtures("_machine")
class TestDryRun:
    WORDS = ("-n", "-c", "/bin/sh backup", "-o", "--password=battery", "tank")

    @pytest.fixture(autouse=True)
    def _anyone(self, monkeypatch):
        """No rights are needed."""
        monkeypatch.setattr(common, "need_root", None)

    def test_tells_what_would_be_done_without_secrets(self, capfd, fp):
        assert cli.main("restomic", list(self.WORDS)) == 0
        out, err = capfd.readouterr()
        assert "zfs snapshot -o org.kopiatomic:run=restomic:default:" in out
        assert "/bin/sh backup --time TIME-OF-SNAPSHOT --password=[hidden] /tank\n" in out
        assert "battery" not in out + err
        assert [call[0] for call in fp.calls] == ["zfs", "mount"]

    def test_in_json(self, capfd):
        assert cli.main("restomic", ["--json", *self.WORDS]) == 0
        plan = json.loads(capfd.readouterr().out)
        assert plan["captured"] == [{"dataset": "tank", "mountpoint": "/tank"}]
        assert plan["client"][-2:] == ["--password=[hidden]", "/tank"]

    def test_a_note_about_the_env_file_is_in_the_plan(self, capfd, monkeypatch):
        monkeypatch.setattr(common.os, "geteuid", lambda: 1001)
        assert cli.main("restomic", ["-e", "/no/such.env", *self.WORDS]) == 0
        assert "/no/such.env is not read, which root will do" in capfd.readouterr().out

    def test_hooks_are_looked_at_as_before_a_run(self, capfd, fp):
        assert cli.main("restomic", ["-p", "/no/hook", *self.WORDS]) == EX_UNAVAILABLE
        assert capfd.readouterr().err == (
            "restomic: the command of -p cannot be run: /no/hook does not exist\n"
        )


class TestSweep:
    @pytest.fixture
    def swept(self, place, monkeypatch):
        """Let sweeping find what the test says; returns the report that it fills in."""
        found = Report("restomic", "default", "", 0.0)

        def sweep(where, door, report, thoroughly):
            assert (where, thoroughly) == (Place("restomic", "default"), True)
            assert state.is_locked(where)
            report.swept += found.swept
            report.notes += found.notes

        monkeypatch.setattr(routine, "sweep", sweep)
        return found

    def test_nothing_was_there(self, swept, capfd):
        assert backup.sweep(JOB, Door(), {}) == 0
        assert capfd.readouterr() == ("nothing was left behind\n", "")

    def test_what_was_removed(self, swept, capfd):
        swept.swept += ["mount /v", "snapshot tank@x"]
        assert backup.sweep(JOB, Door(), {}) == 0
        assert capfd.readouterr().out == "removed mount /v\nremoved snapshot tank@x\n"
        assert backup.sweep(JOB, Door(), {"--json": ""}) == 0
        assert json.loads(capfd.readouterr().out) == {
            "removed": ["mount /v", "snapshot tank@x"], "notes": [],
        }  # fmt: skip

    def test_what_stays_is_trouble(self, swept, capfd):
        swept.notes += ["the snapshot tank@x stays"]
        assert backup.sweep(JOB, Door(), {}) == EX_OSERR
        out, err = capfd.readouterr()
        assert (out, err) == ("nothing was left behind\n", "restomic: the snapshot tank@x stays\n")
        assert backup.sweep(JOB, Door(), {"--periodic": ""}) == PERIODIC_TROUBLE
        out, err = capfd.readouterr()
        assert "restomic: the snapshot tank@x stays\n" in out
        assert err == ""

    def test_not_while_the_job_runs(self, swept, place):
        with state.lock(place), pytest.raises(Refusal) as caught:
            backup.sweep(JOB, Door(), {})
        assert caught.value.status == EX_TEMPFAIL
