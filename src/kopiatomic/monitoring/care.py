"""What is done between backups, as the histories tell: when each kind of it last worked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kopiatomic.clients.records import CHECK, FORGET, MAINTENANCE, PRUNE
from kopiatomic.formatting import OUTCOMES, TOLERANCE, age, when
from kopiatomic.system.command import printable

UPKEEP, DRILL = "upkeep", "drill"

# What each kind of it is called; the order is that in which they are told.
NAMES = {
    CHECK: "repository check",
    FORGET: "retention",
    PRUNE: "prune",
    MAINTENANCE: "maintenance",
    DRILL: "restore drill",
}


@dataclass(frozen=True)
class PastCare:
    """An upkeep run or a restore drill of the past, as far as its entry could be read.

    ``steps`` are those of upkeep: what for, and ``ok``, ``failed`` or ``not run``. Of the
    ``files`` that a drill chose, ``restored`` came back as they were, of the mount points
    ``points``. It was done in the ``repository`` of this name, where the job has several; all
    that were looked after together have the same ``run``, when that began. ``env_file`` is the
    one that led to it, where the entry says so.
    """

    kind: str  # UPKEEP or DRILL
    outcome: str
    began: float | None = None
    steps: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    files: int | None = None
    restored: int | None = None
    points: tuple[str, ...] = ()
    ended: float | None = None
    repository: str = ""
    run: float | None = None
    env_file: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether all of it worked."""
        return self.outcome == "success"

    def results(self) -> dict[str, bool]:
        """Return for each kind of work that was tried whether it worked."""
        if self.kind == DRILL:
            return {DRILL: self.succeeded}
        found = {what: outcome == "ok" for what, outcome in self.steps if outcome != "not run"}
        if not self.succeeded and all(found.values()):
            # It ended before the next step had an outcome: the program was not there, say.
            found |= {what: False for what, outcome in self.steps if outcome == "not run"}
        return found


@dataclass(frozen=True)
class Work:
    """One kind of work: when it last worked, and the last try of it if that failed."""

    what: str
    worked: PastCare | None
    failed: PastCare | None
    repository: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        name = NAMES.get(self.what, self.what)
        return f"{name} of {printable(self.repository)}" if self.repository else name


def named(care: Iterable[PastCare], files: Mapping[str, str]) -> Iterator[PastCare]:
    """Return the same with the names that the job's repositories have in its backups.

    ``files`` are their env files by these names. What was done in one of them alone has no
    name in its entry.
    """
    names = {file: name for name, file in files.items()}
    for each in care:
        name = names.get(each.env_file or "")
        if name is None:
            yield each
        else:
            run = each.run if each.repository else each.began
            yield replace(each, repository=name, run=run)


def works(care: Sequence[PastCare], names: Iterable[str] = ()) -> list[Work]:
    """Return each kind of work that was ever tried; ``care`` is in order, oldest first.

    Of several repositories each has its own, but for those that are no longer the job's; so
    have those of these ``names`` in which it was never tried.
    """
    names = tuple(names)
    worked: dict[tuple[str, str], PastCare] = {}
    last: dict[tuple[str, str], PastCare] = {}
    wanted = {kind: repositories(care, kind, names) for kind in {each.kind for each in care}}
    for each in care:
        if each.repository not in wanted[each.kind]:
            continue
        for what, is_good in each.results().items():
            last[what, each.repository] = each
            if is_good:
                worked[what, each.repository] = each
    order = list(NAMES)
    tried = {what: None for what, _ in last}
    keys = [*last, *((what, name) for what in tried for name in names if (what, name) not in last)]
    keys.sort(key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    return [
        Work(
            key[0], worked.get(key), None if worked.get(key) is last.get(key) else last[key], key[1]
        )
        for key in keys
    ]


def repositories(care: Sequence[PastCare], kind: str, names: Iterable[str] = ()) -> list[str]:
    """Return the repositories in which this kind of work is to be done, by name.

    They are those of the last time, and of ``names``, which the job's backups go to. It is one
    without a name where the job has but one, or where the work was never done.
    """
    ours = [each for each in care if each.kind == kind]
    if not ours:
        return [""]
    last = [""]
    if ours[-1].repository:
        last = [each.repository for each in ours if each.run == ours[-1].run and each.repository]
    return list(dict.fromkeys((*last, *names)))


def last_worked(
    care: Iterable[PastCare], kind: str, now: float, repository: str = ""
) -> PastCare | None:
    """Return the last upkeep or drill that worked, if its date is not in the future."""
    good = [
        each for each in care
        if each.kind == kind and each.succeeded and each.repository == repository
        and each.began is not None and each.began <= now + TOLERANCE
    ]  # fmt: skip
    return good[-1] if good else None


def failure(failed: PastCare, more: str = "") -> str:
    """Say when a try failed and why, with what ``more`` there is to say before the reason."""
    why = f": {printable(failed.problems[0])}" if failed.problems else ""
    return f"{OUTCOMES[failed.outcome]} {when(failed.began)}{more}{why}"


def moment(worked: PastCare | None, now: float) -> str:
    """Say when something last worked."""
    if worked is None:
        return "never"
    return when(None) if worked.began is None else moment_of(worked.began, now)


def moment_of(then: float, now: float) -> str:
    """Say when something was, and how long ago."""
    return f"{when(then)}, {ago(now - then)}"


def ago(seconds: float) -> str:
    """Return how long ago something was, as the end of a sentence."""
    told = age(seconds)
    return told if told in ("just now", "in the future") else f"{told} ago"
