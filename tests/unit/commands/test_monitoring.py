"""What --status and --check print, and how they end."""

import json
import os

import pytest

from kopiatomic import cli
from kopiatomic.errors import EX_NOPERM
from kopiatomic.monitoring import check, status
from kopiatomic.monitoring.check import Observations
from kopiatomic.monitoring.history import JobHistory
from kopiatomic.system.machine import Mount
from unit.monitoring.runs import HOUR, NOW, PLACE, run


@pytest.mark.parametrize(("options", "code"), [([], 71), (["--periodic"], 3)])
def test_a_status_that_could_not_see_all(capfd, monkeypatch, options, code):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    overview = status.Overview("restomic", None, "box", NOW, (), trouble="no zfs")
    monkeypatch.setattr(status, "observe", lambda *_: overview)
    assert cli.main("restomic", ["--status", *options]) == code
    out, err = capfd.readouterr()
    assert "has made no backup" in out
    assert "restomic: no zfs" in (out if options else err)


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--periodic"], 1)])
@pytest.mark.parametrize("full", [[], ["--full"]])
def test_periodic_hears_of_a_status_that_is_not_well(capfd, monkeypatch, options, code, full):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    asked = []
    good = JobHistory(PLACE, (run(HOUR),))
    for history, status_ in ((JobHistory(PLACE, (run(HOUR, "failed"),)), code), (good, 0)):
        overview = status.Overview("restomic", None, "box", NOW, (history,))
        monkeypatch.setattr(status, "observe", lambda *args, o=overview: asked.append(args[4]) or o)
        assert cli.main("restomic", ["--status", *options, *full]) == status_
    assert asked == [bool(full)] * 2


@pytest.mark.parametrize("option", ["--status", "--check"])
def test_root_only(capsys, monkeypatch, option):
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert cli.main("restomic", [option]) == EX_NOPERM
    assert "must be run by root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "options", "status_"),
    [([], [], 0), (["x"], [], 1), (["x"], ["--periodic"], 3), ([], ["--periodic"], 0)],
)
def test_exit_status(capfd, monkeypatch, found, options, status_):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(check, "observe", lambda *_: Observations())
    findings = [check.Finding("stale", None, each, "do it") for each in found]
    monkeypatch.setattr(check, "findings", lambda *_: findings)
    assert cli.main("kopiatomic", ["--check", *options]) == status_
    assert capfd.readouterr().out == ("x\n    do it\n" if found else "")
    assert cli.main("kopiatomic", ["--check", "--json", *options]) == status_
    told = [{"kind": "stale", "job": None, "text": f"{each}; do it"} for each in found]
    assert json.loads(capfd.readouterr().out) == {"findings": told, "notes": []}


@pytest.mark.parametrize(
    ("kind", "watched", "told"),
    [(None, False, False), (None, True, True), ("exposed", False, False), ("stale", False, True)],
)
def test_what_is_no_danger_is_told_to_those_who_watch(capfd, monkeypatch, kind, watched, told):
    """A mail has it only where it may be the reason for what was found."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root = Mount("zroot/ROOT/default", "/", "zfs")
    monkeypatch.setattr(check, "observe", lambda *_: Observations(table=(root,)))
    findings = [check.Finding(kind, None, "x", "do it")] if kind else []
    monkeypatch.setattr(check, "findings", lambda *_: findings)
    monkeypatch.setattr(os, "isatty", lambda _: watched)
    assert cli.main("kopiatomic", ["--check"]) == (1 if kind else 0)
    assert ("boot environment zroot/ROOT/default" in capfd.readouterr().out) is told
