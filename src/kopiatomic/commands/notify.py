"""Telling a command of the user's how a backup, upkeep or a drill has ended, or why not begun.

That command is for monitoring. What becomes of it is told, and changes nothing of what
there is to tell: a backup does not get worse because nobody could be told of it.
"""

import os
import sys
from collections.abc import Callable, Mapping

from kopiatomic import redact
from kopiatomic.clients.base import Task
from kopiatomic.commands.common import show
from kopiatomic.environment import inherit
from kopiatomic.errors import PERIODIC_INFORMATION
from kopiatomic.formatting import duration, for_environment, title, what_was_said
from kopiatomic.record import Record
from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, Door, decode, describe_status, printable
from kopiatomic.system.process import Ended, Signals, Streams

# A server that does not answer must not hold up the mail of the night; in seconds.
LIMIT = 300.0


class Notice(Record):
    """What is told: ``text`` is the report, all else goes into the environment.

    ``action`` is backup, upkeep or drill; ``outcome`` is one of a report, or refused.
    ``job`` is empty where it has no valid name, ``run`` where no backup has begun.
    """

    program: str
    job: str
    action: str
    outcome: str
    status: int
    message: str
    text: str
    run: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The environment that tells it."""
        return {
            "KOPIATOMIC_PROGRAM": self.program,
            "KOPIATOMIC_JOB": self.job,
            "KOPIATOMIC_RUN": self.run,
            "KOPIATOMIC_ACTION": self.action,
            "KOPIATOMIC_OUTCOME": self.outcome,
            "KOPIATOMIC_STATUS": str(self.status),
            "KOPIATOMIC_MESSAGE": for_environment(self.message),
        }


def tell_end(task: Task, notice: Notice, values: Mapping[str, str], status: int) -> int:
    """Tell the job's command of an end, if it has one; return the exit status.

    That is ``status``, but for periodic(8), which would not show a failed command with 0.
    """
    if task.job.notify is None:
        return status
    told = _tell(task.door, task.job.notify, notice, values, task.hide)
    if not told and "--periodic" in values:
        return status or PERIODIC_INFORMATION
    return status


def tell_refusal(notice: Notice, values: Mapping[str, str], umask: int) -> None:
    """Tell the command that ``values`` name, if any, why nothing was done.

    ``values`` are the options of the command line as far as it could be read.
    """
    command = values.get("--notify")
    if command is None or "-n" in values:
        return
    words = [word for option in ("-c", "-o") for word in values.get(option, "").split()]
    texts = [values[option] for option in ("-p", "-s", "-q", "--notify") if option in values]
    hide = redact.redactor(inherit(os.environ), words, "\n".join(texts))
    trace = _traced(hide) if "--verbose" in values else None
    _tell(Door(trace, None, umask), command, notice, values, hide)


def _traced(hide: Callable[[str], str]) -> Callable[[str], None]:
    return lambda line: print(hide(line), file=sys.stderr, flush=True)


def _tell(
    door: Door, command: str, notice: Notice, values: Mapping[str, str],
    hide: Callable[[str], str],
) -> bool:  # fmt: skip
    """Run the command; say whether it was told. If not, print why."""
    notice = notice._replace(message=hide(notice.message), text=hide(notice.text))
    periodic = "--periodic" in values
    where = None if periodic else 2  # standard output is for the report alone
    streams = Streams(output=where, messages=where, hide=hide)
    said = b""
    with Signals() as signals:
        try:
            ended = process.run_told(
                door, ["/bin/sh", "-c", command], {**inherit(os.environ), **notice.variables},
                signals, streams, notice.text.encode("utf-8", "backslashreplace"), LIMIT,
            )  # fmt: skip
            problem, said = _problem(ended, signals), ended.said
        except CommandFailed as error:
            problem = error.reason
        except Exception as error:
            problem = f"internal error, please report it: {error!r}"
    if problem is None:
        return True
    problem = f"the command of --notify {printable(hide(problem))}"
    if periodic:
        line = f"{title(notice.program, notice.job or 'default')}: {problem}\n"
        show(line + what_was_said("it", decode(said)))
    else:
        print(f"{notice.program}: {problem}", file=sys.stderr)
    return False


def _problem(ended: Ended, signals: Signals) -> str | None:
    """Say why the command was not told, or None if it was."""
    if signals.overdue:
        return f"was ended because it took more than {duration(LIMIT)}"
    if ended.status == 0:
        return None
    return f"failed, {describe_status(ended.status)}"
