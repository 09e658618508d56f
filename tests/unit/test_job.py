"""What a job is where nothing is said."""

import pytest

from kopiatomic import cli
from kopiatomic.errors import EX_USAGE, Refusal
from kopiatomic.job import Job, split_words


@pytest.mark.parametrize("program", ["kopiatomic", "restomic"])
def test_the_command_line_has_the_same_defaults(program):
    assert cli.job_from(program, [], ["tank"]) == Job(program, targets=("tank",))


def test_nobody_can_change_what_was_asked_for():
    job = Job("restomic", targets=("tank",))
    with pytest.raises(AttributeError):
        job.targets = ("tank", "zroot")


def test_nobody_can_add_to_the_environment_of_all_jobs():
    with pytest.raises(TypeError):
        Job("restomic").environment["A"] = "1"


class TestWords:
    def test_are_split_as_a_shell_does(self):
        assert split_words("--tag 'a b' \"c\"d", "-o") == ("--tag", "a b", "cd")
        assert split_words("", "-o") == ()

    def test_of_a_text_that_cannot_be_split_nothing_is_told(self):
        with pytest.raises(Refusal, match=r"^-o: no closing quotation; mind its quotes$") as caught:
            split_words("--password 'hunter2", "-o")
        assert caught.value.status == EX_USAGE
