"""The routine: one moment of the chosen datasets, backed up as if it were live."""

import os
import time
from dataclasses import dataclass, field, replace

from kopiatomic import state
from kopiatomic.backup import preflight, view
from kopiatomic.backup.names import Names, marks_of, name_run
from kopiatomic.backup.plan import Plan, make_plan
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.clients.base import Request, Task
from kopiatomic.errors import (
    EX_CANTCREAT,
    EX_CONFIG,
    EX_OSERR,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Refusal,
)
from kopiatomic.state import Place
from kopiatomic.system import mounts, process, zfs
from kopiatomic.system.command import (
    CommandFailed,
    Door,
    GivenUp,
    decode,
    describe_status,
    exit_status,
    fits,
    printable,
    quote,
)
from kopiatomic.system.machine import Mount
from kopiatomic.system.process import Ended, Interrupted, Signals, Streams


class Failed(Exception):
    """A step failed; the message says which and why, ``status`` is the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Work:
    """What a run has in hand: what it was told, and what it has made so far."""

    task: Task
    signals: Signals
    streams: Streams
    report: Report
    pools: list[str] = field(default_factory=list)  # in which we may have made our snapshots
    unsure: bool = False  # whether there is a snapshot of ours that we do not know


def run(task: Task, streams: Streams, wait: state.Wait = state.NO_WAIT) -> Report:
    """Back up once and return the report; ``wait`` is for another run of the job to end.

    Raises Refusal, before anything was touched, if there is something for the user
    to mend; what goes wrong later is in the report.
    """
    job, door = task.job, task.door
    preflight.not_in_a_jail(door)
    place = Place(job.program, job.name)
    with state.lock(place, wait) as waited, Signals() as signals:
        names = name_run(place)
        report = begin_report(task, names)
        report.waited = waited
        work = Work(task, signals, replace(streams, hide=task.hide), report)
        # Not kept by a name: with many datasets the mount table would be most of what we hold.
        plan = report.plan = draw_plan(task, names, sweep(place, door, report))
        report.notes += plan.notes
        try:
            prepare(work, place, plan)
            try:
                call_hook(work, "-p", job.before)
                take_snapshots(work, plan)
            finally:
                call_anyway(work, "-s", job.after_snapshot)
            build_view(work, plan)
            # The client may run for hours: until then, only what is still needed is kept.
            plan = report.plan = replace(plan, view=())
            back_up(work, plan, place)
        except (Failed, Interrupted) as error:
            note_failure(report, error)
        except Exception as error:
            report.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)
        finally:
            try:
                take_down(work, place, names)
            except Exception as error:
                report.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)
            call_anyway(work, "-q", job.after)
            report.ended = time.time()
            report.conceal(task.hide)
            remember(place, report)
    return report


# Before anything is touched


def begin_report(task: Task, names: Names) -> Report:
    """Return the report of a run that begins now."""
    job = task.job
    hooks = tuple(dict.fromkeys(map(os.path.abspath, preflight.hook_programs(job).values())))
    began = time.time()
    return Report(job.program, job.name, names.run, began, job.env_file, job.command, hooks)


def draw_plan(task: Task, names: Names, table: list[Mount] | None = None) -> Plan:
    """Look at the machine once and plan the run; raises Refusal.

    ``table`` is the mount table, where somebody has read it already.
    """
    job, door = task.job, task.door
    try:
        datasets = preflight.list_datasets(door, zfs.list_datasets)
        table = mounts.table(door) if table is None else table
    except CommandFailed as error:
        raise Refusal(f"cannot see what there is to back up: {error}", EX_OSERR) from error
    needs = task.client.needs(job, task.program, task.environment)
    plan = make_plan(job, datasets, table, names, needs)
    if not fits(task.client.backup_command(job, Request(plan.paths, plan.live))):
        raise Refusal(
            f"the client cannot be given {len(plan.paths)} paths, its command line would be too "
            "long; choose a dataset that is mounted above them as well, or make several jobs",
            EX_CONFIG,
        )
    return replace(plan, notes=(*plan.notes, *task.client.about_live(plan.live, plan.paths)))


def sweep(
    place: Place, door: Door, report: Report, thoroughly: bool = False
) -> list[Mount] | None:
    """Take down what an earlier run of the job left behind: its mounts, then its snapshots.

    Returns the mount table if nothing had to be unmounted, so that it need not be read again.

    Snapshots are looked for only if a run is known not to have ended, or
    ``thoroughly``. Raises Refusal if a mount cannot be removed.
    """
    try:
        table = mounts.table(door)
        old = view.mounted_below(table, place.directory)
        if not (old or thoroughly or state.is_unfinished(place)):
            return table
        outcome = view.take_down(door, place.directory, old)
        if outcome.unknown:
            raise Refusal(f"cannot clear up after an earlier run: {outcome.unknown}", EX_OSERR)
        if outcome.left:
            raise Refusal(
                f"{outcome.left[-1]}, left by an earlier run, cannot be unmounted "
                f"({outcome.reason}); end what uses it, then: "
                f"{quote(['umount', '-f', outcome.left[-1]])}",
                EX_TEMPFAIL,
            )
        snapshots = zfs.own_snapshots(door, marks_of(place))
        left = zfs.destroy(door, snapshots).left
    except CommandFailed as error:
        raise Refusal(f"cannot clear up after an earlier run: {error}", EX_OSERR) from error
    view.remove_directories(Names("", "", place.directory))
    stuck = {each.name for each in left}
    report.swept += [f"process {each}" for each in outcome.stopped]
    report.swept += [f"mount {each}" for each in old]
    report.swept += [f"snapshot {each}" for each in snapshots if each not in stuck]
    report.notes += [_stays(each) for each in left]
    if not left:
        state.finish(place)
    report.stuck = sorted(stuck)
    return None if old else table


def _stays(left: zfs.Left) -> str:
    return (
        f"the snapshot {left.name} of an earlier run stays: {left.reason}; "
        f"the next run tries again, or: {quote(['zfs', 'destroy', left.name])}"
    )


# The steps


def prepare(work: Work, place: Place, plan: Plan) -> None:
    """Note that the run has begun, and make its directories."""
    work.signals.check()
    try:
        state.begin(place, plan.names.run)
        view.prepare(plan, state.private_directory)
    except (OSError, Refusal) as error:
        raise Failed(f"cannot prepare {plan.names.directory}: {error}", EX_CANTCREAT) from error


def take_snapshots(work: Work, plan: Plan) -> None:
    """Snapshot all datasets, each pool in one transaction group."""
    for pool, names in zfs.by_pool(plan.snapshots).items():
        work.signals.check()
        work.pools.append(pool)
        try:
            zfs.snapshot(work.task.door, names, plan.names.run)
        except CommandFailed as error:
            work.unsure = isinstance(error, GivenUp)
            raise Failed(f"no snapshot of {pool}: {error.reason}", EX_CANTCREAT) from error
        work.report.captured_at[pool] = time.time()


def build_view(work: Work, plan: Plan) -> None:
    """Mount the live system and, in it, the snapshots."""
    work.signals.check()
    try:
        view.build(work.task.door, plan, work.report.notes.append)
    except CommandFailed as error:
        hint = ""
        if preflight.nullfs_missing(work.task.door):
            hint = "; there is no nullfs in this kernel: kldload nullfs"
        raise Failed(f"cannot build the view: {error}{hint}", EX_OSERR) from error
    work.signals.check()


def back_up(work: Work, plan: Plan, place: Place) -> None:
    """Run the client in the view and read what it did."""
    task, report = work.task, work.report
    client, job = task.client, task.job
    environment = dict(task.environment)
    if plan.temporary is not None:
        environment["TMPDIR"] = plan.temporary
    parent = client.parent(task.door, job, plan.paths, last_paths(place), environment)
    request = Request(plan.paths, plan.live, report.moment, parent, work.streams.capture)
    report.client = words = client.backup_command(job, request)
    work.signals.check()
    streams = work.streams
    for_us_alone = client.speaks_to_us_alone(words)
    if for_us_alone:
        streams = replace(streams, output=None)
    command = view.chroot_command(plan.names, words)
    try:
        ended = process.run(task.door, command, environment, work.signals, streams)
    except CommandFailed as error:
        raise Failed(str(error), EX_UNAVAILABLE) from error
    report.client_status, report.client_seconds = ended.status, ended.seconds
    report.said += decode(ended.messages if for_us_alone else ended.said)
    report.figures = client.figures(ended.output, ended.messages)
    work.signals.check()
    judge(task, report, ended)


def judge(task: Task, report: Report, ended: Ended) -> None:
    """Turn the client's exit status into the run's."""
    if ended.status == 0:
        report.settle()
        return
    client, job = task.client, task.job
    message = f"{os.path.basename(report.client[0])}: {describe_status(ended.status)}"
    outcome = "failed"
    if not job.plain:
        text = (ended.messages + b"\n" + ended.output).decode("utf-8", "replace")
        hint = client.hint(ended.status, text, client.by_hand(job))
        message = f"{message}; {hint}" if hint else message
        outcome = "incomplete" if client.is_incomplete(ended.status) else "failed"
    report.fail(message, exit_status(ended.status), outcome)


def last_paths(place: Place) -> list[str] | None:
    """Return the paths of the job's last good backup, or None if none is known."""
    try:
        for entry in state.newest_first(place):
            paths = entry.get("paths")
            if entry.get("outcome") in state.GOOD and isinstance(paths, list):
                return [str(path) for path in paths]
    except OSError:
        return None  # which is told when this run cannot be added either
    return None


# The hooks


def call_hook(work: Work, option: str, text: str | None) -> None:
    """Run a hook by sh in the live system; raises Failed if it fails."""
    work.signals.check()
    if text is None:
        return
    report = work.report
    environment = {
        **work.task.environment,
        "KOPIATOMIC_PROGRAM": report.program,
        "KOPIATOMIC_JOB": report.job,
        "KOPIATOMIC_RUN": report.run,
    }
    if option == "-q":
        environment |= {
            "KOPIATOMIC_OUTCOME": report.outcome,
            "KOPIATOMIC_STATUS": str(report.status),
            "KOPIATOMIC_MESSAGE": printable("; ".join(report.problems)),
        }
    try:
        ended = process.run_hook(
            work.task.door, ["/bin/sh", "-c", text], environment, work.signals, work.streams
        )
    except CommandFailed as error:
        raise Failed(f"the command of {option}: {error.reason}", EX_UNAVAILABLE) from error
    report.said += decode(ended.said)
    if ended.status != 0:
        work.signals.check()
        reason = describe_status(ended.status)
        raise Failed(f"the command of {option} failed, {reason}: {text}", EX_UNAVAILABLE)


def call_anyway(work: Work, option: str, text: str | None) -> None:
    """Run a hook even when the run has failed or was asked to end.

    What -p stopped must go on, and -q is told the outcome in its environment.
    If the hook fails, the run goes on but has failed.
    """
    with Signals() as fresh:
        try:
            call_hook(replace(work, signals=fresh), option, text)
        except (Failed, Interrupted) as error:
            note_failure(work.report, error)
    work.signals.signum = work.signals.signum or fresh.signum


# The end


def note_failure(report: Report, error: Failed | Interrupted) -> None:
    """Enter what stopped the run into the report."""
    if isinstance(error, Interrupted):
        report.fail(str(error), 128 + error.signum, "interrupted")
    else:
        report.fail(str(error), error.status)


def take_down(work: Work, place: Place, names: Names) -> None:
    """Remove everything the run made: mounts, snapshots, directories.

    What cannot be removed is told with the command that would do it, and stays
    noted for the next run to sweep.
    """
    report = work.report
    outcome = view.take_down(work.task.door, names.directory)
    report.notes += [f"ended what the client left running: {each}" for each in outcome.stopped]
    for point in outcome.left:
        report.fail(
            f"{point} cannot be unmounted ({outcome.reason}); "
            f"the next run tries again, or: {quote(['umount', '-f', point])}",
            EX_OSERR,
        )
    if outcome.unknown:
        report.fail(
            f"the view may still be mounted: {outcome.unknown}; "
            f"the next run tries again, or: {sweep_by_hand(report)}",
            EX_OSERR,
        )
    left = destroy_snapshots(work)
    for each in left:
        report.fail(
            f"the snapshot {each.name} cannot be destroyed: {each.reason}; "
            f"the next run tries again, or: {quote(['zfs', 'destroy', each.name])}",
            EX_OSERR,
        )
    if outcome.left or outcome.unknown:
        return
    for path in view.remove_directories(names):
        report.notes.append(f"{path} is not empty and stays")
    if not (left or report.stuck or work.unsure):
        state.finish(place)


def destroy_snapshots(work: Work) -> tuple[zfs.Left, ...]:
    """Destroy the snapshots of the run and return those that stay."""
    report = work.report
    done = again = zfs.destroy(work.task.door, made_snapshots(work))
    if done.left:
        # A snapshot can be busy for a moment after its last mount has gone.
        time.sleep(1.0)
        again = zfs.destroy(work.task.door, [each.name for each in done.left])
    left, missing = again.left, {*done.missing, *again.missing}
    lost = sorted(name for name in missing if zfs.pool_of(name) in report.captured_at)
    if not lost:
        return left
    # A dataset that is renamed, or promoted from a clone, takes snapshots along.
    try:
        known = {each.name for each in left}
        ours = zfs.own_snapshots(work.task.door, report.run)
        moved = [each for each in ours if each not in known]
    except CommandFailed as error:
        work.unsure = True
        report.fail(
            f"the snapshot {lost[0]} has gone, perhaps elsewhere: {error}; "
            f"the next run looks for it, or: {sweep_by_hand(report)}",
            EX_OSERR,
        )
        return left
    report.notes += [
        "a dataset was renamed, or promoted from a clone, during the backup: "
        f"its snapshot was {each} in the end"
        for each in moved
    ]
    return (*left, *zfs.destroy(work.task.door, moved).left)


def sweep_by_hand(report: Report) -> str:
    """Return the command that takes down what the job has left."""
    return quote([report.program, "--sweep", "-j", report.job])


def made_snapshots(work: Work) -> list[str]:
    """Return the snapshots that the run has made, or may have."""
    planned = work.report.plan.snapshots if work.report.plan else ()
    by_pool = zfs.by_pool(planned)
    return [name for pool in work.pools for name in by_pool[pool]]


def remember(place: Place, report: Report) -> None:
    """Enter the run into the history; not being able to is a problem of its own."""
    try:
        state.remember(place, as_dict(report))
    except (OSError, Refusal) as error:
        report.fail(f"the history cannot be written: {error}", EX_OSERR)
