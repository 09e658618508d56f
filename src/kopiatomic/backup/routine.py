"""The routine: one moment of the chosen datasets, backed up as if it were live."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

from kopiatomic import state
from kopiatomic.backup import (
    choice,
    jail,
    news,
    own,
    parts,
    preflight,
    proof,
    takedown,
    taking,
    view,
)
from kopiatomic.backup.calling import back_up, last_entry
from kopiatomic.backup.client_runs import FILES, VOLUME
from kopiatomic.backup.drawing import draw
from kopiatomic.backup.missed import miss_matched, miss_named, miss_renamed, miss_replaced
from kopiatomic.backup.names import Names, marks_of, name_run
from kopiatomic.backup.plan import cut_off
from kopiatomic.backup.report import Report, as_dict
from kopiatomic.backup.work import Failed, NothingNew, Work
from kopiatomic.clients.base import Task
from kopiatomic.errors import (
    EX_CANTCREAT,
    EX_DATAERR,
    EX_OSERR,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    Refusal,
)
from kopiatomic.formatting import for_environment
from kopiatomic.state import Place
from kopiatomic.system import mounts, process, zfs
from kopiatomic.system.command import (
    CommandFailed,
    Door,
    GivenUp,
    decode,
    describe_status,
)
from kopiatomic.system.machine import Mount
from kopiatomic.system.process import Interrupted, Signals, Streams


def run(task: Task, streams: Streams, wait: state.Wait = state.NO_WAIT) -> Report:
    """Back up once and return the report; ``wait`` is for another run of the job to end.

    Raises Refusal, before anything was touched, if there is something for the user
    to mend; what goes wrong later is in the report.
    """
    task = task._replace(door=jail.entered(task.door))
    job, door = task.job, task.door
    if door.jailed:
        jail.check_rights(door)
    place = Place(job.program, job.name)
    with state.lock(place, wait) as waited, Signals() as signals:
        names = name_run(place, door.jailed)
        report = begin_report(task, names)
        report.waited = waited
        work = Work(task, place, names, signals, streams._replace(hide=task.hide), report)
        look_early(work, sweep(place, door, report))
        if has_nothing_new(work):
            return end_early(work)
        try:
            begin(work)
            try:
                call_hook(work, work.signals, "-p", job.before)
                look_again(work)
                look_into_pools(work)
                prepare(work)
                take_snapshots(work)
            finally:
                call_anyway(work, "-s", job.after_snapshot)
            build_view(work)
            back_up(work)
            keep_layout(work)
        except NothingNew:
            report.not_needed()
        except (Failed, Interrupted) as error:
            note_failure(report, error)
        except Exception as error:
            report.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)
        finally:
            guarded(work, take_down)
            guarded(work, prove)
            guarded(work, compare)
            guarded(work, lambda work: call_anyway(work, "-q", job.after))
            conclude(work)
    return report


# Before anything is touched


def begin_report(task: Task, names: Names) -> Report:
    """Return the report of a run that begins now."""
    job = task.job
    hooks = tuple(dict.fromkeys(map(os.path.abspath, preflight.hook_programs(job).values())))
    began = time.time()
    files = tuple(file for each in (task, *task.more) for file in each.job.env_files)
    made = Report(job.program, job.name, names.run, began, files, job.command, hooks)
    made.lists = job.lists
    made.selection = choice.as_dict(job) if job.snapshot is None else taking.selection_of(task)
    return made


def look_early(work: Work, table: list[Mount] | None) -> None:
    """Draw the plan before anything stops, so that typos are found; raises Refusal.

    With a -p hook a refusal is not final yet: the hook may mount the disk, import
    the pool or load the key that is missing.
    """
    if work.task.job.snapshot is not None:
        taking.look_after_boot(work)
    try:
        work.follow(draw(work.task, work.names, table))
    except Refusal:
        if work.task.job.before is None:
            raise


def has_nothing_new(work: Work) -> bool:
    """Say whether all existing snapshots that would be taken are in a good backup."""
    if work.task.job.snapshot is None or work.report.plan is None:
        return False
    return taking.is_backed_up(work)


def end_early(work: Work) -> Report:
    """End a run that has nothing to do, before it has called a hook or changed anything."""
    work.report.not_needed()
    work.report.notes += work.plan.notes
    guarded(work, compare)
    conclude(work)
    return work.report


def sweep(place: Place, door: Door, report: Report, thoroughly: bool = False) -> list[Mount] | None:
    """Take down what an earlier run of the job left behind: its mounts, then its snapshots.

    Returns the mount table if nothing had to be unmounted, so that it need not be read again.

    Snapshots are looked for only if a run is known not to have ended, or
    ``thoroughly``, or if nobody has looked since the boot: see look_after_boot().
    Raises Refusal if a mount cannot be removed.
    """
    try:
        table = mounts.table(door)
        old = takedown.mounted_below(table, place.directory)
        if not (old or thoroughly or state.is_unfinished(place)):
            look_after_boot(place, door, report)
            taking.sweep(place, door, report)
            return table
        taking.sweep(place, door, report, thoroughly)
        outcome = takedown.take_down(door, place.directory, old)
        if outcome.unknown:
            raise Refusal(f"cannot clear up after an earlier run: {outcome.unknown}", EX_OSERR)
        if outcome.left:
            raise Refusal(_in_the_way(door, outcome), EX_TEMPFAIL)
        mark = marks_of(place, door.jailed)
        snapshots = zfs.own_snapshots(door, mark) if thoroughly else own.of_job(door, place)
        removed = own.remove(door, snapshots)
    except CommandFailed as error:
        raise Refusal(f"cannot clear up after an earlier run: {error}", EX_OSERR) from error
    takedown.remove_directories(Names("", "", place.directory))
    report.swept += [f"process {each}" for each in outcome.stopped]
    report.swept += [f"mount {each.point}" for each in old]
    tell_swept(report, snapshots, removed)
    if not removed.left:
        state.finish(place)
    return None if old else table


def _in_the_way(door: Door, outcome: takedown.TakenDown) -> str:
    """Say of a mount of an earlier run that it stays, and what to do."""
    left = outcome.left[-1]
    told = (
        f"{left.point}, left by an earlier run, cannot be unmounted ({outcome.reason}); "
        f"end what uses it, then: {takedown.unmount_by_hand(left)}"
    )
    # vfs_suser() in sys/kern/vfs_mount.c: not even a jail that has the same name again may.
    return f"{told} (on the host, if the jail was started anew since)" if door.jailed else told


def look_after_boot(place: Place, door: Door, report: Report) -> None:
    """Remove snapshots that a run before the last boot has left, of which no note need be there.

    The note is gone where /var/db is that of another boot environment. Not being able to
    look is no reason to make no backup.
    """
    if not state.was_searched():
        look_for_left(place, door, report)


def look_for_left(place: Place, door: Door, report: Report) -> None:
    """Remove what there is of earlier runs of the job, or tell that it could not be looked for."""
    try:
        snapshots = own.of_job(door, place)
    except CommandFailed as error:
        report.notes.append(
            "what earlier runs have left behind could not be looked for, "
            f"and will be again: {error}"
        )
        return
    # Of /var/run only the files go at boot.
    takedown.remove_directories(Names("", "", place.directory))
    tell_swept(report, snapshots, own.remove(door, snapshots))


def tell_swept(report: Report, names: Sequence[str], removed: own.Swept) -> None:
    """Enter snapshots and clones of an earlier run: those destroyed, and those that stay."""
    stuck = {each.name for each in removed.left}
    report.swept += [f"{own.kind_of(each)} {each}" for each in names if each not in stuck]
    report.swept += [
        f"snapshot {each}, which another program had made of a clone of ours"
        for each in removed.strangers
    ]
    place = Place(report.program, report.job)
    for left in removed.left:
        report.notes.append(
            f"the {own.kind_of(left.name)} {left.name} of an earlier run stays: {left.reason}; "
            f"the next run tries again, or: {own.by_hand(place, removed.left, left.name)}"
        )
    report.stuck = sorted(stuck)


# The steps


def begin(work: Work) -> None:
    """Note on disk that the run has begun, before it changes anything."""
    work.signals.check()
    try:
        state.begin(work.place, work.names.run)
    except (OSError, Refusal) as error:
        raise Failed(f"cannot note that the run begins: {error}", EX_CANTCREAT) from error


def look_again(work: Work) -> None:
    """Draw the plan once more where a -p hook has run, which may have changed what there is."""
    if work.task.job.before is not None:
        try:
            work.follow(draw(work.task, work.names))
        except Refusal as refusal:
            raise Failed(str(refusal), refusal.status) from refusal
    work.report.notes += work.plan.notes
    miss_named(work)
    miss_replaced(work)
    miss_matched(work)
    if work.task.job.before is not None and has_nothing_new(work):
        raise NothingNew


def look_into_pools(work: Work) -> None:
    """Look for what an earlier run has left in a pool that was not imported when others looked."""
    pools = {zfs.pool_of(each.dataset) for each in work.plan.members}
    if state.was_searched() and not state.was_searched(pools):
        look_for_left(work.place, work.task.door, work.report)
    if work.task.job.before is not None:
        taking.sweep(work.place, work.task.door, work.report)
    if work.task.job.snapshot is not None:
        taking.look_after_boot(work, pools)


def prepare(work: Work) -> None:
    """Make the directories that the run needs, before the snapshot, so that they are in it."""
    try:
        work.report.notes += view.make_places(work.plan)
        view.prepare(work.plan, state.private_directory)
    except (OSError, Refusal) as error:
        raise Failed(f"cannot prepare {work.names.directory}: {error}", EX_CANTCREAT) from error


def take_snapshots(work: Work) -> None:
    """Snapshot all datasets, each pool in one transaction group.

    What cannot be snapshotted costs itself and not the others: a dataset its place
    in the backup, a pool its datasets.
    """
    if work.task.job.snapshot is not None:
        taking.take(work, lose_or_miss)
    lost: dict[str, view.Lost] = {}
    failed: dict[str, str] = {}
    for pool, snapshots in zfs.by_pool(work.plan.snapshots).items():
        work.signals.check()
        work.made += snapshots
        try:
            refused = zfs.snapshot(work.task.door, snapshots, work.names.run)
        except CommandFailed as error:
            work.unsure = work.unsure or isinstance(error, GivenUp)
            failed[pool] = error.reason
            continue
        if len(refused) < len(snapshots):
            work.report.captured_at[pool] = time.time()
            work.tried.add(pool)
        work.made = [name for name in work.made if name not in refused]
        for name, number in refused.items():
            gone = number == zfs.ENOENT
            lost[name.partition("@")[0]] = view.Lost(zfs.reason_for(number), gone)
    if failed:
        lost |= stand_still_or_lose(work, failed)
    lose(work, lost, "no snapshot of")


def lose_or_miss(work: Work, lost: Mapping[str, view.Lost], what: str) -> None:
    """Go on without datasets of which it is not known whether they have gone; see lose()."""
    lose(work, tell_gone(work, dict(lost)), what)


def stand_still_or_lose(work: Work, failed: Mapping[str, str]) -> dict[str, view.Lost]:
    """Tell of pools that could not be snapshotted; return their datasets that are lost.

    A pool that was imported read-only stands still by itself.
    """
    try:
        known = zfs.pools(work.task.door)
    except CommandFailed:
        known = {}
    still = {name for name in failed if name in known and known[name].read_only}
    members = {each.dataset: zfs.pool_of(each.dataset) for each in work.plan.members}
    bare = {each.dataset for each in work.plan.captured if each.unmounted}
    if work.drawing is not None and still:
        frozen = [name for name, pool in members.items() if pool in still and name not in bare]
        work.follow(work.drawing.standing_still(frozen))
        work.report.captured_at |= dict.fromkeys(still, time.time())
        work.report.notes += [
            f"the pool {pool} is read-only and so stands still: it is backed up without a snapshot"
            for pool in sorted(still)
        ]
    # A command that failed, or was killed, may have done its work all the same.
    work.tried |= failed.keys() - still
    for pool in sorted(failed.keys() - still):
        message = f"no snapshot of {pool}: {failed[pool]}"
        work.report.fail(message, EX_CANTCREAT, "incomplete")
    lost = {
        name: view.Lost(f"no snapshot of its pool: {failed[pool]}", gone=False, told=True)
        for name, pool in members.items()
        if pool in failed and pool not in still
    }
    reason = "it is not mounted, and its pool is read-only, so it can have no new snapshot"
    return lost | {
        name: view.Lost(reason, gone=False) for name in bare if members[name] in still
    }


def lose(work: Work, lost: Mapping[str, view.Lost], what: str) -> None:
    """Go on without the datasets or directories that are ``lost``; raises Failed if none is left.

    One that has gone meanwhile is left out and named, as datasets come and go; but
    where the user named it, or where it is there still, the backup is incomplete.
    """
    if not lost or work.drawing is None:
        return
    for each in work.plan.members:
        for name in (each.dataset, *each.directories):
            why = lost.get(name)
            if why is not None and not why.told and (each.named or not why.gone):
                message = f"{what} {name}: {why.reason}"
                work.report.fail(message, EX_CANTCREAT, "incomplete")
    reasons = {
        name: "it has gone since the run began" if why.gone else why.reason
        for name, why in lost.items()
    }
    try:
        work.follow(work.drawing.without(reasons))
        view.prepare(work.plan, state.private_directory)
    except Refusal as refusal:
        raise Failed(str(refusal), EX_CANTCREAT) from refusal
    except OSError as error:
        raise Failed(f"cannot prepare {work.names.directory}: {error}", EX_CANTCREAT) from error


def build_view(work: Work) -> None:
    """Mount the snapshots, and the live system with them in it."""
    work.signals.check()
    door, notes = work.task.door, work.report.notes
    try:
        lost = tell_gone(work, view.hold_all(door, work.plan))
        lose(work, lost, "cannot mount the snapshot of")
        lose(work, parts.absent(work.plan, work.task.job.links), "cannot back up")
        lose(work, parts.covered(work.plan), "cannot show at its mount point")
        while True:
            work.signals.check()
            try:
                missing = view.build(door, work.plan, notes.append)
                break
            except view.Misled as error:
                begin_anew(work)
                lost = {error.dataset: view.Lost(error.reason, gone=False)}
                lose(work, lost, "cannot show at its mount point")
    except CommandFailed as error:
        hint = ""
        if preflight.nullfs_missing(door):
            hint = "; there is no nullfs in this kernel: kldload nullfs"
        raise Failed(f"cannot build the view: {error}{hint}", EX_OSERR) from error
    if proof.is_wanted(work.task.job):
        work.evidence = proof.expect(work.plan, work.task.client)
    # The client may run for hours: until then, only what is still needed is kept.
    runs = cut_off(work.plan.runs, missing)
    work.drawing, work.report.plan = None, work.plan._replace(view=(), holds=(), runs=runs)
    work.signals.check()


def keep_layout(work: Work) -> None:
    """Save the layout of the pools as well."""
    # The snapshots do not wait for it.
    from kopiatomic.backup import keeping

    keeping.keep_layout(work)


def tell_gone(work: Work, lost: dict[str, view.Lost]) -> dict[str, view.Lost]:
    """Look which of the datasets have gone: it may be only the snapshot that is not there."""
    if not any(why.gone for why in lost.values()):
        return lost
    there = {each.name for each in zfs.list_datasets(work.task.door)}
    pools = {zfs.pool_of(name) for name in there}

    def told(name: str, why: view.Lost) -> view.Lost:
        if name in there:
            return view.Lost("its snapshot has been destroyed", gone=False)
        is_away = why.gone and zfs.pool_of(name) not in pools
        return view.Lost("its pool is not imported any more", gone=False) if is_away else why

    return {name: told(name, why) for name, why in lost.items()}


def begin_anew(work: Work) -> None:
    """Take the view down, but not the snapshots below it; raises Failed if that cannot be."""
    outcome = takedown.take_down(work.task.door, work.names.view)
    if outcome.left or outcome.unknown:
        reason = outcome.unknown or outcome.reason
        raise Failed(f"cannot build the view anew: {reason}", EX_OSERR)


def prove(work: Work) -> None:
    """Ask the repositories whether all that was captured is in the new backups.

    Only where there is one, as far as the client's exit status tells.
    """
    for called in work.report.runs:
        if work.evidence is None or not called.saved:
            continue
        task = work.task_of(called.run)
        if called.run.kind == FILES:
            proof.prove(task, work.evidence, called, work.report, work.signals)
        elif called.run.kind == VOLUME:
            proof.prove_volume(task, called, work.report, work.signals)


def compare(work: Work) -> None:
    """Find out what is new since the job's last good backup."""
    report = work.report
    report.compared = news.news(report.plan, news.before_of(last_entry(work.place)))


# The hooks


def call_hook(work: Work, signals: Signals, option: str, text: str | None) -> None:
    """Run a hook by sh in the live system; raises Failed if it fails."""
    signals.check()
    if text is None:
        return
    report, task = work.report, work.task
    environment = {
        **task.environment,
        "KOPIATOMIC_PROGRAM": report.program,
        "KOPIATOMIC_JOB": report.job,
        "KOPIATOMIC_RUN": report.run,
    }
    if option == "-q":
        environment |= {
            "KOPIATOMIC_OUTCOME": report.outcome,
            "KOPIATOMIC_STATUS": str(report.status),
            # The hook may mail it.
            "KOPIATOMIC_MESSAGE": for_environment(task.hide("; ".join(report.problems))),
        }
    try:
        ended = process.run_hook(
            task.door, ["/bin/sh", "-c", text], environment, signals, work.streams
        )
    except CommandFailed as error:
        raise Failed(f"the command of {option}: {error.reason}", EX_UNAVAILABLE) from error
    report.said += decode(ended.said)
    if ended.status != 0:
        signals.check()
        reason = describe_status(ended.status)
        raise Failed(f"the command of {option} failed, {reason}: {text}", EX_UNAVAILABLE)


def call_anyway(work: Work, option: str, text: str | None) -> None:
    """Run a hook even when the run has failed or was asked to end.

    What -p stopped must go on, and -q is told the outcome in its environment.
    If the hook fails, the run goes on but has failed.
    """
    with Signals() as fresh:
        try:
            call_hook(work, fresh, option, text)
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


def guarded(work: Work, step: Callable[[Work], None]) -> None:
    """Do a step of the end, of which nothing may keep the next ones from being done."""
    try:
        step(work)
    except Interrupted as error:
        note_failure(work.report, error)
    except Exception as error:
        work.report.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)


def remove_clones(work: Work) -> Sequence[zfs.NotDestroyed]:
    """Destroy what is left of the clones of volumes, tell of what stays, and return that."""
    if not work.clones:
        return ()
    from kopiatomic.backup import cloning  # which most runs do without

    return cloning.remove_clones(work)


def take_down(work: Work) -> None:
    """Remove everything the run made: mounts, clones, snapshots, directories.

    What cannot be removed is told with the command that would do it, and stays
    noted for the next run to sweep.
    """
    report, names = work.report, work.names
    # zfs-release(8) unmounts a snapshot by force, from under whoever looks into it. While it
    # is mounted here, with a nullfs on it, nobody else can have it mounted.
    taking.release(work)
    outcome = takedown.take_down(work.task.door, names.directory)
    tell_astray(work, outcome.astray)
    report.notes += [f"ended what the client left running: {each}" for each in outcome.stopped]
    for mount in outcome.left:
        report.fail(
            f"{mount.point} cannot be unmounted ({outcome.reason}); "
            f"the next run tries again, or: {takedown.unmount_by_hand(mount)}",
            EX_OSERR,
        )
    if outcome.unknown:
        report.fail(
            f"the view may still be mounted: {outcome.unknown}; "
            f"the next run tries again, or: {sweep_by_hand(report)}",
            EX_OSERR,
        )
    clones = remove_clones(work)
    left = destroy_snapshots(work)
    taking.tell_held(work)
    for each in left:
        report.fail(
            f"the snapshot {each.name} cannot be destroyed: {each.reason}; the next run tries "
            f"again, or: {own.by_hand(work.place, (*clones, *left), each.name)}",
            EX_OSERR,
        )
    if outcome.left or outcome.unknown:
        return
    for path in takedown.remove_directories(names):
        report.notes.append(f"{path} is not empty and stays")
    if not (clones or left or report.stuck or work.unsure):
        state.finish(work.place)


def tell_astray(work: Work, astray: list[Mount]) -> None:
    """Tell of datasets whose mount points went from the view while the client ran."""
    report = work.report
    if not report.called:
        return
    gone = {mount.point.removeprefix(work.names.view) for mount in astray}
    for each in work.plan.captured:
        if gone.isdisjoint((each.point, *each.directories)):
            continue
        report.fail(
            f"{each.dataset} ({each.shown}) is not, or not whole, in the backup: its mount "
            "point was removed while the client ran, as zfs rename does",
            EX_DATAERR,
            "incomplete",
        )
        if work.evidence is not None:
            work.evidence.told |= {*each.paths}


def destroy_snapshots(work: Work) -> tuple[zfs.NotDestroyed, ...]:
    """Destroy the snapshots of the run and return those that stay."""
    report = work.report
    done = again = zfs.destroy(work.task.door, work.made)
    if done.left:
        # A snapshot can be busy for a moment after its last mount has gone.
        time.sleep(1.0)
        again = zfs.destroy(work.task.door, [each.name for each in done.left])
    left, missing = again.left, {*done.missing, *again.missing}
    lost = sorted(name for name in missing if zfs.pool_of(name) in work.tried)
    if not lost:
        return left
    # A dataset that is renamed, or promoted from a clone, takes snapshots along.
    try:
        known = {each.name for each in left}
        ours = zfs.marked_among(work.task.door, (work.names.snapshot,))
        moved = sorted(each for each, run in ours.items() if run == report.run)
        moved = [each for each in moved if "@" in each and each not in known]
    except CommandFailed as error:
        work.unsure = True
        report.fail(
            f"the snapshot {lost[0]} has gone, perhaps elsewhere: {error}; "
            f"the next run looks for it, or: {sweep_by_hand(report)}",
            EX_OSERR,
        )
        return left
    miss_renamed(work, lost, moved)
    report.notes += [
        "a dataset was renamed, or promoted from a clone, during the backup: "
        f"its snapshot was {each} in the end"
        for each in moved
    ]
    return (*left, *zfs.destroy(work.task.door, moved).left)


def sweep_by_hand(report: Report) -> str:
    """Return the command that takes down what the job has left."""
    return Place(report.program, report.job).sweep_command


def conclude(work: Work) -> None:
    """End the account of the run and enter it into the history."""
    report = work.report
    report.ended = time.time()
    report.conceal(work.task.hide)
    remember(work.place, report)


def remember(place: Place, report: Report) -> None:
    """Enter the run into the history; not being able to is a problem of its own."""
    try:
        state.remember(place, as_dict(report))
    except (OSError, Refusal) as error:
        report.fail(f"the history cannot be written: {error}", EX_OSERR)
