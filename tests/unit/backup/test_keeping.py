"""The layout in a run: when it is looked at, where it is saved, and what a failure is."""

from __future__ import annotations

import json

import pytest

from kopiatomic import state
from kopiatomic.backup import keeping, recall
from kopiatomic.backup.client_runs import Called, ClientRun
from kopiatomic.backup.keeping import Kept, Saved
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.backup.work import Work
from kopiatomic.clients.base import Client, Task
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Streamed
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from kopiatomic.layout import taking
from kopiatomic.layout.form import Layout
from kopiatomic.state import Place
from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.disks import Disk
from kopiatomic.system.process import Ended, Interrupted, Signals, Streams

NOW = 2_000_000_000.0
DAY = 24 * 3600.0
LAYOUT = Layout("h", "amd64", {}, (), ())
SIZE = -1  # stands for that of what the client was given
SUMMARY = b'{"message_type":"summary","snapshot_id":"%s"}\n'


class Names:
    """Where the view is."""

    view = "/view"


def task_of(job: Job, repository: str = "", jailed: bool = False) -> Task:
    door = Door(None, jailed=jailed)
    return Task(job, Restic(), door, {}, "restic", str, repository=repository)


class World:
    """A run that has just backed up the files, on a machine whose layout is ``layout``."""

    def __init__(self, place: Place, patch: pytest.MonkeyPatch) -> None:
        self.place, self.patch = place, patch
        self.job = Job("restomic", layout=True)
        self.more: tuple[str, ...] = ()
        self.jailed = False
        self.captured_at = {"t": 1000.4, "u": 1000.2}
        self.layout, self.lacking = LAYOUT, ()
        self.calls: list[tuple[list[str], object]] = []
        self.looks: list[list[str]] = []
        self.ends: list[Ended | Exception] = []
        self.now, self.saved = NOW, [True, True]
        patch.setattr(keeping.time, "time", lambda: self.now)
        patch.setattr(taking, "take", self.take)
        patch.setattr(process, "run", self.run)
        patch.setattr(Restic, "version", lambda *_: "0.18")
        self.shown: Streamed | Exception | None = None  # None: as it should be
        self.asked: list[str] = []
        patch.setattr(Restic, "prove_stream", self.show)
        self.kept: list[bool | Exception] = []  # what is answered; empty: all is there
        self.questions: list[tuple[str, ...]] = []
        patch.setattr(recall, "has", self.has)
        self.own_words: Streamed | None = None
        patch.setattr(Restic, "said_of_stream", lambda *_: self.own_words)

    def show(self, reader, job, request, figures, since, script) -> Streamed:
        self.asked.append(request.stream)
        assert since == self.now
        if isinstance(self.shown, Exception):
            raise self.shown
        size = len(self.calls[-1][1].encode())
        return self.shown._replace(size=size) if self.shown and self.shown.size == SIZE else (
            self.shown or Streamed(figures.snapshots, size)
        )

    def has(self, work, task, named) -> bool:
        self.questions.append((task.repository, *named))
        answer = self.kept.pop(0) if self.kept else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def take(self, door, pools, client, hide):
        self.looks.append(sorted(pools))
        assert hide is str
        assert client == {"restic": "0.18"}
        if isinstance(self.layout, Exception):
            raise self.layout
        return taking.Taken(self.layout, self.lacking)

    def run(self, door, argv, environment, signals, streams, root=None, source=None) -> Ended:
        assert root == "/view"
        assert (streams.output, streams.messages, streams.capture) == (None, None, True)
        with open(source) as file:
            self.calls.append((list(argv), file.read()))
        end = self.ends.pop(0) if self.ends else Ended(0, 0.1, SUMMARY % b"a1b2c3d4")
        if isinstance(end, Exception):
            raise end
        return end

    def night(self, later: float = 0.0) -> Report:
        """Save the layout at the end of a run; the history knows of it afterwards."""
        self.now += later
        task = task_of(self.job, self.more[0] if self.more else "", self.jailed)
        task = task._replace(more=tuple(task_of(self.job, name) for name in self.more[1:]))
        report = Report("restomic", "default", "run", 0.0)
        report.plan = Plan(None, (), (), (), (), ())
        report.captured_at = dict(self.captured_at)
        for number in range(1 + len(task.more)):
            called = Called(ClientRun(repository=number))
            called.saved = self.saved[number]
            report.runs.append(called)
        work = Work(task, self.place, Names(), Signals(), Streams(), report)
        keeping.keep_layout(work)
        state.remember(self.place, {"outcome": "success", "layout": report.layout})
        return report


@pytest.fixture
def world(place: Place, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(place, monkeypatch)


class TestSaving:
    def test_the_first_time(self, world):
        report = world.night()
        assert report.layouts == ["is saved as a1b2c3d4"]
        assert report.notes == report.problems == []
        ((words, given),) = world.calls
        assert words == [
            "restic", "backup", "--time", words[3], "--tag", "restomic:default:layout",
            "--stdin", "--stdin-filename", "/kopiatomic/layout/default.json",
        ]  # fmt: skip
        assert json.loads(given)["format"] == "kopiatomic layout"
        assert world.looks == [["t", "u"]]
        with open(world.place.layout) as file:
            assert file.read() == given

    def test_it_bears_a_time_a_second_before_the_files(self, world, utc):
        world.night()
        assert "1970-01-01 00:16:39" in world.calls[0][0]

    def test_not_again_while_it_is_the_same(self, world):
        world.night()
        for _ in range(3):
            assert world.night(DAY).layouts == []
        assert len(world.looks) == 4
        assert len(world.calls) == 1
        assert world.questions == [("", "a1b2c3d4")] * 3

    def test_a_job_that_runs_every_hour_looks_once_a_day(self, world):
        for _ in range(30):
            world.night(3600.0)
        assert len(world.looks) == 2
        assert len(world.questions) == 1

    def test_again_when_it_has_changed(self, world):
        world.night()
        world.layout = LAYOUT._replace(host="other")
        assert world.night(DAY).layouts == ["has changed and is saved as a1b2c3d4"]
        assert world.night(DAY).layouts == []

    def test_again_after_a_month_and_where_the_clock_was_set_back(self, world):
        world.night()
        assert world.night(31 * DAY).layouts == ["is saved as a1b2c3d4"]
        assert len(world.calls) == 2
        world.night(-40 * DAY)
        assert len(world.calls) == 3
        assert world.questions == []

    def test_runs_without_it_in_between_do_not_matter(self, world):
        world.night()
        for _ in range(5):
            state.remember(world.place, {"outcome": "failed", "layout": None})
        assert world.night(DAY).layouts == []

    def test_what_is_lacking_is_a_note(self, world):
        world.lacking = ("the partitions of the disks: no",)
        report = world.night()
        assert report.notes == [
            "not in the layout of the pools: the partitions of the disks: no"
        ]
        assert report.layouts == ["is saved as a1b2c3d4"]


    def test_what_cannot_be_read_again_is_a_note(self, world):
        """Who needs it has nothing else, and finds out too late."""
        world.layout = LAYOUT._replace(disks=(Disk("ada0", ("GPT 128", "1 efi 40 x")),))
        report = world.night()
        (note,) = report.notes
        assert note.startswith("the layout of the pools holds what --layout will not read again")
        assert "'1 efi 40 x' cannot be" in note
        assert report.layouts == ["is saved as a1b2c3d4"]


class TestStillThere:
    """The history does not know what became of it: the repository may have been made anew."""

    def test_what_is_gone_is_saved_again(self, world):
        world.night()
        world.kept = [False]
        report = world.night(DAY)
        assert report.layouts == ["was not in the repository any more and is saved as a1b2c3d4"]
        assert (report.outcome, report.notes) == ("success", [])
        assert len(world.calls) == 2
        assert world.night(DAY).layouts == []

    def test_what_cannot_be_saved_again_is_tried_the_next_time(self, world):
        world.night()
        world.kept, world.ends = [False], [Ended(1, 0.1)]
        assert world.night(DAY).layouts == []
        assert world.night(60.0).layouts == ["is saved as a1b2c3d4"]

    @pytest.mark.parametrize("error", [ClientFailed(1, "no route"), CommandFailed(("r",), "no")])
    def test_no_answer_is_no_yes(self, world, error):
        world.night()
        world.kept = [error]
        report = world.night(DAY)
        assert report.layouts == ["is saved as a1b2c3d4"]
        assert report.notes == [
            "whether the repository still has the layout of the pools could not be asked: "
            f"{error}; so it is saved again"
        ]

    def test_of_several_repositories_each_is_asked(self, world):
        world.more = ("a", "b")
        world.night()
        world.kept = [True, False]
        (said,) = world.night(DAY).layouts
        assert said == "was not in the repository any more and is saved to b as a1b2c3d4"
        assert world.questions == [("a", "a1b2c3d4"), ("b", "a1b2c3d4")]

    def test_of_several_names_one_is_enough(self, world):
        """A wrapper may write to several repositories, and is asked about one."""
        world.ends = [Ended(0, 0.1, SUMMARY % b"a1" + SUMMARY % b"b2")]
        world.night()
        world.kept = [False, True]
        assert world.night(DAY).layouts == []
        assert [names for _, *names in world.questions] == [["a1"], ["b2"]]

    def test_a_client_that_does_not_say_the_name_leaves_it_to_the_repository(self, world):
        world.ends, world.shown = [Ended(0, 0.1)], Streamed(("beef",), SIZE)
        assert world.night().layouts == ["is saved as beef"]
        world.night(DAY)
        assert world.questions == [("", "beef")]

    def test_who_wants_no_question_gets_none(self, world):
        world.job = world.job._replace(proof=False)
        world.night()
        assert world.night(DAY).layouts == []
        assert world.questions == []

    def test_a_signal_ends_the_run(self, world):
        world.night()
        world.kept = [Interrupted(15)]
        with pytest.raises(Interrupted):
            world.night(DAY)


class TestWhereItIsWanted:
    @pytest.mark.parametrize(
        "changes", [{"layout": False}, {"plain": True, "command": ("tar",)}]
    )
    def test_not_where_it_is_not(self, world, changes):
        world.job = world.job._replace(**changes)
        assert world.night().layout is None
        assert world.looks == []

    def test_not_through_a_wrapper_that_heeds_no_words(self, world):
        world.patch.setattr(Restic, "wrapper_keeps_words", lambda *_: "it does not pass on")
        assert world.night().layout is None

    def test_not_by_a_client_that_takes_no_stream(self, world):
        world.patch.setattr(Restic, "stream_words", Client.stream_words)
        assert world.night().layout is None

    def test_not_where_the_files_are_not(self, world):
        world.saved = [False, True]
        report = world.night()
        assert report.layouts == []
        assert world.calls == []
        world.saved = [True, True]
        assert world.night().layouts == ["is saved as a1b2c3d4"]

    def test_not_of_no_pool(self, world):
        world.captured_at = {}
        assert world.night().layout is None
        assert world.looks == []

    def test_not_where_there_was_nothing_to_back_up(self, world):
        world.night()
        world.saved = [False]
        assert world.night(DAY).layout is not None
        assert len(world.looks) == 1

    @pytest.mark.parametrize("jailed", [True, False])
    def test_not_in_a_jail(self, world, jailed):
        world.jailed = jailed
        assert (world.night().layout is None) is jailed

    def test_in_each_repository_for_itself(self, world):
        world.more, world.saved = ("a", "b"), [True, False]
        assert world.night().layouts == ["is saved to a as a1b2c3d4"]
        world.saved = [True, True]
        assert world.night(60.0).layouts == ["is saved to b as a1b2c3d4"]
        assert world.night(DAY).layouts == []


class TestFailures:
    def test_of_the_machine(self, world):
        world.layout = CommandFailed(("zfs", "get"), "no")
        report = world.night()
        assert report.notes == ["the layout of the pools was not saved: zfs get: no"]
        assert report.outcome == "success"
        assert report.layout is None

    @pytest.mark.parametrize(
        ("end", "said"),
        [
            (Ended(1, 0.1, messages=b"Fatal: no room\nmore\n"), "exit status 1, Fatal: no room"),
            (Ended(-9, 0.1), "killed by SIGKILL"),
            (CommandFailed(("restic",), "cannot be started"), "restic: cannot be started"),
        ],
    )
    def test_of_the_client_are_notes_and_it_is_tried_again(self, world, end, said):
        world.ends = [end]
        report = world.night()
        assert report.notes == [
            f"the layout of the pools was not saved: {said}; --no-layout does without it"
        ]
        assert report.outcome == "success"
        assert world.night(60.0).layouts == ["is saved as a1b2c3d4"]

    def test_of_our_own_are_notes_as_well(self, world):
        world.layout = KeyError("t")
        report = world.night()
        (note,) = report.notes
        assert note.startswith("the layout of the pools was not saved: internal error")
        assert (report.outcome, report.problems) == ("success", [])

    def test_of_the_disk(self, world):
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        world.patch.setattr(state, "write_layout", fail)
        report = world.night()
        assert "No space left on device" in report.notes[0]
        assert world.calls == []

    def test_a_signal_ends_the_run(self, world):
        world.ends = [Interrupted(15)]
        with pytest.raises(Interrupted):
            world.night()


class TestShown:
    """A client may end well and have saved nothing; then it is tried again the next night."""

    @pytest.mark.parametrize(
        ("shown", "said"),
        [
            (Streamed(), "there is no new backup in the repository"),
            (Streamed(("a",), None), "it is not in the repository in full size"),
            (Streamed(("a",), 5), "it is not in the repository in full size"),
            (ClientFailed(1, "no room"), "whether it is in the repository could not be checked"),
        ],
    )
    def test_what_the_repository_does_not_show_is_not_saved(self, world, shown, said):
        world.shown = shown
        report = world.night()
        (note,) = report.notes
        assert said in note
        assert report.layouts == []
        assert (report.outcome, report.problems) == ("success", [])
        assert keeping.last_kept(world.place).saved == {}
        world.shown = None
        assert world.night(60.0).layouts == ["is saved as a1b2c3d4"]
        assert world.asked == ["/kopiatomic/layout/default.json"] * 2
        assert world.night(DAY).layouts == []
        assert len(world.asked) == 2

    @pytest.mark.parametrize("size", [0, None])
    def test_its_own_words_are_enough_where_they_are_exact(self, world, size):
        world.night()
        world.layout = LAYOUT._replace(host="g")
        length = len(world.calls[0][1].encode())
        world.own_words = Streamed(("a1b2c3d4",), length if size is None else size)
        report = world.night(DAY)
        assert (report.layouts == []) == (size == 0)
        assert len(world.asked) == 1

    def test_who_wants_no_proof_gets_none(self, world):
        world.job = world.job._replace(proof=False)
        assert world.night().layouts == ["is saved as a1b2c3d4"]
        assert world.asked == []


class TestHistory:
    def test_what_is_written_is_read_again(self, place):
        kept = Kept(5.0, {"": Saved("d", 4.0, "x"), "b": Saved("e", 3.0)})
        state.remember(place, {"outcome": "success", "layout": keeping.as_dict(kept)})
        assert keeping.last_kept(place) == kept

    @pytest.mark.parametrize(
        "held",
        [None, "x", [], {}, {"looked": "x", "saved": {}}, {"looked": 1, "saved": []},
         {"looked": 1, "saved": {"": {"digest": "d"}}}, {"looked": 1, "saved": {"": 5}}],
    )  # fmt: skip
    def test_anything_else_is_nothing(self, place, held):
        state.remember(place, {"outcome": "success", "layout": held})
        assert keeping.last_kept(place) is None

    def test_a_history_from_before_it_knows_nothing(self, place):
        assert keeping.last_kept(place) is None
        state.remember(place, {"outcome": "success"})
        assert keeping.last_kept(place) is None
