"""The commands for snapshots, from the command line to what is shown and the exit status."""

from __future__ import annotations

import json
import os

import pytest
from support.datasets import plan_for, simple

from kopiatomic import cli
from kopiatomic.backup import jail, routine
from kopiatomic.backup.client_runs import Called, ClientRun
from kopiatomic.backup.drawing import Drawing
from kopiatomic.backup.report import Report
from kopiatomic.commands import backup
from kopiatomic.errors import EX_NOPERM, EX_OSERR, EX_UNAVAILABLE

WORDS = ["-c", "/bin/sh backup", "tank"]


def done(*problems: str) -> Report:
    """Return the report of a run with these problems."""
    made = Report("restomic", "default", "restomic:default:1", 100.0)
    made.ended, made.plan, made.captured_at = 162.0, plan_for(simple(), "tank"), {"tank": 110.0}
    called = Called(ClientRun())
    made.runs, called.words, called.status = [called], ["/bin/sh"], 0
    for problem in problems:
        made.fail(problem, 73)
    return made


@pytest.fixture
def root(monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


class TestBackUp:
    @pytest.fixture(autouse=True)
    def _as_root(self, root):
        pass

    @pytest.mark.parametrize("problems", [(), ("no space",)])
    def test_for_a_person(self, monkeypatch, capfd, problems):
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: done(*problems))
        assert cli.main("restomic", WORDS) == (73 if problems else 0)
        out, err = capfd.readouterr()
        assert out.startswith("\nrestomic: the backup ")
        assert err == "".join(f"restomic: {problem}\n" for problem in problems)

    def test_for_a_program(self, monkeypatch, capfd):
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: done("no space"))
        assert cli.main("restomic", ["--json", *WORDS]) == 73
        assert json.loads(capfd.readouterr().out)["problems"] == ["no space"]

    @pytest.mark.parametrize(
        ("problems", "notes", "status"), [((), [], 0), ((), ["n"], 1), (("no space",), [], 3)]
    )
    def test_for_the_mail(self, monkeypatch, capfd, problems, notes, status):
        made = done(*problems)
        made.notes += notes
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: made)
        assert cli.main("restomic", ["--periodic", *WORDS]) == status
        assert "restomic: the backup " in capfd.readouterr().out

    def test_a_hook_that_is_not_there_is_refused_before_the_run(self, monkeypatch, capfd):
        monkeypatch.setattr(routine, "run", lambda task, streams, wait: pytest.fail("ran"))
        assert cli.main("restomic", ["-q", "/no/such", *WORDS]) == EX_UNAVAILABLE
        assert "command of -q" in capfd.readouterr().err


class TestDryRun:
    @pytest.fixture(autouse=True)
    def _machine(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
        monkeypatch.setattr(
            backup, "draw", lambda task, names: Drawing(None, None, plan_for(simple(), "tank"))
        )

    @pytest.mark.parametrize(("more", "told"), [((), True), (("--no-layout",), False)])
    def test_the_layout_is_told_where_it_comes_along(self, capfd, more, told):
        cli.main("restomic", ["-n", *more, *WORDS])
        said = capfd.readouterr().out
        assert ("layout of the pools would be saved too if it has changed" in said) is told
        assert ("restomic.default.layout" in said) is told

    @pytest.mark.parametrize(
        ("more", "terminal", "json"),
        [((), False, True), ((), True, False), (("--retries", "1"), True, True)],
    )
    def test_kopia_is_told_what_it_would_be_told(self, capfd, monkeypatch, more, terminal, json):
        """It prints JSON where we read it; of a layout we do not."""
        monkeypatch.setattr("kopiatomic.commands.common.on_terminal", lambda: terminal)
        words = ["-n", *more, "-c", "/bin/sh snapshot create", "tank"]
        assert cli.main("kopiatomic", words) == 0
        said = capfd.readouterr().out.splitlines()
        (files,) = [each for each in said if " chroot " in each]
        (layout,) = [each for each in said if "layout of the pools" in each]
        assert ("--json" in files) is json
        assert "--json" not in layout

    def test_for_a_person_who_need_not_be_root(self, capfd):
        assert cli.main("restomic", ["-n", *WORDS]) == 0
        out = capfd.readouterr().out
        assert out.startswith("Would capture:\n  tank  /data\n")
        assert "/bin/sh backup" in out

    def test_for_a_program(self, capfd):
        assert cli.main("restomic", ["-n", "--json", *WORDS]) == 0
        data = json.loads(capfd.readouterr().out)
        assert data["captured"] == [{"dataset": "tank", "mountpoint": "/data"}]
        assert data["not_in_view"] == ["/home", "/home/ben"]

    def test_what_the_client_would_be_told_holds_no_secret(self, capfd):
        words = ["-n", "-c", "/bin/sh backup --password-command 'echo hunter22'", "tank"]
        cli.main("restomic", [*words, "-o", "--password=battery22"])
        assert "battery22" not in capfd.readouterr().out

    def test_what_cannot_be_read_is_a_note(self, capfd, tmp_path):
        path = str(tmp_path / "none")
        assert cli.main("restomic", ["-n", "-e", path, *WORDS]) == 0
        assert f"{path} is not read, which root will do" in capfd.readouterr().out


class TestSweep:
    @pytest.fixture
    def left(self, monkeypatch, places, root):
        """Let a sweep find things; return the report's lists to say which."""
        found = {"swept": [], "notes": []}

        def sweep(place, door, report, thoroughly=False):
            assert thoroughly
            report.swept += found["swept"]
            report.notes += found["notes"]

        # The directories of a test are whose it is.
        monkeypatch.setattr(os, "geteuid", lambda: os.stat(places).st_uid)
        monkeypatch.setattr("kopiatomic.commands.common.need_root", lambda job: None)
        monkeypatch.setattr(routine, "sweep", sweep)
        return found

    def test_nothing(self, left, capfd):
        assert cli.main("restomic", ["--sweep"]) == 0
        assert capfd.readouterr().out == "nothing was left behind\n"

    def test_what_was_removed_and_what_stays(self, left, capfd):
        left.update(swept=["mount /v", "snapshot t@s"], notes=["the snapshot t@x stays"])
        assert cli.main("restomic", ["--sweep"]) == EX_OSERR
        out, err = capfd.readouterr()
        assert out == "removed mount /v\nremoved snapshot t@s\n"
        assert err == "restomic: the snapshot t@x stays\n"

    def test_for_a_program(self, left, capfd):
        left.update(swept=["mount /v"])
        assert cli.main("restomic", ["--sweep", "--json"]) == 0
        assert json.loads(capfd.readouterr().out) == {"removed": ["mount /v"], "notes": []}

    def test_for_the_mail(self, left, capfd):
        left.update(notes=["the snapshot t@x stays"])
        assert cli.main("restomic", ["--sweep", "--periodic"]) == 3
        assert "restomic: the snapshot t@x stays\n" in capfd.readouterr().out


@pytest.mark.parametrize("words", [["tank"], ["--sweep"]])
def test_nobody_but_root(monkeypatch, capsys, words):
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(jail, "entered", lambda door: pytest.fail("went on"))
    assert cli.main("restomic", words) == EX_NOPERM
    assert "must be run by root" in capsys.readouterr().err
