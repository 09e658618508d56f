"""What a run has in hand, and how a step of it fails."""

from kopiatomic.backup import proof
from kopiatomic.backup.client_runs import ClientRun
from kopiatomic.backup.drawing import Drawing
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.report import Report
from kopiatomic.clients.base import Task
from kopiatomic.state import Place
from kopiatomic.system.process import Signals, Streams


class Failed(Exception):
    """A step failed; the message says which and why, ``status`` is the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NothingNew(Exception):
    """The last good backup has all the existing snapshots that this one would be of."""


class Work:
    """What a run has in hand: what it was told, and what it has made so far."""

    def __init__(
        self,
        task: Task,
        place: Place,
        names: Names,
        signals: Signals,
        streams: Streams,
        report: Report,
    ) -> None:
        self.task, self.place, self.names = task, place, names
        self.signals, self.streams, self.report = signals, streams, report
        self.drawing: Drawing | None = None  # what the plan was drawn from, until the view stands
        self.made: list[str] = []  # snapshots that are ours, or may be
        self.tried: set[str] = set()  # pools in which there may be any of them
        self.unsure = False  # whether there is a snapshot of ours that we do not know
        self.holds = False  # whether snapshots of others are held, or may be
        self.evidence: proof.Evidence | None = None  # what has to be proved in the end
        self.clones: dict[str, int] = {}  # those that are ours, or may be, with their sizes

    @property
    def plan(self) -> Plan:
        """The plan as it stands; raises RuntimeError before there is one."""
        if self.report.plan is None:
            raise RuntimeError("there is no plan yet")
        return self.report.plan

    def task_of(self, run: ClientRun) -> Task:
        """Return the task with which a client run reaches its repository."""
        return (self.task, *self.task.more)[run.repository]

    def follow(self, drawing: Drawing) -> None:
        """Take a plan for the run's."""
        self.drawing, self.report.plan = drawing, drawing.plan
