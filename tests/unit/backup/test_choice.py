"""What a job was told to back up goes into the history and comes out again."""

import pytest

from kopiatomic.backup import choice
from kopiatomic.job import Job

JOB = Job(
    "restomic", "home", targets=("zroot/home", "/data", "./here"), recursive=True,
    exclude=("*/cache",), command=("secret",),
)  # fmt: skip


def test_it_comes_out_as_it_went_in_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = {"program": "restomic", "job": "home", "selection": choice.as_dict(JOB)}
    targets = ("zroot/home", "/data", f"{tmp_path}/here")
    assert choice.job_of(entry) == JOB._replace(targets=targets, command=())
    everything = Job("restomic", everything=True, volumes=True)
    assert not {"jailed", "at"} & set(choice.as_dict(everything))
    entry = {"program": "restomic", "job": "default", "selection": choice.as_dict(everything)}
    assert choice.job_of(entry) == everything
    odd = Job("restomic", targets=("t",), jailed=True, at="/mnt")
    entry = {"program": "restomic", "job": "default", "selection": choice.as_dict(odd)}
    assert choice.job_of(entry) == odd


def test_a_pattern_for_snapshots_comes_along_where_there_is_one():
    assert "snapshot" not in choice.as_dict(JOB)
    taking = JOB._replace(snapshot="auto-*", targets=("t",), command=())
    entry = {"program": "restomic", "job": "home", "selection": choice.as_dict(taking)}
    assert choice.job_of(entry) == taking
    entry["selection"]["snapshot"] = 7
    assert choice.job_of(entry).snapshot is None


@pytest.mark.parametrize(
    "selection",
    [None, 7, "x", [], {}, {"targets": "zroot", "exclude": []}, {"targets": ["zroot"]}],
)
def test_an_entry_that_does_not_say_it(selection):
    assert choice.job_of({"selection": selection}) is None
    assert choice.job_of({}) is None
