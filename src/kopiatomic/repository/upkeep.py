"""Upkeep of a repository: its check, its maintenance, and letting go of old backups.

It runs in the live system, with the client, environment and repository of the
job's backup, and under the job's lock: a backup and its upkeep never overlap.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kopiatomic import state
from kopiatomic.backup import preflight
from kopiatomic.clients import base
from kopiatomic.clients.base import backend_of, has_option, option_value
from kopiatomic.clients.invocation import base_command, by_hand
from kopiatomic.errors import EX_OSERR, EX_SOFTWARE, EX_UNAVAILABLE, Refusal
from kopiatomic.formatting import duration, headline, iso, table
from kopiatomic.job import Job
from kopiatomic.redact import redactor
from kopiatomic.state import Place
from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, Door, decode, describe_status, printable
from kopiatomic.system.process import Ended, Interrupted, Signals, Streams

# How kopia names the one who may do maintenance.
_KOPIA_OWNER = re.compile(r"must be run by designated user: (\S{1,300})")

# restic forget's short forms of --keep-last and so on; its -H is not the host.
_SHORT_KEEP = ("-l", "-H", "-d", "-w", "-m", "-y")

# Its other options that take a word.
_FORGET_WORDS = (
    "--host", "--tag", "--path", "-g", "--group-by", "--max-unused", "--max-repack-size",
    "--repack-smaller-than",
)  # fmt: skip

# With these restic would let go of everything after all.
_DANGEROUS = ("--unsafe-allow-remove-all",)

_DAMAGED = (
    "the repository may be damaged: keep all copies, prune nothing, and read restic's chapter "
    "Troubleshooting before anything else"
)


_NOTHING_REMOVED = (
    "restic could not remove backups, which is right if this machine may only add to the "
    "repository: leave --forget and --prune to one that may remove"
)


@dataclass(frozen=True)
class Wishes:
    """Which steps were asked for; ``verify`` is how much of the data, in percent."""

    verify: float | None = None
    maintenance: bool = False
    forget: tuple[str, ...] | None = None
    prune: bool = False


@dataclass(frozen=True)
class Step:
    """One call of the client."""

    name: str
    argv: tuple[str, ...]


@dataclass
class Done:
    """How a step ended: ``ok``, ``failed`` or ``not run``; its status, where it has one."""

    name: str
    outcome: str = "not run"
    status: int | None = None
    seconds: float = 0.0


@dataclass
class Account:
    """What upkeep or a restore drill came to; ``status`` is the exit status."""

    kind: str  # upkeep or drill
    program: str
    job: str
    began: float
    ended: float = 0.0
    outcome: str = "success"
    status: int = 0
    steps: list[Done] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    said: str = ""  # the end of what the client printed

    def fail(self, message: str, status: int, outcome: str = "failed") -> None:
        """Add a problem; the first one decides about the outcome and the exit status."""
        self.problems.append(message)
        if self.status == 0:
            self.status, self.outcome = status, outcome

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of all that is told."""
        for texts in (self.problems, self.notes):
            texts[:] = map(hide, texts)


def run(
    job: Job, door: Door, streams: Streams, inherited: Mapping[str, str], wishes: Wishes
) -> Account:
    """Do the steps that were asked for, one after the other, and return the account.

    The first that fails is the last: what damaged data could make worse comes
    after the check of it. Raises Refusal before anything was started.
    """
    preflight.need_root(job)
    environment = base.client_environment(job, inherited, None)
    steps = plan(job, wishes, environment)
    program = preflight.client_program(job)
    hide = redactor(environment, [*job.command, *job.options], program)
    streams = replace(streams, hide=hide)
    place = Place(job.program, job.name)
    with state.lock(place), Signals() as signals:
        account = Account("upkeep", job.program, job.name, began=time.time())
        account.steps = [Done(step.name) for step in steps]
        try:
            for step, done in zip(steps, account.steps, strict=True):
                signals.check()
                if account.status:
                    break
                # What forget says has to be read, also where a person watches.
                how = replace(streams, capture=streams.capture or step.name.startswith("forget"))
                ended = process.run(door, step.argv, environment, signals, how)
                done.status, done.seconds = ended.status, ended.seconds
                account.said = decode(ended.said)
                done.outcome = "ok" if ended.status == 0 else "failed"
                signals.check()
                _judge(job, account, done, ended)
        except Interrupted as error:
            account.fail(str(error), 128 + error.signum, "interrupted")
        except CommandFailed as error:
            # Only the reason: the command line may hold a password.
            account.fail(f"{steps[0].argv[0]}: {error.reason}", EX_UNAVAILABLE)
        except Exception as error:
            account.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)
        finally:
            close(place, account, hide)
    return account


def close(place: Place, account: Account, hide: Callable[[str], str]) -> None:
    """End an account and enter it, without secrets, into the job's history of upkeep."""
    account.ended = time.time()
    account.conceal(hide)
    try:
        state.remember_upkeep(place, as_dict(account))
    except (OSError, Refusal) as error:
        account.fail(f"the history cannot be written: {error}", EX_OSERR)


def _judge(job: Job, account: Account, done: Done, ended: Ended) -> None:
    text = (ended.messages + b"\n" + ended.output).decode("utf-8", "replace")
    if done.name.startswith("forget") and "unable to remove snapshot/" in text:
        # restic goes on, and may end well, where it may not remove what it should forget.
        done.outcome = "failed"
        account.fail(f"{done.name}: {_NOTHING_REMOVED}", ended.status or EX_UNAVAILABLE)
    if account.status or ended.status == 0:
        return
    told = _hint(job, done.name, ended.status, text)
    message = f"{done.name}: {describe_status(ended.status)}"
    account.fail(f"{message}; {told}" if told else message, exit_status(ended.status))


def exit_status(status: int) -> int:
    """Return the exit status that passes on a client's, which may be a signal."""
    return status if status > 0 else 128 - status


def _hint(job: Job, step: str, status: int, text: str) -> str | None:
    owner = _KOPIA_OWNER.search(text)
    if owner:
        take_over = by_hand(job)("maintenance set --owner=me")
        return (
            f"the maintenance of this repository belongs to {owner[1]} alone: leave "
            f"it to that one, or take it over for good: {take_over}"
        )
    if "only on direct repository" in text:
        return (
            "this machine reaches the repository through a kopia server, which does the "
            "maintenance itself or leaves it to a machine that has the storage; do it there"
        )
    known = status_hint(job, status, text)
    if known is None and job.program == "restomic" and status == 1 and step.startswith("check"):
        return _DAMAGED
    return known


def status_hint(job: Job, status: int, text: str = "") -> str | None:
    """Say what a client's exit status means outside of a backup, where that is known.

    ``text`` is what it said, for who holds a lock; the rest of that is about views.
    """
    parts = backend_of(job.program)
    # restic's 3 is about files that a backup could not read.
    known = None if status == 3 else parts.hint(status, "")
    return parts.locked(status, text, by_hand(job)) or known


# The commands


def plan(job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[Step]:
    """Return the steps that were asked for, in their order; raises Refusal.

    The check comes first, so that nothing is thrown away in a damaged repository.
    """
    _refuse_what_the_client_lacks(job, wishes)
    base = base_command(job)
    steps = (
        _kopia_steps(base, wishes)
        if job.program == "kopiatomic"
        else _restic_steps(job, base, wishes, environment)
    )
    if not steps:
        ways = "--verify or --maintenance"
        if job.program == "restomic":
            ways = "--verify, --forget or --prune"
        raise Refusal(f"--upkeep: say what is to be done: {ways}")
    return steps


def _refuse_what_the_client_lacks(job: Job, wishes: Wishes) -> None:
    if job.program == "restomic" and wishes.maintenance:
        raise Refusal("--maintenance is kopia's; restic has --forget and --prune")
    if job.program == "kopiatomic" and (wishes.forget is not None or wishes.prune):
        raise Refusal(
            "--forget and --prune are restic's; kopia lets go of backups by its policies, "
            "and of data by --maintenance"
        )


def _kopia_steps(base: Sequence[str], wishes: Wishes) -> list[Step]:
    steps = []
    if wishes.verify is not None:
        percent = f"--verify-files-percent={wishes.verify:g}"
        name = "snapshot verify" + _share(wishes.verify, "of the files")
        steps.append(Step(name, (*base, "snapshot", "verify", percent)))
    if wishes.maintenance:
        steps.append(Step("full maintenance", (*base, "maintenance", "run", "--full")))
    return steps


def _restic_steps(
    job: Job, base: Sequence[str], wishes: Wishes, environment: Mapping[str, str]
) -> list[Step]:
    steps = []
    if wishes.verify is not None:
        subset = [f"--read-data-subset={wishes.verify:g}%"] if wishes.verify else []
        name = "check" + _share(wishes.verify, "of the data")
        steps.append(Step(name, (*base, "check", *subset)))
    if wishes.forget is not None:
        words = _forget_words(job, wishes, environment)
        name = "forget and prune" if wishes.prune else "forget"
        steps.append(Step(name, (*base, "forget", *words)))
    elif wishes.prune:
        steps.append(Step("prune", (*base, "prune")))
    return steps


def _share(percent: float, of: str) -> str:
    return f" with {percent:g} % {of}" if percent else ""


def _forget_words(job: Job, wishes: Wishes, environment: Mapping[str, str]) -> list[str]:
    words = list(wishes.forget or ())
    check_forget(words)
    if not has_option(words, "--host"):
        words = ["--host", host_of(job, environment), *words]
    if wishes.prune and "--prune" not in words:
        words.append("--prune")
    return words


def check_forget(words: Sequence[str]) -> None:
    """Refuse flags of restic forget with which it would not keep to a policy.

    Without --keep flags there is nothing that it has to keep; with a snapshot's
    name it forgets that one, whatever the policy says.
    """
    for word in words:
        if word.split("=", 1)[0] in _DANGEROUS:
            raise Refusal(f"--forget: {word} could leave no backup at all; leave it out")
    takes_word = False
    keeps = False
    for word in words:
        if takes_word:
            takes_word = False
        elif not word.startswith("-"):
            raise Refusal(
                f"--forget: '{word}' belongs to no option; give flags of restic forget only, "
                "as in --forget '--keep-daily 7 --keep-weekly 5'"
            )
        else:
            keep = word.startswith("--keep-") or word[:2] in _SHORT_KEEP
            keeps = keeps or keep
            bare = word in _SHORT_KEEP or (word.startswith("--keep-") and "=" not in word)
            takes_word = bare or word in _FORGET_WORDS
    if not keeps:
        raise Refusal(
            "--forget needs to know what to keep: without a --keep flag every backup could go; "
            "for example --forget '--keep-daily 7 --keep-weekly 5'"
        )


def host_of(job: Job, environment: Mapping[str, str]) -> str:
    """Return the host name under which restic stores this job's backups."""
    given = option_value([*job.command, *job.options], "--host", "-H")
    return given or environment.get("RESTIC_HOST") or os.uname().nodename


# The report


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
        "seconds": round(account.ended - account.began, 3),
        "steps": [
            {
                "name": step.name,
                "outcome": step.outcome,
                "status": step.status,
                "seconds": round(step.seconds, 3),
            }
            for step in account.steps
        ],
        "problems": account.problems,
        "notes": account.notes,
    }


def as_text(account: Account) -> str:
    """Return the account of an upkeep run for a person."""
    took = account.ended - account.began
    lines = [headline(account.program, account.job, "upkeep", account.outcome, took)]
    lines += [f"  ! {printable(problem)}" for problem in account.problems]
    lines += ["", *table([(step.name, _how(step)) for step in account.steps])]
    return "\n".join(lines) + "\n"


def _how(step: Done) -> str:
    if step.status is None:
        return step.outcome
    took = duration(step.seconds)
    status = "" if step.status == 0 else f" ({describe_status(step.status)})"
    return f"{step.outcome}{status}, {took}"


def percent_of(text: str) -> float:
    """Return a percentage that was given as an option's text; raises Refusal."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise Refusal(f"--verify {text}: a number from 0 to 100 is wanted, in percent")
    return value
