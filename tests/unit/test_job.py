"""What a job is where nothing is said."""

from dataclasses import FrozenInstanceError

import pytest

from kopiatomic import cli
from kopiatomic.job import Job


@pytest.mark.parametrize("program", ["kopiatomic", "restomic"])
def test_the_command_line_has_the_same_defaults(program):
    assert cli.job_from(program, [], ["tank"]) == Job(program, targets=("tank",))


def test_nobody_can_change_what_was_asked_for():
    job = Job("restomic", targets=("tank",))
    with pytest.raises(FrozenInstanceError):
        job.targets = ("tank", "zroot")


def test_jobs_share_no_environment():
    assert Job("restomic").environment is not Job("restomic").environment
