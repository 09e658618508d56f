"""What a run came to, for people and for programs."""

import os
import time
from collections.abc import Callable, Iterable, Sequence

from kopiatomic.backup.client_runs import VOLUME, Called, ClientRun
from kopiatomic.backup.names import clone_of
from kopiatomic.backup.news import ASKED, QUIET, UNMOUNTABLE, News, news
from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import LOST, Captured, LeftOut
from kopiatomic.backup.view import hold_command, mount_command
from kopiatomic.formatting import (
    clock,
    duration,
    headline,
    iso,
    section,
    size,
    table,
    waited,
    what_was_said,
)
from kopiatomic.record import Record
from kopiatomic.state import Place
from kopiatomic.system.command import describe_status, fits, printable, quote
from kopiatomic.system.zfs import by_pool, snapshot_command

# How many backups a report names.
MOST_NAMES = 3

# Of more captured datasets than MOST_CAPTURED a report names the first FEW; of what is new
# it names MOST_NEW of each sort.
MOST_CAPTURED, FEW, MOST_NEW = 20, 5, 10

# How bad an outcome is; of several, the worst is the run's.
_RANK = {"success": 0, "unchanged": 0, "trouble": 1, "incomplete": 2, "interrupted": 3, "failed": 3}

# How many lines of what the client said on standard error a report of a good run has.
COMPLAINTS = 12


class _Fault(Record):
    """A problem: its exit status, what it makes of the run, and the client run that had it."""

    status: int
    outcome: str
    run: Called | None


class Report:
    """The account of one run, which fills it in as it goes.

    Times are seconds as time(3) has them; ``hooks`` are the programs that hooks begin
    with, as far as these are paths.
    """

    def __init__(
        self,
        program: str,
        job: str,
        run: str,
        began: float,
        env_files: tuple[str, ...] = (),
        command: tuple[str, ...] = (),
        hooks: tuple[str, ...] = (),
    ) -> None:
        self.program, self.job, self.run, self.began = program, job, run, began
        self.env_files, self.command, self.hooks = env_files, command, hooks
        self.ended = 0.0
        self.waited = 0.0  # before it began, for another run of the job to end
        self.runs: list[Called] = []  # the client runs, in their order
        self._faults: list[_Fault] = []
        self.captured_at: dict[str, float] = {}  # by pool: when its snapshots had been made
        self.plan: Plan | None = None
        self.selection: dict[str, object] = {}  # what the job was told to back up
        self.compared: News | None = None  # what is new in the plan, once that is known
        self.said = ""  # the end of the client's output
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.layout: dict[str, object] | None = None  # what the history is to know of it
        self.layouts: list[str] = []  # where the layout of the pools has been saved
        self.swept: list[str] = []
        self.lists: tuple[str, ...] = ()  # the files in which it is listed what to back up
        self.is_needless = False  # whether the last good backup has all that there is
        self.stuck: list[str] = []  # snapshots of earlier runs that stay

    def fail(
        self, message: str, status: int, outcome: str = "failed", run: Called | None = None
    ) -> None:
        """Add a problem, of a client run or of the run as a whole.

        The worst one decides about the outcome and the exit status, of those alike the first.
        """
        told = f"{run.name}: {message}" if run is not None and len(self.runs) > 1 else message
        self.problems.append(told)
        self._faults.append(_Fault(status, outcome, run))
        for each in self.runs if run is None else (run,):
            each.lacking = each.lacking or outcome == "incomplete"

    def begin_runs(self, runs: Iterable[Called]) -> None:
        """Enter the client runs that are to be made; what is lacking already they all lack."""
        self.runs = list(runs)
        for each in self.runs:
            each.lacking = any(fault.outcome == "incomplete" for fault in self._faults)

    @property
    def outcome(self) -> str:
        """What became of the run, which is as good as the worst of its client runs."""
        return self._verdict()[0]

    @property
    def status(self) -> int:
        """The exit status of the run."""
        return self._verdict()[1]

    @property
    def saved(self) -> bool:
        """Whether each client run has made a backup, which may lack something."""
        return bool(self.runs) and all(run.saved for run in self.runs)

    def _verdict(self) -> tuple[str, int]:
        outcome, status = "unchanged" if self.is_needless else "success", 0
        for fault in self._faults:
            weighed = self._weighed(fault)
            if _RANK[weighed] > _RANK[outcome]:
                outcome, status = weighed, fault.status
        return outcome, status

    def _weighed(self, fault: _Fault) -> str:
        """Return what a problem makes of the run, where there is a backup beside it.

        No problem makes a backup that there is a failed one. If something is missing in
        it, or another client run has made none, it is incomplete.
        """
        if fault.outcome == "incomplete" or not any(run.saved for run in self.runs):
            return fault.outcome
        is_beside = self.saved or (fault.run is not None and fault.run.saved)
        return "trouble" if is_beside else "incomplete"

    def not_needed(self) -> None:
        """Note that no backup is made, since a good one has all that there is."""
        self.is_needless = True

    def blames(self, run: Called) -> bool:
        """Say whether a problem is that of a client run."""
        return any(fault.run is run for fault in self._faults)

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of whatever came from outside."""
        self.said = hide(self.said)
        for texts in (self.problems, self.notes, self.swept):
            texts[:] = map(hide, texts)
        self.command = tuple(map(hide, self.command))
        for run in self.runs:
            run.conceal(hide)

    @property
    def called(self) -> list[Called]:
        """The client runs in which the client was started."""
        return [run for run in self.runs if run.status is not None]

    @property
    def complaints(self) -> str:
        """What the clients said on standard error that is to be told, each line once."""
        lines = [line for run in self.runs for line in run.complaints.splitlines()]
        return "\n".join(dict.fromkeys(lines))

    @property
    def noteworthy(self) -> bool:
        """Whether a good run has something to tell that is not so every night."""
        news, notes = self.news, self.notes_to_tell
        told = notes or self.swept or self.complaints or news.is_any or self.waited
        return bool(told or any(run.tries for run in self.runs))

    @property
    def news(self) -> News:
        """What is new in the plan: all that there is, as long as nothing is known before it."""
        return self.compared or news(self.plan, None)

    @property
    def notes_to_tell(self) -> list[str]:
        """The notes, without those of the plan that the last good backup had as well."""
        standing = self.plan.notes if self.plan else ()
        known = set(standing).difference(self.news.notes)
        return [note for note in self.notes if note not in known]

    @property
    def moment(self) -> float | None:
        """When the last of the snapshots had been made, or None if none was."""
        return max(self.captured_at.values(), default=None)


def as_dict(report: Report) -> dict[str, object]:
    """Return a report as plain data, for --json and the history."""
    plan = report.plan
    return {
        "program": report.program,
        "job": report.job,
        "run": report.run,
        "env_file": next(iter(report.env_files), None),
        "env_files": list(report.env_files),
        "command": list(report.command),
        "hooks": list(report.hooks),
        **({"lists": list(report.lists)} if report.lists else {}),
        "outcome": report.outcome,
        "status": report.status,
        "began": iso(report.began),
        "ended": iso(report.ended),
        "seconds": round(report.ended - report.began, 3),
        "waited": round(report.waited, 3),
        "moment": None if report.moment is None else iso(report.moment),
        "captured_at": {pool: iso(when) for pool, when in report.captured_at.items()},
        "selection": report.selection,
        **_chosen(plan),
        **_taken(plan),
        "changes": _changes_as_dict(report.news),
        "paths": list(plan.paths) if plan else [],
        **_client_as_dict(report),
        "complaints": report.complaints.splitlines(),
        "problems": report.problems,
        "notes": report.notes,
        "layout": report.layout,
        "swept": report.swept,
    }


def _client_as_dict(report: Report) -> dict[str, object]:
    """Return the client runs; what there was before there could be several is the first one's."""
    first = report.runs[0] if report.runs else Called(ClientRun())
    told = _run_as_dict(report, first)
    return {
        "client": told["client"],
        "tries": told["tries"],
        "found_in_backup": told["found_in_backup"],
        "client_runs": [_run_as_dict(report, run) for run in report.runs],
    }


def _run_as_dict(report: Report, called: Called) -> dict[str, object]:
    run, files = called.run, report.env_files
    return {
        "name": called.name,
        "kind": run.kind,
        "of": run.of or None,
        "repository": called.repository or None,
        "env_file": files[run.repository] if run.repository < len(files) else None,
        "outcome": called.outcome,
        "paths": list(run.paths),
        "stream": run.stream,
        "backups": list(called.backups or called.figures.snapshots),
        "client": {
            "command": called.words,
            "status": called.status,
            "seconds": round(called.seconds, 3),
            **called.figures._asdict(),
        },
        "tries": [
            {"status": each.status, "seconds": round(each.seconds, 3), "reason": each.reason}
            for each in called.tries
        ],
        "found_in_backup": None if called.proof is None else list(called.proof),
        **_volume_as_dict(called),
    }


def _volume_as_dict(called: Called) -> dict[str, object]:
    if called.run.kind != VOLUME:
        return {}
    from kopiatomic.system import fingerprint

    taken = called.fingerprint
    return {"size": called.size, "blocks": [] if taken is None else fingerprint.as_list(taken)}


def _chosen(plan: Plan | None) -> dict[str, object]:
    captured = plan.captured if plan else ()
    volumes = plan.volumes if plan else ()
    left_out = plan.left_out if plan else ()
    return {
        "captured": [
            *map(_captured_as_dict, captured),
            *({**_captured_as_dict(each), "kind": VOLUME} for each in volumes),
        ],
        "left_out": [{"name": e.name, "kind": e.kind, "reason": e.reason} for e in left_out],
        "not_frozen": list(plan.live) if plan else [],
    }


def _captured_as_dict(each: Captured) -> dict[str, object]:
    why: dict[str, object] = {"unmounted": each.unmounted} if each.unmounted else {}
    if each.directories:
        why["directories"] = list(each.directories)
    row: dict[str, object] = {"dataset": each.dataset, "mountpoint": each.point, **why}
    if each.existing is None:
        return row
    from kopiatomic.backup import existing

    return {**row, **existing.row_of(each.existing)}


def _takes(plan: Plan | None) -> bool:
    """Say whether a plan takes existing snapshots."""
    return plan is not None and any(each.existing is not None for each in plan.captured)


def _taken(plan: Plan | None) -> dict[str, object]:
    if plan is None or not _takes(plan):
        return {}
    from kopiatomic.backup import existing

    return existing.as_dict(plan.captured)


def _changes_as_dict(new: News) -> dict[str, object] | None:
    """Return what is new since the last good backup, or None if there was none."""
    if new.since is None:
        return None
    return {
        "captured": [name for name, _ in new.captured],
        "missing": [each.name for each in new.missing],
        "left_out": [each.name for each in new.left_out],
        "gone": list(new.gone),
    }


def as_text(report: Report) -> str:
    """Return a report for a person: first whether all is well, then what there is to know."""
    took = report.ended - report.began
    lines = [headline(report.program, report.job, "the backup", report.outcome, took)]
    lines += [f"  ! {problem}" for problem in map(printable, report.problems)]
    lines += waited(report.waited)
    lines += _nothing_new(report)
    lines += _new(report)
    if report.captured_at and report.plan:
        lines += _captured(report, report.plan)
    lines += _left_out(report)
    lines += section("Live, not frozen, because the client needs it so:", report.news.live)
    lines += _as_before(report)
    for run in report.called:
        lines += ["", *_client(report, run)]
    lines += [f"  the layout of the pools {each}" for each in report.layouts]
    lines += section("Tried before, but the repository could not be reached:", _tries(report))
    lines += _complaints(report)
    lines += section("Note:", report.notes_to_tell)
    lines += section("Removed, left behind by an earlier run:", report.swept)
    return "\n".join(lines) + "\n"


def as_mail(report: Report) -> str:
    """Return a report for periodic(8)'s mail: with what the client said, if that matters."""
    if not report.problems:
        return as_text(report)
    name = _called(report, "the command")
    blamed = [run for run in report.called if report.blames(run) and run.printed]
    if len(report.runs) < 2 or not blamed:
        return as_text(report) + what_was_said(name, report.said)
    said = (what_was_said(f"{name}, {printable(run.name)},", run.printed) for run in blamed)
    return as_text(report) + "".join(said)


def _called(report: Report, otherwise: str = "the client") -> str:
    """Return what the client's command is called, as far as one was made up."""
    words = next((run.words for run in report.runs if run.words), None)
    return os.path.basename(words[0]) if words else otherwise


def _new(report: Report) -> list[str]:
    """Return what is new since the last good backup; nothing of a first one.

    Where there is no backup at all, the next one tells it.
    """
    new = report.news
    if new.since is None or not report.saved:
        return []
    gone = "destroyed, renamed, without its pool, or no longer chosen"
    was = "was in that backup; now: "
    sorts = [
        ("missing", [(each.name, f"{was}{each.reason}") for each in new.missing]),
        ("left out", [(each.name, each.reason) for each in new.left_out]),
        ("gone", [(name, gone) for name in new.gone]),
        ("captured", list(new.captured)),
    ]
    width = min(max((len(name) for _, rows in sorts for name, _ in rows), default=0), 40)
    lines = []
    for what, rows in sorts:
        for name, text in rows[:MOST_NEW]:
            lines.append(f"{what:<8}  {printable(name):<{width}}  {text}")
        if len(rows) > MOST_NEW:
            lines.append(f"{what:<8}  and {len(rows) - MOST_NEW:,} more")
    return section(f"New since the last good backup, of {new.since}:", lines)


def _nothing_new(report: Report) -> list[str]:
    if report.outcome != "unchanged" or report.plan is None:
        return []
    from kopiatomic.backup import existing

    return existing.nothing_new(report.plan.captured, report.ended)


def _captured(report: Report, plan: Plan) -> list[str]:
    count, when = len(plan.members), _when(report)
    shown = plan.members if count <= MOST_CAPTURED else plan.members[:FEW]
    rows = table([(each.dataset, each.shown) for each in shown])
    if _takes(plan):
        from kopiatomic.backup import existing

        when, rows = existing.headline(plan.captured), table(existing.rows(shown))
    if len(shown) == count:
        return ["", f"{when}:", *rows, *_unmounted(plan)]
    more = f"  and {count - len(shown):,} more"
    return ["", f"{when}: {count:,} datasets", *rows, more, *_unmounted(plan)]


def _unmounted(plan: Plan) -> list[str]:
    """Return what a plan captures although nothing shows it on the machine, and where."""
    rows = [
        LeftOut(each.dataset, f"shown at {each.point}: {each.unmounted}")
        for each in plan.captured
        if each.unmounted
    ]
    return _some("Captured although not mounted:", rows)


def _left_out(report: Report) -> list[str]:
    """Return what a first backup leaves out; of a later one that is in what is new."""
    plan, new = report.plan, report.news
    if plan is None or new.since is not None:
        return []
    lines = _some("Left out:", new.left_out)
    asked = [each for each in plan.left_out if each.kind in ASKED]
    lines += _some("Left out as you asked:", asked)
    nowhere = [each.name for each in plan.left_out if each.kind in UNMOUNTABLE]
    if nowhere:
        told = ", ".join(nowhere[:MOST_CAPTURED])
        more = f" and {len(nowhere) - MOST_CAPTURED:,} more" if len(nowhere) > MOST_CAPTURED else ""
        title = "Never mounted (canmount=off or mountpoint=none), so without files to back up:"
        lines += section(title, [f"{told}{more}"])
    twice = [each for each in plan.left_out if each.kind in QUIET - ASKED - UNMOUNTABLE]
    lines += _some("In the backup at another place:", twice)
    if any(each.kind != LOST for each in plan.left_out):
        where = status_in_full(report)
        # A mail would have a ">" before a line that begins with "From ".
        lines += ["", f"The next reports name only changes; '{where}' lists everything."]
    return lines


def _some(title: str, rows: Sequence[LeftOut]) -> list[str]:
    if not rows:
        return []
    lines = table([(each.name, each.reason) for each in rows[:MOST_CAPTURED]])
    more = len(rows) - MOST_CAPTURED
    return ["", title, *lines, *([f"  and {more:,} more"] if more > 0 else [])]


def _as_before(report: Report) -> list[str]:
    """Return a line that counts what is as it was in the last good backup."""
    plan, new = report.plan, report.news
    if plan is None or new.since is None or not report.saved:
        return []
    counts = [
        (len(plan.left_out) - len(new.left_out) - len(new.missing), "left out"),
        (len(plan.live) - len(new.live), "live and not frozen"),
        (len(report.notes) - len(report.notes_to_tell), "noted"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in counts if count > 0)
    return ["", f"As before: {told}; '{status_in_full(report)}' lists them."] if told else []


def status_in_full(report: Report) -> str:
    """Return the command that lists all that the job captures and leaves out."""
    return Place(report.program, report.job).full_status_command


def _when(report: Report) -> str:
    pools = sorted(report.captured_at, key=lambda pool: report.captured_at[pool])
    first, last = report.captured_at[pools[0]], report.captured_at[pools[-1]]
    if len(pools) == 1:
        return f"Captured at one moment, {clock(last)}"
    return (
        f"Captured {clock(last)}, one moment for each pool; "
        f"{' and '.join((pools[0], pools[-1]))} lie {last - first:.1f} s apart"
    )


def _client(report: Report, run: Called) -> list[str]:
    figures = run.figures
    facts = []
    if run.run.kind == VOLUME:
        # The client tells of a new file each time, and may round its size.
        figures = figures._replace(files=None, new_or_changed=None)
        if run.proof is not None and run.proof[0]:
            figures = figures._replace(size=run.size)
    if figures.files is not None:
        facts.append("1 file" if figures.files == 1 else f"{figures.files} files")
    if figures.size is not None:
        facts.append(size(figures.size))
    if figures.new_or_changed is not None:
        facts.append(f"{figures.new_or_changed} new or changed")
    if figures.added is not None:
        facts.append(f"{size(figures.added)} added")
    if figures.excluded:
        facts.append("some excluded")
    how = "" if run.status == 0 else f", {describe_status(run.status or 0)}"
    told = f": {', '.join(facts)}" if facts else ""
    which = f", {printable(run.name)}" if len(report.runs) > 1 else ""
    lines = [f"{_called(report)} ran {duration(run.seconds)}{which}{how}{told}"]
    # What it tells before it has written all of it need not be there.
    saved = "saved as" if run.saved else "failed after it had told of"
    if 0 < len(figures.snapshots) <= MOST_NAMES:
        lines.append(f"  {saved} {', '.join(each[:16] for each in figures.snapshots)}")
    elif figures.snapshots:
        lines.append(f"  {saved} {len(figures.snapshots)} backups, one for each path")
    if run.proof is not None and run.run.kind == VOLUME:
        lines += ["  found in the backup in full size"] if run.proof[0] else []
    elif run.proof is not None:
        found, wanted = run.proof
        what = "path" if report.plan and report.plan.parts else "dataset"
        plural = "" if wanted == 1 else "s"
        lines.append(f"  {found} of {wanted} {what}{plural} found in the backup")
    return lines


def _tries(report: Report) -> list[str]:
    return [
        f"{_named(report, run)}after {duration(each.seconds)}, {describe_status(each.status)}: "
        f"{each.reason}"
        for run in report.runs
        for each in run.tries
    ]


def _named(report: Report, run: Called) -> str:
    return f"{run.name}: " if len(report.runs) > 1 else ""


def _complaints(report: Report) -> list[str]:
    lines = report.complaints.splitlines()
    # Where something went wrong, all that the client said is told or has been seen.
    if not lines or report.problems:
        return []
    more = len(lines) - COMPLAINTS
    shown = [*lines[:COMPLAINTS], *([f"... and {more} more lines"] if more > 0 else [])]
    return section(f"What {_called(report)} said on standard error:", shown)


def plan_as_dict(
    plan: Plan, clients: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, object]:
    """Return a plan as plain data, for -n --json.

    ``clients`` are the words of its client runs, ``names`` what these are called.
    """
    chosen = {**_chosen(plan), **_taken(plan)}
    if _takes(plan):
        from kopiatomic.backup import existing

        chosen["captured"] = existing.with_ages(plan.captured, chosen["captured"], time.time())
    return {
        **chosen,
        "view": [mount._asdict() for mount in plan.view],
        "not_in_view": list(plan.unseen),
        "paths": list(plan.paths),
        "client": list(clients[0]),
        "client_runs": [
            {"name": name, **run._asdict(), "command": list(words)}
            for run, words, name in zip(plan.runs, clients, names, strict=True)
        ],
        "notes": list(plan.notes),
    }


def _would_take(plan: Plan) -> list[str]:
    if not _takes(plan):
        return []
    from kopiatomic.backup import existing

    rows = existing.would_take(plan.captured, time.time())
    return ["", "Would take these existing snapshots, and make none:", *table(rows)]


def _clone_commands(plan: Plan) -> list[list[str]]:
    if not plan.volumes:
        return []
    from kopiatomic.system.volumes import clone_commands

    return [
        words
        for each in plan.volumes
        if not each.still
        for words in clone_commands(
            f"{each.dataset}@{plan.names.snapshot}",
            clone_of(plan.names, each.dataset, each.number),
            plan.names.run,
        )
    ]


def plan_as_text(plan: Plan, clients: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """Return a plan for a person: what is captured and left out, and the exact commands.

    ``clients`` are the words of its client runs, ``names`` what these are called.
    """
    lines = ["Would capture:", *table([(e.dataset, e.shown) for e in plan.members])]
    lines += _unmounted(plan)
    lines += _would_take(plan)
    if plan.left_out:
        lines += ["", "Would leave out:", *table([(e.name, e.reason) for e in plan.left_out])]
    lines += section("Would be live, not frozen, because the client needs it so:", plan.live)
    lines += section("Note:", plan.notes)
    lines += ["", "Would run:"]
    for snapshots in by_pool(plan.snapshots).values():
        argv = snapshot_command(snapshots, plan.names.run)
        if fits(argv):
            lines.append(f"  {quote(argv)}")
        else:
            lines.append(f"  a channel program for {len(snapshots)} snapshots (zfs-program(8))")
    held = [hold.snapshot for hold in plan.holds if hold.existing is not None]
    for snapshots in by_pool(held).values():
        lines.append(f"  {quote(['zfs', 'hold', plan.names.run, *snapshots], limit=MOST_CAPTURED)}")
    lines += [f"  {quote(hold_command(hold))}" for hold in plan.holds]
    lines += [f"  {quote(mount_command(mount, plan.names))}" for mount in plan.view]
    lines += [f"  {quote(words)}" for words in _clone_commands(plan)]
    for run, words, name in zip(plan.runs, clients, names, strict=True):
        source = f" < {quote([run.source])}" if run.source else ""
        # The words may be the same, and the variables of its env file others.
        which = f"  # {printable(name)}" if len(plan.runs) > 1 else ""
        called = quote(["chroot", plan.names.view, *words])
        if run.obstacle is not None:
            lines.append(f"  nothing for {printable(name)}: {printable(run.obstacle)}")
        else:
            lines.append(f"  {called}{source}{which}")
    lines.append("and then take all of it down again.")
    return "\n".join(lines) + "\n"
