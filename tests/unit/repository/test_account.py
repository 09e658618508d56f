"""The account of upkeep and drills, and how it enters the job's history."""

from __future__ import annotations

import json

import pytest

from kopiatomic import state
from kopiatomic.errors import EX_OSERR
from kopiatomic.repository import account as accounts
from kopiatomic.repository import drill, upkeep
from kopiatomic.repository.account import Account, Done


@pytest.fixture
def account():
    return Account("upkeep", "restomic", "default", began=1795410241.25)


def as_it_is(text):
    return text


class TestFail:
    def test_the_first_problem_decides(self, account):
        account.fail("one", 3)
        account.fail("two", 130, "interrupted")
        assert (account.status, account.outcome) == (3, "failed")
        assert account.problems == ["one", "two"]

    def test_an_outcome_of_its_own(self, account):
        account.fail("asked to end", 143, "interrupted")
        assert (account.status, account.outcome) == (143, "interrupted")

    def test_all_is_well_before(self, account):
        assert (account.status, account.outcome, account.problems) == (0, "success", [])


class TestClose:
    def test_enters_it_into_the_history(self, place, account):
        account.steps = [Done("check", "ok", 0, 1.23456), Done("prune")]
        accounts.close(place, account, as_it_is)
        (entry,) = state.read_upkeep(place)
        assert entry == json.loads(json.dumps(accounts.as_dict(account)))
        assert account.ended > account.began

    def test_without_secrets(self, place, account):
        account.fail("cannot open with horse", 1)
        account.notes.append("horse was here")
        accounts.close(place, account, lambda text: text.replace("horse", "[hidden]"))
        told = json.dumps([accounts.as_dict(account), state.read_upkeep(place)])
        assert "horse" not in told
        assert told.count("[hidden]") == 4

    def test_a_history_that_cannot_be_written_is_a_problem(self, place, account, tmp_path):
        (tmp_path / "db").write_text("a file is in the way")
        accounts.close(place, account, as_it_is)
        assert (account.status, account.outcome) == (EX_OSERR, "failed")
        assert account.problems[0].startswith("the history cannot be written: ")

    def test_it_does_not_hide_what_went_wrong_before(self, place, account, tmp_path):
        (tmp_path / "db").write_text("a file is in the way")
        account.fail("one", 3)
        accounts.close(place, account, as_it_is)
        assert (account.status, len(account.problems)) == (3, 2)


def test_as_plain_data(account):
    account.ended = account.began + 61.23456
    account.steps = [Done("check", "failed", -9, 1.23456, "check"), Done("prune")]
    account.fail("check: killed", 137)
    account.notes.append("a note")
    account.said = "what the client printed stays out of the history"
    data = accounts.as_dict(account)
    assert data == {
        "kind": "upkeep", "program": "restomic", "job": "default", "outcome": "failed",
        "status": 137, "began": data["began"], "ended": data["ended"], "seconds": 61.235,
        "waited": 0.0,
        "steps": [
            {"name": "check", "kind": "check", "also": [], "outcome": "failed", "status": -9,
             "seconds": 1.235},
            {"name": "prune", "kind": None, "also": [], "outcome": "not run", "status": None,
             "seconds": 0.0},
        ],
        "problems": ["check: killed"], "notes": ["a note"],
    }  # fmt: skip
    assert account.seconds == pytest.approx(61.23456)


@pytest.mark.parametrize(
    ("made", "as_text"),
    [
        (Account("upkeep", "restomic", "default", 0.0), upkeep.as_text),
        (drill.Drill("drill", "restomic", "default", 0.0), drill.as_text),
    ],
    ids=["upkeep", "drill"],
)
def test_a_wait_is_told(made, as_text):
    assert "waited" not in as_text(made)
    made.waited = 3723.4567
    told = as_text(made).splitlines()[1]
    assert told == "  waited 1 h 2 min for another run of the job to end"
    assert accounts.as_dict(made)["waited"] == 3723.457
