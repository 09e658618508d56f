"""What entries of a history say of client runs."""

from __future__ import annotations

import pytest

from kopiatomic import client_rows, state


def entry(here: str, away: str, outcome: str = "incomplete", **more: object) -> dict[str, object]:
    rows = [
        {"name": f"files to {name}.env", "kind": "files", "of": None, "repository": f"{name}.env",
         "env_file": f"/{name}.env", "outcome": how, "client": {"seconds": 2.5, "added": 7}}
        for name, how in (("here", here), ("away", away))
    ]  # fmt: skip
    return {"outcome": outcome, "env_file": "/here.env", "client_runs": rows, **more}


GOOD = entry("success", "success", "success")
OLD = {"outcome": "trouble", "env_file": "/here.env", "client": {"added": 3}}


def test_an_entry_from_before_there_could_be_several_has_one():
    (row,) = client_rows.rows_of(OLD)
    assert (row.key, row.is_good, row.added) == (("files", "", "/here.env"), True, 3)


def test_each_is_known_by_its_env_file_whatever_it_is_called():
    here, away = client_rows.rows_of(GOOD)
    assert here.key == client_rows.rows_of(OLD)[0].key
    assert (away.name, away.repository) == ("files to away.env", "away.env")
    assert (away.seconds, away.added) == (2.5, 7)


@pytest.mark.parametrize("odd", [None, 3, [3], [{}], [{"env_file": 5, "client": []}]])
def test_what_makes_no_sense_stops_nothing(odd):
    assert not any(row.is_good for row in client_rows.rows_of({"client_runs": odd}))


def test_the_last_good_one_in_a_repository():
    entries = [entry("success", "failed", n=3), entry("failed", "success", n=2), {**OLD, "n": 1}]
    found = [each["n"] for each in client_rows.good_files(entries, "/here.env")]
    assert found == [3, 1]
    assert [e["n"] for e in client_rows.good_files(entries, "/away.env")] == [2]


def test_one_that_is_good_anywhere():
    entries = [entry("failed", "failed"), entry("success", "failed", n=1), {"outcome": "failed"}]
    assert [each.get("n") for each in client_rows.any_good_files(entries)] == [1]


def test_where_each_was_last_good():
    entries = [GOOD, entry("success", "failed"), entry("failed", "failed")]
    assert client_rows.last_good(entries) == {
        ("files", "", "/here.env"): 1, ("files", "", "/away.env"): 0,
    }  # fmt: skip
    assert client_rows.last_good([GOOD, OLD]) == {}
    assert client_rows.last_good([]) == {}


def test_a_repository_that_is_away_for_long_pushes_out_nothing(place, monkeypatch):
    """A drill there needs to know what the last good backup has captured."""
    monkeypatch.setattr(state, "HISTORY_LENGTH", 3)
    monkeypatch.setattr(state, "HISTORY_BYTES", 1)
    captured = [{"dataset": "t", "mountpoint": "/t"}]
    state.remember(place, {**GOOD, "captured": captured})
    state.remember(place, {**entry("failed", "success"), "captured": captured})
    for _ in range(4):
        state.remember(place, {**entry("success", "failed"), "captured": captured})
    kept = state.read_history(place)
    assert [row.outcome for each in kept for row in client_rows.rows_of(each)][1::2] == [
        "success", "success", "failed", "failed", "failed",
    ]  # fmt: skip
    assert ["captured" in each for each in kept] == [True, True, False, False, True]
