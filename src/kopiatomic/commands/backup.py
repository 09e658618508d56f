"""What the programs do with snapshots, one function for each: prepare, run, tell, exit status.

``values`` are the command line's options by their names.
"""

from collections.abc import Mapping

from kopiatomic import formatting, state
from kopiatomic.backup import jail, preflight, report, routine, taking
from kopiatomic.backup.client_runs import FILES, LAYOUT, Called, ClientRun
from kopiatomic.backup.drawing import draw
from kopiatomic.backup.names import name_run
from kopiatomic.backup.plan import Plan
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import Request
from kopiatomic.commands import common
from kopiatomic.errors import PERIODIC_INFORMATION
from kopiatomic.job import Job
from kopiatomic.system.command import Door, quote

# What a backup waits in periodic(8)'s name for another run of its job, in seconds: until a
# drill has ended. Of what goes on for longer, an earlier backup, the mail had better tell.
PERIODIC_WAIT = 10 * 60


def back_up(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Run a backup and tell what it came to."""
    wait = common.wait_of(job, values, PERIODIC_WAIT)
    task = common.task_of_root(job, door)
    preflight.hooks(job)
    done = routine.run(task, common.streams(values), wait)
    if "--json" in values:
        common.show(formatting.as_json(report.as_dict(done)))
    elif "--periodic" in values:
        common.show(report.as_mail(done))
    else:
        common.show("\n" + report.as_text(done))
    good = PERIODIC_INFORMATION if done.noteworthy else 0
    status = common.tell(job, done, values, good)
    if job.notify is None:
        return status
    # Most jobs have none, and a run is to begin soon.
    from kopiatomic.commands.notify import Notice, tell_end

    notice = Notice(
        done.program, done.job, "backup", done.outcome, done.status, "; ".join(done.problems),
        report.as_mail(done), done.run,
    )  # fmt: skip
    return tell_end(task, notice, values, status)


def dry_run(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Say what a backup would do; needs no rights."""
    task, notes = common.task_of_anyone(job, door)
    preflight.hooks(job)
    task = task._replace(door=jail.entered(door))
    if task.door.jailed:
        jail.check_rights(task.door)
    place = state.Place(job.program, job.name)
    plan = draw(task, name_run(place, task.door.jailed)).plan
    if job.snapshot is not None and taking.last_with_all(task, plan, place) is not None:
        notes.append(
            "no backup would be made if the repository still has the last one: it has all these "
            "snapshots"
        )
    plan = plan._replace(notes=(*plan.notes, *notes, *_note_on_layout(task)))
    captured = common.streams(values).capture
    clients = [_words(task, plan, run, captured) for run in plan.runs]
    every = (task, *task.more)
    names = [Called(run, every[run.repository].repository).name for run in plan.runs]
    if "--json" in values:
        text = formatting.as_json(report.plan_as_dict(plan, clients, names))
    else:
        text = report.plan_as_text(plan, clients, names)
    common.show(task.hide(text))
    return 0


def _note_on_layout(task: Task) -> list[str]:
    """Say by which command the layout would be saved, if the job saves it."""
    from kopiatomic.backup import keeping  # which a backup loads when it comes to that

    if not keeping.is_wanted(task):
        return []
    place = state.Place(task.job.program, task.job.name)
    request = Request((), captured=False, stream=keeping.stream_of(place), aside=LAYOUT)
    words = task.client.backup_command(task.job, request)
    command = f"{quote(words)} < {quote([place.layout])}"
    return [f"the layout of the pools would be saved too if it has changed: {command}"]


def _words(task: Task, plan: Plan, run: ClientRun, captured: bool) -> list[str]:
    """Return the words of a client run as they would be."""
    skipped = plan.skipped if run.kind == FILES else ()
    request = Request(
        run.paths, skipped, captured=captured, stream=run.stream, aside=run.aside
    )
    own = (task, *task.more)[run.repository]
    return own.client.backup_command(own.job, request)
