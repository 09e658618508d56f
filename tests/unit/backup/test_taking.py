"""What the routine does with existing snapshots: it holds, looks for others, and lets go."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from kopiatomic import state
from kopiatomic.backup import existing, holding, taking
from kopiatomic.backup.plan import Hold
from kopiatomic.backup.report import Report
from kopiatomic.backup.selection import NO_SNAPSHOT, Captured, Existing, LeftOut
from kopiatomic.backup.work import Failed
from kopiatomic.clients import make_ready
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.state import NotedHold
from kopiatomic.system.command import CommandFailed, Door

TAG = "restomic:default:0123456789ab"


def taken(number: int, created: float = 100.0) -> Existing:
    return Existing(f"t/a@{number}", f"g{number}", number, created)


def plan_of(*snapshots: Existing, left_out: tuple[LeftOut, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        captured=tuple(Captured("t/a", "/a", existing=each) for each in snapshots),
        holds=tuple(Hold("t/a", each.name, "/h", each) for each in snapshots),
        left_out=left_out,
    )


class Work(SimpleNamespace):
    """A run's, with a plan that is drawn anew by hand."""

    def follow(self, plan):
        self.plan = plan


@pytest.fixture
def work(place):
    report = Report("restomic", "default", TAG, 0.0)
    task = SimpleNamespace(
        more=(), repository="", client=Restic(), environment={}, script="",
        door=Door(), job=Job("restomic", snapshot="*", command=("restic", "x")),
        hide=lambda text: text.replace("secret", "***"),
    )  # fmt: skip
    signals = SimpleNamespace(check=lambda: None)
    made = Work(task=task, place=place, report=report, signals=signals, holds=False,
                names=SimpleNamespace(run=TAG), plan=plan_of(taken(2)))  # fmt: skip
    made.drawing = SimpleNamespace(taking=lambda found: plan_of(*found.values()))
    made.lost = []
    return made


def lose(work, lost, what):
    work.lost += [(name, why.reason, why.gone) for name, why in lost.items()]


def answers(monkeypatch, *gone: set[str]):
    """Answer a hold after the other with the datasets whose snapshots have gone."""
    left = list(gone)
    monkeypatch.setattr(holding, "hold", lambda *_: holding.Kept(frozenset(left.pop(0))))


def test_what_is_taken_is_held_and_gives_the_moment(work, monkeypatch):
    answers(monkeypatch, set())
    taking.take(work, lose)
    assert work.holds
    assert work.report.captured_at == {"t": 100.0}
    assert work.lost == []


def test_where_one_has_gone_the_next_is_taken(work, monkeypatch):
    answers(monkeypatch, {"t/a"}, set())
    monkeypatch.setattr(existing, "find", lambda *_: {"t/a": taken(1, 50.0)})
    taking.take(work, lose)
    assert work.report.captured_at == {"t": 50.0}
    assert work.report.notes == ["t/a@2 went meanwhile; t/a@1 is backed up in its place"]


def test_where_there_is_no_next_one_the_dataset_is_lost(work, monkeypatch):
    answers(monkeypatch, {"t/a"}, set())
    monkeypatch.setattr(existing, "find", lambda *_: {})
    taking.take(work, lose)
    assert work.lost == [("t/a", "its snapshot has gone", True)]


def test_it_is_not_looked_for_without_end(work, monkeypatch):
    answers(monkeypatch, *[{"t/a"}] * taking.TRIES)
    monkeypatch.setattr(existing, "find", lambda *_: {"t/a": taken(1)})
    taking.take(work, lose)
    assert work.lost == [("t/a", taking.CHANGING, False)]


def test_where_it_cannot_be_noted_nothing_is_taken(work, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "note_holds", fails)
    monkeypatch.setattr("kopiatomic.system.zfs.pools", lambda _: {})
    with pytest.raises(Failed, match="cannot be taken"):
        taking.take(work, lose)


def test_a_named_dataset_without_one_makes_it_incomplete(work, monkeypatch):
    answers(monkeypatch, set())
    missed = LeftOut("t/b", "none matches", NO_SNAPSHOT, missed=True)
    work.plan = plan_of(taken(2), left_out=(missed, LeftOut("t/c", "none", NO_SNAPSHOT)))
    taking.take(work, lose)
    assert work.report.problems == ["t/b is not in this backup: none matches"]
    assert work.report.status == 66
    assert taking.last_with_all(work.task, work.plan, work.place) is None


def test_any_good_backup_counts(work):
    """Where the newest snapshot was destroyed, the one before it is backed up as well."""

    def remember(number: int, outcome: str = "success") -> None:
        row = {"dataset": "t/a", "mountpoint": "/a", "guid": f"g{number}"}
        selection = taking.selection_of(work.task)
        entry = {"outcome": outcome, "selection": selection, "captured": [row], "n": number}
        state.remember(work.place, entry)

    def found() -> object:
        return (taking.last_with_all(work.task, work.plan, work.place) or {}).get("n")

    remember(2, "incomplete")
    assert found() is None
    remember(2)
    remember(3)
    assert found() == 2
    work.plan = plan_of(taken(1))
    assert found() is None


def test_what_stays_held_is_told_with_what_to_do(work, monkeypatch):
    stays = holding.Stays(NotedHold(TAG, "g", "t/a@2"), "busy")
    monkeypatch.setattr(holding, "let_go", lambda *_: [stays])
    taking.tell_held(work)
    assert work.report.problems == []
    work.holds = True
    taking.release(work)
    assert work.report.problems == []
    taking.tell_held(work)
    (problem,) = work.report.problems
    assert problem == (
        f"t/a@2 is still held: busy; the next run tries again, or: zfs release {TAG} t/a@2"
    )


def test_where_it_is_not_known_it_is_told(work, monkeypatch):
    def fails(*_):
        raise CommandFailed(["zpool", "list"], "no")

    monkeypatch.setattr(holding, "let_go", fails)
    work.holds = True
    taking.tell_held(work)
    assert "snapshots may still be held: " in work.report.problems[0]
    assert "restomic --sweep -j default" in work.report.problems[0]


def test_a_sweep_without_a_note_asks_nothing(place, fp):
    report = Report("restomic", "default", TAG, 0.0)
    taking.sweep(place, Door(), report)
    assert (report.swept, report.notes) == ([], [])


def test_a_sweep_tells_what_it_has_taken_back_and_what_stays(place, monkeypatch):
    stays = holding.Stays(NotedHold(TAG, "g", "t/a@2"), "busy")
    monkeypatch.setattr(holding, "sweep", lambda *_: holding.Swept(("t/b@2",), (stays,)))
    report = Report("restomic", "default", TAG, 0.0)
    taking.sweep(place, Door(), report, thoroughly=True)
    assert report.swept == ["hold on t/b@2"]
    assert "the hold of an earlier run on t/a@2 stays: busy" in report.notes[0]

    def fails(*_):
        raise CommandFailed(["zpool", "list"], "no")

    monkeypatch.setattr(holding, "sweep", fails)
    taking.sweep(place, Door(), report, thoroughly=True)
    assert "whether an earlier run still holds snapshots could not be found out" in report.notes[1]


class TestAfterBoot:
    """The note of the holds may be in another boot environment, or in the old /var/db."""

    LIST = "zfs list -Hp -t snapshot -s name -o name,userrefs"
    POOLS = "zpool list -Hp -o name,readonly,health"

    def machine(self, fp, *pools: str) -> None:
        text = "".join(f"{each}\toff\tONLINE\n" for each in pools)
        fp.register(self.POOLS, stdout=text, occurrences=9)

    def test_what_an_earlier_run_holds_is_let_go_once(self, work, fp):
        self.machine(fp, "t")
        fp.register(self.LIST, stdout="t/a@1\t2\nt/a@2\t0\n")
        held = f"t/a@1\t{TAG}\tthen\nt/a@1\trestomic:other:1\tthen\nt/a@1\tkeep\tthen\n"
        fp.register("zfs holds -H t/a@1", stdout=held, occurrences=2)
        fp.register(f"zfs release {TAG} t/a@1")
        taking.look_after_boot(work)
        assert work.report.swept == ["hold on t/a@1"]
        asked = len(fp.calls)
        taking.look_after_boot(work)
        taking.look_after_boot(work, ["t"])
        assert len(fp.calls) == asked
        # A pool that was not imported may have some as well.
        fp.register(self.LIST, stdout="")
        self.machine(fp, "t", "u")
        taking.look_after_boot(work, ["t", "u"])
        assert len(fp.calls) > asked

    def test_where_nobody_can_look_it_is_told_and_tried_again(self, work, fp):
        self.machine(fp, "t")
        fp.register(self.LIST, returncode=1, stderr="no")
        taking.look_after_boot(work)
        assert "whether an earlier run still holds snapshots could not be" in work.report.notes[0]
        fp.register(self.LIST, stdout="")
        taking.look_after_boot(work)
        assert len(work.report.notes) == 1
        assert [call[1] for call in fp.calls].count("list") == 4


def test_what_says_where_to_is_part_of_the_selection_and_no_secret(work, tmp_path):
    env = tmp_path / "env"
    env.write_text("A=b\n")
    job = work.task.job._replace(options=("--password", "secret"), env_files=(str(env),))
    work.task.job = job
    first = taking.selection_of(work.task)
    assert first["options"] == ["--password", "***"]
    assert first["snapshot"] == "*"
    os.utime(env, (1, 1))
    assert taking.selection_of(work.task) != first
    env.unlink()
    assert taking.selection_of(work.task)["env_file"] == [str(env)]


@pytest.mark.parametrize("words", [("--exclude-file", "{}"), ("-x", "--iexclude-file={}")])
def test_a_file_of_excludes_that_has_changed_is_something_new(work, tmp_path, words):
    file = tmp_path / "excludes"
    file.write_text("*.o\n")
    options = tuple(word.format(file) for word in words)
    work.task.job = work.task.job._replace(options=options)
    first = taking.selection_of(work.task)
    assert taking.selection_of(work.task) == first
    os.utime(file, (1, 1))
    assert taking.selection_of(work.task) != first
    # A history that knows nothing of it is believed where there is none.
    work.task.job = work.task.job._replace(options=())
    assert "excluding" not in taking.selection_of(work.task)


def chosen(*held: dict[str, str], program: str = "restomic", **job: object) -> dict[str, object]:
    """Return the selection of a job with an env file for each of these sets of variables."""
    first, *further = (
        Job(program, snapshot="*", env_files=(f"/{number}.env",), environment=each, **job)
        for number, each in enumerate(held)
    )
    return taking.selection_of(
        make_ready(first, Door(), {"HOME": "/root"}, installed="command" in job, further=further)
    )


class TestAnotherRepository:
    """What an env file says counts, and not only when it was written."""

    A, B = {"RESTIC_REPOSITORY": "/a"}, {"RESTIC_REPOSITORY": "/b"}

    def test_another_repository_is_something_new(self):
        assert chosen(self.A) == chosen(dict(self.A))
        assert chosen(self.A) != chosen(self.B)
        assert chosen(self.A) != chosen(self.A, self.B)
        assert chosen(self.A, self.B) != chosen(self.A, {"RESTIC_REPOSITORY": "/c"})

    def test_so_is_one_that_nobody_but_the_variables_can_tell(self):
        """Here a wrapper could not be read, and says nothing itself."""
        command = ("sh", "-c", 'restic -r "$RESTIC_PLACE" backup "$@"', "-")
        one, other = ({"RESTIC_PLACE": place} for place in ("/a", "/b"))
        assert chosen(one, command=command) != chosen(other, command=command)

    def test_so_is_what_a_file_names(self, tmp_path):
        file = tmp_path / "repository"
        held = {"RESTIC_REPOSITORY_FILE": str(file)}
        file.write_text("/a\n")
        first = chosen(held)
        file.write_text("/a")
        assert chosen(held) == first
        file.write_text("/b")
        assert chosen(held) != first

    def test_so_is_another_configuration_of_kopias(self, tmp_path):
        config = tmp_path / "repository.config"
        held = {"KOPIA_CONFIG_PATH": str(config)}
        found = []
        for path in ("/a", "/a", "/b"):
            config.write_text(json.dumps({"storage": {"config": {"path": path}}}))
            found.append(chosen(held, program="kopiatomic"))
        assert found[0] == found[1] != found[2]

    def test_so_is_another_text_of_a_wrapper(self, tmp_path):
        script = tmp_path / "wrapper"
        script.touch(0o755)
        texts = ("cd /a", "cd /a", "cd /b", "RESTIC_PASSWORD=horse", "RESTIC_PASSWORD=mule")
        found = []
        for text in texts:
            script.write_text(f'#!/bin/sh\n{text}\nexec restic "$@"\n')
            found.append(chosen({}, command=(str(script), "backup")))
        assert found[0] == found[1] != found[2]
        assert found[3] == found[4]

    def test_what_says_nothing_of_that_counts_for_nothing(self):
        """A run by hand and one at night have other variables, and another password is no place."""
        other = self.A | {"EDITOR": "vi", "RESTIC_PASSWORD": "horse"}
        assert chosen(self.A) == chosen(other)
        assert "horse" not in str(chosen(other))
