"""The client runs of a backup, and the accounts of them."""

import pytest

from kopiatomic.backup.client_runs import VOLUME, Called, ClientRun, Try


@pytest.mark.parametrize(
    ("run", "repository", "name"),
    [
        (ClientRun(), "", "files"),
        (ClientRun(), "away.env", "files to away.env"),
        (ClientRun(VOLUME, "tank/vm"), "", "tank/vm"),
        (ClientRun(VOLUME, "tank/vm", 1), "away.env", "tank/vm to away.env"),
    ],
)
def test_its_name_says_what_and_where_to(run, repository, name):
    assert Called(run, repository).name == name


@pytest.mark.parametrize(
    ("status", "saved", "lacking", "outcome"),
    [
        (None, False, False, "not run"),
        (None, False, True, "not run"),
        (0, False, False, "failed"),
        (0, True, False, "success"),
        (3, True, True, "incomplete"),
        (1, False, True, "failed"),
    ],
)
def test_its_outcome(status, saved, lacking, outcome):
    called = Called(ClientRun())
    called.status, called.saved, called.lacking = status, saved, lacking
    assert called.outcome == outcome


def test_secrets_are_taken_out_of_all_that_came_from_outside():
    called = Called(ClientRun())
    called.words, called.complaints = ["restic", "s3cret"], "s3cret is wrong"
    called.tries = [Try(1, 2.0, "s3cret")]
    called.conceal(lambda text: text.replace("s3cret", "[hidden]"))
    assert called.words == ["restic", "[hidden]"]
    assert called.complaints == "[hidden] is wrong"
    assert called.tries[0].reason == "[hidden]"
