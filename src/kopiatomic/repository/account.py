"""The account of what is done between backups, and how it enters the job's history."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kopiatomic import state
from kopiatomic.clients.base import Task
from kopiatomic.errors import EX_OSERR, EX_SOFTWARE, EX_UNAVAILABLE, Refusal
from kopiatomic.formatting import iso
from kopiatomic.state import Place
from kopiatomic.system.command import CommandFailed
from kopiatomic.system.process import Interrupted


@dataclass
class Done:
    """How a step ended: ``ok``, ``failed`` or ``not run``; its status, where it has one.

    ``kind`` is that of a step of upkeep, ``also`` what else that does; ``repository`` names
    the one of several that it was for.
    """

    name: str
    outcome: str = "not run"
    status: int | None = None
    seconds: float = 0.0
    kind: str | None = None
    also: tuple[str, ...] = ()
    repository: str = ""


@dataclass
class Account:
    """What upkeep or a restore drill came to; ``status`` is the exit status.

    Where the job has several repositories, ``parts`` are the accounts of each, with its name
    and env file; of one alone, the env file is that of the whole.
    """

    kind: str  # upkeep or drill
    program: str
    job: str
    began: float
    ended: float = 0.0
    waited: float = 0.0  # before it began, for another run of the job to end
    outcome: str = "success"
    status: int = 0
    steps: list[Done] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    said: str = ""  # the end of what the client printed
    repository: str = ""
    env_file: str | None = None
    parts: list["Account"] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def results(self) -> dict[str, object]:
        """What --status tells of it later, beside its steps."""
        return {}

    def fail(self, message: str, status: int, outcome: str = "failed") -> None:
        """Add a problem; the first one decides about the outcome and the exit status."""
        self.problems.append(message)
        if self.status == 0:
            self.status, self.outcome = status, outcome

    def take(self, part: "Account") -> None:
        """Enter what was done in one of the repositories."""
        self.steps += part.steps
        name = f"{part.repository}: " if part.repository else ""
        self.problems += [f"{name}{each}" for each in part.problems]
        self.notes += [f"{name}{each}" for each in part.notes]
        if self.status == 0:
            self.status, self.outcome = part.status, part.outcome
        if part.problems:
            self.said += part.said
        if part.repository:
            self.parts.append(part)

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of all that is told."""
        for texts in (self.problems, self.notes):
            texts[:] = map(hide, texts)
        for part in self.parts:
            part.conceal(hide)


@contextmanager
def kept(place: Place, account: Account, client: str, hide: Callable[[str], str]) -> Iterator[None]:
    """Enter what cuts the work short into its account, as guarded(), and close that in the end."""
    try:
        with guarded(account, client):
            yield
    finally:
        close(place, account, hide)


@contextmanager
def guarded(account: Account, client: str) -> Iterator[None]:
    """Enter what cuts the work short into its account, as a problem.

    ``client`` is the program that is told of where one cannot be run.
    """
    try:
        yield
    except Interrupted as error:
        account.fail(str(error), 128 + error.signum, "interrupted")
    except CommandFailed as error:
        # Only the reason: the command line may hold a password.
        account.fail(f"{client}: {error.reason}", EX_UNAVAILABLE)
    except Refusal as refusal:
        account.fail(str(refusal), refusal.status)
    except Exception as error:
        account.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)


def in_each(task: Task, account: Account, work: Callable[[Task, Account], None]) -> None:
    """Do what there is to be done in each repository of a job, one after the other.

    One in which it fails does not keep the next from its turn; a signal ends all of it. Of
    several, each has a part of the account, which is taken into the whole in the end.
    """
    if not account.parts:
        work(task, account)
        return
    parts, account.parts = account.parts, []
    try:
        for each, part in zip((task, *task.more), parts, strict=True):
            part.began = time.time()
            with guarded(part, each.client.base_command(each.job)[0]):
                work(each, part)
            part.ended = time.time()
            if part.outcome == "interrupted":
                break
    finally:
        for part in parts:
            account.take(part)


def close(place: Place, account: Account, hide: Callable[[str], str]) -> None:
    """End an account and enter it, without secrets, into the job's history of upkeep."""
    account.ended = time.time()
    account.conceal(hide)
    try:
        state.remember_upkeep(place, as_dict(account))
    except (OSError, Refusal) as error:
        account.fail(f"the history cannot be written: {error}", EX_OSERR)


def as_dict(account: Account) -> dict[str, object]:
    """Return an account as plain data, for --json and the history."""
    return {
        "kind": account.kind,
        "program": account.program,
        "job": account.job,
        **_end_as_dict(account),
        "seconds": round(account.seconds, 3),
        "waited": round(account.waited, 3),
        "steps": [
            {
                "name": step.name,
                "kind": step.kind,
                "also": list(step.also),
                "outcome": step.outcome,
                "status": step.status,
                "seconds": round(step.seconds, 3),
                **({"repository": step.repository} if step.repository else {}),
            }
            for step in account.steps
        ],
        **({"env_file": account.env_file} if account.env_file else {}),
        **({"repositories": list(map(_part_as_dict, account.parts))} if account.parts else {}),
        **account.results,
        "problems": account.problems,
        "notes": account.notes,
    }


def _end_as_dict(account: Account) -> dict[str, object]:
    return {
        "outcome": account.outcome,
        "status": account.status,
        "began": iso(account.began),
        "ended": iso(account.ended),
    }


def _part_as_dict(part: Account) -> dict[str, object]:
    """Return what was done in one of several repositories, without its steps."""
    return {
        "name": part.repository,
        "env_file": part.env_file,
        **_end_as_dict(part),
        **part.results,
        "problems": part.problems,
        "notes": part.notes,
    }
