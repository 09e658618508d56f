"""What has to be in the backup, and what comes of it if it is not."""

from __future__ import annotations

import os
import socket
import stat

import pytest
from support.datasets import NAMES, plan_for, simple

from kopiatomic.backup import proof
from kopiatomic.backup.client_runs import VOLUME, Called, ClientRun
from kopiatomic.backup.plan import Hold, Plan
from kopiatomic.backup.report import Report
from kopiatomic.backup.selection import Captured
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Figures, Missing, Proof, Request, Streamed
from kopiatomic.errors import EX_DATAERR, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.process import Interrupted, Signals

JOB = Job("restomic", command=("/bin/sample", "backup"))
POINTS = {"/a": True, "/b": True, "/c": False}
ALL = Proof(backups=("1234",), found=tuple(POINTS))


class Sample(Client):
    """A client whose repository answers what it is told to."""

    name, subcommand = "sample", ("backup",)

    def __init__(self, answer: Proof | Exception = ALL, sure: bool = False) -> None:
        self.answer, self.sure = answer, sure
        self.asked: list[tuple[object, ...]] = []

    def wrapper_keeps_words(self, job, script):
        return None

    def proves_itself(self, job, request, figures, output, points, script):
        self.asked.append((request, figures, output, points))
        return self.sure

    def prove(self, reader, job, request, figures, points, since, script):
        self.asked.append((request, figures, points, since, script))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def likely_reason(self, job, script, missing):
        return f"why {missing.point}"

    def keeps(self, mode):
        return not stat.S_ISSOCK(mode)


def proved(client: Client, monkeypatch, plan: Plan | None = None, **changes: object) -> Report:
    """Return the report of a good run after its proof."""
    monkeypatch.setattr(proof, "Reader", lambda *_: None)
    task = Task(JOB, client, Door(), {}, "/bin/sample", str, "script")
    report = Report("restomic", "default", "r", 100.0)
    called = Called(ClientRun(paths=("/a",)))
    report.runs, report.plan = [called], plan
    called.saved, called.began, called.figures = True, 5.0, Figures(files=7)
    called.request = Request(("/a",))
    evidence = proof.Evidence(dict(POINTS), {f"/{name}": f"t/{name}" for name in "abc"})
    evidence.hear(task, called, b"said")
    for name, value in changes.items():
        setattr(evidence if hasattr(evidence, name) else called, name, value)
    proof.prove(task, evidence, called, report, Signals())
    return report


@pytest.mark.parametrize(
    ("job", "wanted"),
    [(Job("restomic"), True), (Job("restomic", proof=False), False),
     (Job("restomic", plain=True), False)],
)  # fmt: skip
def test_whether_it_is_wanted(job, wanted):
    assert proof.is_wanted(job) is wanted


class TestExpecting:
    def test_by_a_look_into_each_snapshot(self, tmp_path, monkeypatch):
        holds = []
        for name in ("full", "hollow", "socket", "gone"):
            (tmp_path / name).mkdir()
            holds.append(Hold(f"t/{name}", f"t/{name}@s", str(tmp_path / name)))
        (tmp_path / "full/file").write_text("x")
        # An address has no room for the whole path, and FreeBSD's mknod(2) makes no socket.
        monkeypatch.chdir(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s")
        os.rmdir(tmp_path / "gone")
        captured = tuple(Captured(hold.dataset, f"/{hold.dataset[2:]}") for hold in holds)
        plan = Plan(NAMES, captured, (), tuple(holds), (), ())
        evidence = proof.expect(plan, Sample())
        # Of what cannot be looked at it is not known that it is empty.
        assert evidence.points == {
            "/full": True, "/hollow": False, "/socket": False, "/gone": True
        }  # fmt: skip
        assert evidence.datasets["/full"] == "t/full"

    def test_of_what_stands_still_the_live_one_is_looked_at(self, tmp_path):
        captured = (Captured("t", str(tmp_path), still=True),)
        plan = Plan(NAMES, captured, (), (), (), ())
        assert proof.expect(plan, Sample()).points == {str(tmp_path): False}

    def test_directories_and_files_of_a_dataset_are_looked_for_one_by_one(self, tmp_path):
        for name in ("etc", "hollow", "etc/nested"):
            (tmp_path / name).mkdir()
        (tmp_path / "file").write_text("x")
        captured = (
            Captured("r", "/", directories=("/etc", "/hollow", "/file")),
            Captured("n", "/etc/nested"),
        )
        holds = (Hold("r", "r@s", str(tmp_path)), Hold("n", "n@s", str(tmp_path / "hollow")))
        evidence = proof.expect(Plan(NAMES, captured, (), holds, (), ()), Sample())
        # What leads to another dataset's mount point says nothing of the directory.
        assert evidence.points == {
            "/etc": False, "/hollow": False, "/file": True, "/etc/nested": False
        }  # fmt: skip
        assert evidence.datasets["/file"] == "r"

    def test_every_captured_dataset_is_there(self):
        plan = plan_for(simple(), everything=True)
        evidence = proof.expect(plan, Sample())
        assert set(evidence.points) == {each.point for each in plan.captured}


class TestProof:
    def test_all_is_there(self, monkeypatch):
        client = Sample()
        report = proved(client, monkeypatch)
        assert (report.outcome, report.runs[0].proof, report.problems) == ("success", (3, 3), [])
        assert client.asked == [
            (Request(("/a",)), Figures(files=7), b"said", POINTS),
            (Request(("/a",)), Figures(files=7), POINTS, 5.0, "script"),
        ]

    def test_the_repository_is_not_asked_what_the_client_has_said(self, monkeypatch):
        client = Sample(AssertionError("asked"), sure=True)
        report = proved(client, monkeypatch)
        assert (report.outcome, report.runs[0].proof) == ("success", (3, 3))

    def test_what_is_missing_is_named_with_the_likely_reason(self, monkeypatch):
        missing = (Missing("/a", empty=False), Missing("/b", empty=True))
        report = proved(Sample(Proof(("1234",), ("/c",), missing)), monkeypatch)
        assert (report.outcome, report.status) == ("incomplete", EX_DATAERR)
        assert report.runs[0].proof == (1, 3)
        assert report.problems == [
            "t/a (/a) is not in the backup: why /a",
            "t/b (/b) is without its files in the backup: why /b",
        ]

    def test_a_backup_that_was_removed_is_told_once(self, monkeypatch):
        """Also where it was the only one: then no other reason is given."""
        gone = Missing("/a", removed="/a"), Missing("/c", removed="/a")
        told = "the new backup of /a is not in the repository any more: why "
        for backups in ((), ("1234",)):
            report = proved(Sample(Proof(backups, ("/b",), gone)), monkeypatch)
            assert (report.outcome, report.status) == ("incomplete", EX_DATAERR)
            assert [each[:-2] for each in report.problems] == [told]
            assert report.runs[0].proof == (1, 3)
        report = proved(Sample(Proof((), (), (*gone, Missing("/b")))), monkeypatch)
        assert report.problems[1:] == ["t/b (/b) is not in the backup: why /b"]

    def test_of_very_many_only_some_are_named(self, monkeypatch):
        monkeypatch.setattr(proof, "NAMED", 1)
        missing = tuple(Missing(point, empty=False) for point in POINTS)
        report = proved(Sample(Proof(("1234",), (), missing)), monkeypatch)
        assert len(report.problems) == 2
        assert report.problems[1] == "2 more datasets are not in the backup"
        assert report.outcome == "incomplete"
        captured = (Captured("t/a", "/", directories=("/a", "/b")), Captured("t/c", "/c"))
        plan = Plan(NAMES, captured, (), (), (), ())
        report = proved(Sample(Proof(("1234",), (), missing)), monkeypatch, plan)
        told = "2 more directories and datasets are not in the backup"
        assert report.problems[1] == told

    def test_no_backup_at_all_is_a_failure(self, monkeypatch):
        """As with --dry-run among the options, or a wrapper that just returns 0."""
        report = proved(Sample(Proof(backups=())), monkeypatch)
        assert (report.outcome, report.status) == ("failed", EX_DATAERR)
        assert "there is no new backup in the repository" in report.problems[0]

    def test_an_earlier_backup_may_stand_for_this_one(self, monkeypatch):
        answer = ALL._replace(stands_in="0123456789abcdef0123")
        report = proved(Sample(answer), monkeypatch)
        assert report.outcome == "success"
        assert report.notes == [
            "nothing has changed, so sample made no new backup: 0123456789abcdef stands for it"
        ]

    @pytest.mark.parametrize(
        "error",
        [ClientFailed(1, "no key"), CommandFailed(["sample"], "no key"), Refusal("no key"),
         OSError(5, "no key")],
    )  # fmt: skip
    def test_a_repository_that_does_not_answer_proves_nothing(self, monkeypatch, error):
        report = proved(Sample(error), monkeypatch)
        assert (report.outcome, report.status) == ("incomplete", EX_UNAVAILABLE)
        assert "could not be checked: " in report.problems[0]
        assert report.problems[0].endswith("; --no-proof does without")
        assert report.runs[0].proof is None

    def test_a_wrapper_that_cannot_be_asked_proves_nothing(self, monkeypatch):
        class Mute(Sample):
            def base_command(self, job):
                raise Refusal("the command does not name its subcommand")

        report = proved(Mute(), monkeypatch)
        assert report.outcome == "incomplete"
        assert "does not name its subcommand" in report.problems[0]

    def test_a_wrapper_that_keeps_its_words_is_not_run_again(self, monkeypatch):
        class Deaf(Sample):
            def wrapper_keeps_words(self, job, script):
                return "it does not pass on the paths"

        client = Deaf()
        report = proved(client, monkeypatch)
        assert report.outcome == "incomplete"
        assert "it does not pass on the paths" in report.problems[0]
        assert len(client.asked) == 1  # whether it has proved itself, and no more

    def test_a_signal_meanwhile(self, monkeypatch):
        report = proved(Sample(Interrupted(15)), monkeypatch)
        assert (report.outcome, report.status) == ("incomplete", 143)


class Streams(Sample):
    """A client whose repository has a volume, or says so."""

    def prove_stream(self, reader, job, request, figures, since, script):
        self.asked.append((request, figures, since, script))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def of_volume(monkeypatch, answer=None, said=None) -> Report:
    """Return the report of a good run of a volume of 4096 bytes, after its proof."""
    monkeypatch.setattr(proof, "Reader", lambda *_: None)
    task = Task(JOB, Streams(answer), Door(), {}, "/bin/sample", str, "script")
    report = Report("restomic", "default", "r", 100.0)
    called = Called(ClientRun(VOLUME, "t/v", stream="/dev/zvol/t/v", source="/dev/zvol/t/c"))
    report.runs, called.saved, called.size, called.streamed = [called], True, 4096, said
    called.request = Request((), stream="/dev/zvol/t/v")
    proof.prove_volume(task, called, report, Signals())
    return report


class TestVolume:
    def test_of_its_size_it_is_good(self, monkeypatch):
        report = of_volume(monkeypatch, Streamed(("1",), 4096))
        assert (report.outcome, report.runs[0].proof) == ("success", (1, 1))

    def test_the_words_of_the_client_are_enough(self, monkeypatch):
        report = of_volume(monkeypatch, ClientFailed(1, "no"), Streamed(("1",), 4096))
        assert (report.outcome, report.runs[0].proof) == ("success", (1, 1))

    @pytest.mark.parametrize("size", [0, 4095, 4097])
    def test_of_another_size_it_is_not(self, monkeypatch, size):
        report = of_volume(monkeypatch, said=Streamed(("1",), size))
        assert (report.outcome, report.status) == ("incomplete", EX_DATAERR)
        assert report.problems == [
            f"/dev/zvol/t/v is in the backup with {size} of its 4096 bytes: "
            "the client did not read all of it"
        ]

    def test_nor_where_it_is_not_there(self, monkeypatch):
        report = of_volume(monkeypatch, Streamed(("1",), None))
        assert (report.outcome, report.runs[0].proof) == ("incomplete", (0, 1))
        assert report.problems[0].startswith("/dev/zvol/t/v is not in the backup: ")

    def test_what_keeps_it_out_is_named(self, monkeypatch):
        monkeypatch.setattr(Streams, "excluded_by", lambda *asked: f"{asked[-2]} {asked[-1]}")
        report = of_volume(monkeypatch, Streamed(("1",), None))
        assert report.problems == ["/dev/zvol/t/v is not in the backup: script /dev/zvol/t/v"]

    def test_without_a_new_backup_it_has_failed(self, monkeypatch):
        report = of_volume(monkeypatch, Streamed())
        assert report.outcome == "failed"
        assert "there is no new backup in the repository" in report.problems[0]

    @pytest.mark.parametrize("error", [
        ClientFailed(1, "no"), CommandFailed(["x"], "no"), Refusal("no"), OSError("no"),
    ])  # fmt: skip
    def test_what_nobody_has_looked_at_is_not_good(self, monkeypatch, error):
        report = of_volume(monkeypatch, error)
        assert (report.outcome, report.status) == ("incomplete", EX_UNAVAILABLE)
        assert "--no-proof does without" in report.problems[0]

    def test_a_signal(self, monkeypatch):
        report = of_volume(monkeypatch, Interrupted(15))
        assert (report.outcome, report.status) == ("incomplete", 143)
