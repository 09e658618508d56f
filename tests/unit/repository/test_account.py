"""The account of what is done between backups."""

from __future__ import annotations

import os

import pytest

from kopiatomic import state
from kopiatomic.errors import EX_OSERR
from kopiatomic.repository import account as accounts
from kopiatomic.repository.account import Account, Done


@pytest.fixture(autouse=True)
def _ours(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid)


def test_the_first_problem_decides():
    account = Account("upkeep", "restomic", "default", 0.0)
    account.fail("locked", 11)
    account.fail("busy", 71, "trouble")
    assert (account.outcome, account.status) == ("failed", 11)
    assert account.problems == ["locked", "busy"]


def test_it_is_entered_into_the_history_without_secrets(place):
    account = Account("drill", "restomic", "default", 0.0, notes=["with hunter2"])
    account.steps.append(Done("check", "ok", 0, 1.23456))
    account.fail("no hunter2", 1)
    accounts.close(place, account, lambda text: text.replace("hunter2", "*"))
    (entry,) = state.read_upkeep(place)
    assert entry == accounts.as_dict(account)
    assert (entry["kind"], entry["status"]) == ("drill", 1)
    assert (entry["notes"], entry["problems"]) == (["with *"], ["no *"])
    assert entry["steps"] == [{"name": "check", "outcome": "ok", "status": 0, "seconds": 1.235}]
    assert entry["seconds"] == round(account.seconds, 3) > 0


def test_a_history_that_cannot_be_written_is_a_problem(place, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "remember_upkeep", refuse)
    account = Account("upkeep", "restomic", "default", 0.0)
    accounts.close(place, account, str)
    assert (account.outcome, account.status) == ("failed", EX_OSERR)
    assert "the history cannot be written: " in account.problems[0]
