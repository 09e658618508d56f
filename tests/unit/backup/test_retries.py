"""Whether a client is tried again."""

import os
import signal

import pytest

from kopiatomic.backup import retries
from kopiatomic.backup.client_runs import Called, ClientRun
from kopiatomic.clients.base import Task
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.system.command import Door
from kopiatomic.system.process import Ended, Interrupted, Signals, Streams

AWAY = b"Fatal: unable to open repository: dial tcp 10.0.0.1:22: connect: connection refused\n"


def once_more(called, ended, retries_=2, pause=0.0, plain=False, signals=None):
    job = Job("restomic", retries=retries_, pause=pause, plain=plain)
    task = Task(job, Restic(), Door(), {}, "restic", lambda text: text.replace("10.0.0.1", "[h]"))
    streams = Streams(hide=task.hide)
    return retries.once_more(task, called, signals or Signals(), streams, ended)


@pytest.fixture
def called():
    return Called(ClientRun())


def test_as_often_as_is_asked_for(called, capfd):
    ended = Ended(1, 2.5, messages=AWAY)
    assert [once_more(called, ended) for _ in range(3)] == [True, True, False]
    assert [each.seconds for each in called.tries] == [2.5, 2.5]
    assert "connection refused" in called.tries[0].reason
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("restomic: restic could not reach the repository: Fatal: ")
    assert "[h]:22" in first
    assert first.endswith("; trying again in 0 s (1 of 2)")
    assert second.endswith("(2 of 2)")


@pytest.mark.parametrize(
    ("ended", "changes"),
    [
        (Ended(1, 1, messages=AWAY), {"retries_": 0}),
        (Ended(1, 1, messages=AWAY), {"plain": True}),
        (Ended(0, 1, messages=AWAY), {}),
        (Ended(-15, 1, messages=AWAY), {}),
        (Ended(11, 1, messages=AWAY), {}),
        (Ended(1, 1, messages=b"Fatal: wrong password\n"), {}),
    ],
)
def test_not_otherwise(called, ended, changes):
    assert not once_more(called, ended, **changes)
    assert not called.tries


def test_a_signal_ends_the_pause_and_the_try_is_told(called):
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            once_more(called, Ended(1, 1, messages=AWAY), pause=3600.0, signals=signals)
    assert len(called.tries) == 1
