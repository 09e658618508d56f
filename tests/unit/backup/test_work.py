"""What a run has in hand."""

import pytest

from kopiatomic.backup.client_runs import ClientRun
from kopiatomic.backup.names import Names
from kopiatomic.backup.report import Report
from kopiatomic.backup.work import Failed, Work
from kopiatomic.clients.base import Task
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.state import Place
from kopiatomic.system.command import Door
from kopiatomic.system.process import Signals, Streams


def task(repository: str = "", *more: Task) -> Task:
    job = Job("restomic")
    return Task(job, Restic(), Door(), {}, "", str, repository=repository, more=more)


def work(of: Task) -> Work:
    report = Report("restomic", "default", "r", 0.0)
    place = Place("restomic", "default")
    return Work(of, place, Names("", "", ""), Signals(), Streams(), report)


def test_each_client_run_has_the_task_of_its_repository():
    away = task("away.env")
    made = work(task("here.env", away))
    assert made.task_of(ClientRun()) is made.task
    assert made.task_of(ClientRun(repository=1)) is away


def test_there_is_no_plan_before_one_is_drawn():
    with pytest.raises(RuntimeError):
        _ = work(task()).plan


def test_a_failure_has_an_exit_status():
    assert Failed("no room", 73).status == 73
