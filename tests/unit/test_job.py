"""What a job is where nothing is said."""

import pytest

from kopiatomic import cli
from kopiatomic.errors import EX_USAGE, Refusal
from kopiatomic.job import Job, retries_of, seconds_of, split_words


@pytest.mark.parametrize("program", ["kopiatomic", "restomic"])
def test_the_command_line_has_the_same_defaults(program):
    # Only the layout comes along because somebody has started the program.
    expected = Job(program, targets=("tank",), layout=True)
    assert cli.job_from(program, [], ["tank"]) == expected


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


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("30s", 30), ("5m", 300), ("2h", 7200)]
)
def test_times(text, seconds):
    assert seconds_of(text, "--wait") == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5h", "1d", "soon"])
def test_times_that_are_none(text):
    with pytest.raises(Refusal, match=f"^--retry-pause {text}: a time is wanted"):
        seconds_of(text, "--retry-pause")


def test_how_often():
    assert [retries_of(each) for each in ("0", "12", "999")] == [0, 12, 999]
    for text in ("", "-1", "1000", "x", "1.5"):
        with pytest.raises(Refusal, match=f"^--retries {text}: a whole number"):
            retries_of(text)
