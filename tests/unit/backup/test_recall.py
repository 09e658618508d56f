"""Whether a repository is asked if it still has the backup that a history names."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from kopiatomic.backup import proof, recall
from kopiatomic.backup.report import Report
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.system.command import Door
from kopiatomic.system.process import Interrupted
from unit.clients.answers import Matching

WORDS = {"restic": ("restic", "backup"), "kopia": ("kopia", "snapshot", "create")}


def entry(*backups: str, files: tuple[str | None, ...] = (None,)) -> dict[str, object]:
    rows = [
        {"name": "files", "kind": "files", "env_file": file, "outcome": "success",
         "backups": list(backups)}
        for file in files
    ]  # fmt: skip
    return {"outcome": "success", "client_runs": rows}


def work_of(client: object, job: Job, *further: SimpleNamespace) -> SimpleNamespace:
    task = SimpleNamespace(
        client=client, job=job, script="", door=Door(), environment={}, repository="",
        env_file=next(iter(job.env_files), None), more=further,
    )  # fmt: skip
    report = Report("restomic", "default", "restomic:default:1", 0.0)
    return SimpleNamespace(task=task, report=report, signals=None)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Answer questions to a repository with what is added to this list, one after the other."""
    answers: list[object] = []
    given = iter(answers)

    class Reader(Matching):
        def __init__(self, *_: object) -> None:
            super().__init__({})

        def whole(self, *words: str) -> bytes:
            answer = next(given)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(proof, "Reader", Reader)
    return answers


def restic(**options: object) -> SimpleNamespace:
    return work_of(Restic(), Job("restomic", command=WORDS["restic"], **options))


def listed(*rows: dict[str, str]) -> bytes:
    return json.dumps(rows).encode()


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([{"id": "abcd1234ff"}], True),
        # Who gives it a tag makes another one of it.
        ([{"id": "beef", "original": "abcd1234ff"}], True),
        ([{"id": "beef"}], False),
        ([], False),
    ],
)
def test_restic_is_asked_once_and_believed(asked, rows, kept):
    work = restic()
    asked.append(listed(*rows))
    assert recall.is_kept(work, entry("abcd1234")) == kept
    (note,) = work.report.notes or [None]
    assert kept or note == (
        "the repository does not have the backup abcd1234 any more, so these snapshots are "
        "backed up again"
    )


@pytest.mark.parametrize(("there", "kept"), [(["a", "b"], True), (["a"], False), ([], False)])
def test_kopia_has_to_have_one_for_each_path(asked, there, kept):
    work = work_of(Kopia(), Job("kopiatomic", command=WORDS["kopia"]))
    asked.append(listed(*({"id": each} for each in there)))
    assert recall.is_kept(work, entry("a", "b")) == kept


def test_where_it_does_not_answer_the_backup_is_made_and_says_more(asked):
    work = restic()
    for _ in range(2):
        asked.append(ClientFailed(1, "restic snapshots: no route to host (exit status 1)"))
        assert not recall.is_kept(work, entry("abcd"))
    assert work.report.notes == [
        "whether the repository still has the backup of them could not be asked: restic "
        "snapshots: no route to host (exit status 1); so these snapshots are backed up again"
    ]


def test_an_answer_that_is_none_is_no_yes(asked):
    asked.append(b"hello")
    assert not recall.is_kept(restic(), entry("abcd"))


def test_a_history_that_does_not_say_is_no_yes(asked):
    assert not recall.is_kept(restic(), entry())
    assert not recall.is_kept(restic(), {"outcome": "success", "client": {}})
    asked.append(listed({"id": "abcd"}))
    assert recall.is_kept(restic(), {"outcome": "success", "client": {"snapshots": ["abcd"]}})


def test_a_signal_ends_the_run_in_its_own_words(asked):
    work = restic()
    asked.append(Interrupted(15))
    assert not recall.is_kept(work, entry("abcd"))
    assert work.report.notes == []


@pytest.mark.parametrize("options", [{"proof": False}, {"plain": True}])
def test_who_wants_no_question_gets_none(asked, options):
    assert recall.is_kept(restic(**options), entry("abcd"))


def test_a_wrapper_that_would_make_a_backup_is_not_asked(asked):
    work = work_of(Restic(), Job("restomic", command=("/w",)))
    work.task.script = "#!/bin/sh\nexec restic backup /home\n"
    assert not recall.is_kept(work, entry("abcd"))
    assert "/w does not pass on" in work.report.notes[0]


def test_each_of_several_repositories_is_asked(asked):
    files = ("/a.env", "/b.env")
    jobs = [Job("restomic", command=WORDS["restic"], env_files=(file,)) for file in files]
    other = work_of(Restic(), jobs[1]).task
    other.repository = "b.env"
    work = work_of(Restic(), jobs[0], other)
    asked += [listed({"id": "abcd"}), listed()]
    assert not recall.is_kept(work, entry("abcd", files=files))
    assert work.report.notes[0].startswith("the repository of b.env does not have the backup abcd")
