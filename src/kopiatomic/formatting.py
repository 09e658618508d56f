"""How times, sizes, tables and outcomes are written, for people and for programs."""

import json
import time
from collections.abc import Mapping, Sequence

from kopiatomic.system.command import printable

OUTCOMES = {
    "success": "succeeded",
    "trouble": "succeeded, but NOT ALL IS WELL",
    "unchanged": "was NOT NEEDED",
    "incomplete": "is INCOMPLETE",
    "failed": "FAILED",
    "interrupted": "was INTERRUPTED",
}


# How much of what went wrong goes into the environment, in characters: a program with more
# than fits there is not started at all. All of it is in the report.
MESSAGE = 4000

# How much of a client's output a mail contains, in lines.
MAIL_LINES = 40

# How far a moment may lie in the future, in seconds: a clock is set back a little at times.
TOLERANCE = 600.0


def iso(seconds: float) -> str:
    """Return a moment in local time with its zone's offset, as the histories and JSON have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def clock(seconds: float) -> str:
    """Return a moment in local time as people read it, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def when(moment: float | None) -> str:
    """Return a moment to the minute, for a column."""
    if moment is None:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def age(seconds: float) -> str:
    """Return how long ago something was, in words."""
    if seconds < -TOLERANCE:
        return "in the future"
    minutes = max(0, int(seconds // 60))
    if minutes < 60:
        return f"{minutes} min" if minutes else "just now"
    days, hours = divmod(minutes // 60, 24)
    if not days:
        return f"{hours} h"
    return f"{days} d {hours} h" if hours else f"{days} d"


def duration(seconds: float) -> str:
    """Return a span of time, given in seconds, in suitable units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def waited(seconds: float) -> list[str]:
    """Return a line about a wait for the job's lock; nothing for none."""
    if not seconds:
        return []
    return [f"  waited {duration(seconds)} for another run of the job to end"]


def size(count: int) -> str:
    """Return a number of bytes in binary units, to three figures."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return rows of two columns, indented, the second one aligned up to a width of 40."""
    shown = [(printable(left), printable(right)) for left, right in rows]
    width = min(max((len(left) for left, _ in shown), default=0), 40)
    return [f"  {left:<{width}}  {right}" for left, right in shown]


def section(title: str, items: Sequence[str]) -> list[str]:
    """Return a title and indented lines below it, after an empty line; nothing for nothing."""
    return ["", title, *(f"  {printable(item)}" for item in items)] if items else []


def title(program: str, job: str) -> str:
    """Return what a report begins with: the program, and its job if that has a name."""
    return program if job == "default" else f"{program} (job {job})"


def headline(program: str, job: str, what: str, outcome: str, seconds: float) -> str:
    """Return the first line of a report: which job it is of, how that ended, how long it took."""
    return f"{title(program, job)}: {what} {OUTCOMES[outcome]}, {duration(seconds)}"


def what_was_said(name: str, said: str) -> str:
    """Return the end of what a program printed, indented below a title; nothing for nothing."""
    lines = said.rstrip("\n").split("\n")
    if lines == [""]:
        return ""
    of = f" (its last {MAIL_LINES} lines)" if len(lines) > MAIL_LINES else ""
    shown = "".join(f"  {printable(line)}\n" for line in lines[-MAIL_LINES:])
    return f"\nWhat {name} said{of}:\n{shown}"


def as_json(data: Mapping[str, object]) -> str:
    """Return data as indented JSON with a newline at its end."""
    return json.dumps(data, indent=2) + "\n"


def for_environment(message: str) -> str:
    """Return what a hook's environment is told of what went wrong, as one printable line."""
    return printable(message[:MESSAGE])
