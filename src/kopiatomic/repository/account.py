"""The account of what is done between backups, and how it enters the job's history."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kopiatomic import state
from kopiatomic.errors import EX_OSERR, EX_SOFTWARE, EX_UNAVAILABLE, Refusal
from kopiatomic.formatting import iso
from kopiatomic.state import Place
from kopiatomic.system.command import CommandFailed
from kopiatomic.system.process import Interrupted


@dataclass
class Done:
    """How a step ended: ``ok``, ``failed`` or ``not run``; its status, where it has one.

    ``kind`` is that of a step of upkeep, ``also`` what else that does.
    """

    name: str
    outcome: str = "not run"
    status: int | None = None
    seconds: float = 0.0
    kind: str | None = None
    also: tuple[str, ...] = ()


@dataclass
class Account:
    """What upkeep or a restore drill came to; ``status`` is the exit status."""

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

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of all that is told."""
        for texts in (self.problems, self.notes):
            texts[:] = map(hide, texts)


@contextmanager
def kept(place: Place, account: Account, client: str, hide: Callable[[str], str]) -> Iterator[None]:
    """Enter what cuts the work short into its account, as a problem, and close that in the end.

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
    finally:
        close(place, account, hide)


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
        "outcome": account.outcome,
        "status": account.status,
        "began": iso(account.began),
        "ended": iso(account.ended),
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
            }
            for step in account.steps
        ],
        **account.results,
        "problems": account.problems,
        "notes": account.notes,
    }
