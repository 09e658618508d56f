"""Drawing the plan: one look at the machine, and what the plan is drawn from."""

from collections.abc import Iterable, Mapping

from kopiatomic.backup import parts, preflight
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan, Scene, arrange
from kopiatomic.backup.selection import (
    Existing,
    Selection,
    select,
    stand_still,
    without,
)
from kopiatomic.backup.targets import asked_for
from kopiatomic.backup.unmounted import Sight
from kopiatomic.clients.base import Task
from kopiatomic.clients.records import Request, together
from kopiatomic.errors import EX_CONFIG, EX_OSERR, Refusal
from kopiatomic.job import Job
from kopiatomic.record import Record
from kopiatomic.system import mounts
from kopiatomic.system.command import CommandFailed, fits
from kopiatomic.system.machine import Mount, visible_mounts, volume_at


class Drawing(Record):
    """A plan and what it was drawn from, so that it can be drawn again with less."""

    scene: Scene
    selection: Selection
    plan: Plan

    def without(self, lost: Mapping[str, str]) -> "Drawing":
        """Draw the plan without some datasets or directories, with the reasons; raises Refusal."""
        return _drawn(self.scene, without(self.selection, lost))

    def standing_still(self, datasets: Iterable[str]) -> "Drawing":
        """Draw the plan with datasets that need no snapshot, for their pools are read-only."""
        return _drawn(self.scene, stand_still(self.selection, datasets))

    def taking(self, found: Mapping[str, Existing]) -> "Drawing":
        """Draw the plan with other snapshots taken of some datasets."""
        from kopiatomic.backup import existing

        captured = existing.retake(self.selection.captured, found)
        return _drawn(self.scene, self.selection._replace(captured=captured))


def _drawn(scene: Scene, selection: Selection) -> Drawing:
    return Drawing(scene, selection, arrange(scene, selection))


def _for_several(task: Task, job: Job, scene: Scene) -> Scene:
    """Return a scene with what the client needs for all of a job's repositories."""
    every = [scene.needs]
    for each in task.more:
        own = job._replace(env_files=each.job.env_files, environment=each.job.environment)
        every.append(each.client.needs(own, each.program, each.environment, each.script))
    return scene._replace(
        needs=together(every)._replace(repository=None),
        repositories=tuple(needs.repository for needs in every),
        temporaries=tuple(needs.temporary for needs in every[1:]),
    )


def draw(task: Task, names: Names, table: list[Mount] | None = None) -> Drawing:
    """Look at the machine once and plan the run; raises Refusal.

    ``table`` is the mount table, where somebody has read it already.
    """
    job, door, client = preflight.resolve(task.job), task.door, task.client
    client.check_words(job, task.script)
    try:
        seen = tuple(visible_mounts(mounts.table(door) if table is None else table))
        datasets = preflight.list_datasets(door, asked_for(job, seen), job.recursive)
    except CommandFailed as error:
        raise Refusal(f"cannot see what there is to back up: {error}", EX_OSERR) from error
    if any(volume_at(target) for target in task.job.targets):
        from kopiatomic.backup import volumes

        volumes.check_devices(task.job, datasets)
    selection = select(job, datasets, seen, names, Sight(preflight.look, door.jailed))
    if selection.volumes:
        from kopiatomic.backup import volumes

        selection = volumes.fit_for(job, door, selection)
    if job.snapshot is not None:
        selection = _with_existing(task, selection)
    needs = client.needs(job, task.program, task.environment, task.script)
    each_point = client.one_file_system(job, task.script)
    scene = Scene(seen, needs, names, each_point, door.jailed)
    if task.more:
        scene = _for_several(task, job, scene)
    drawing = _drawn(scene, selection)
    plan = drawing.plan
    parts.check_shown(plan)
    if not fits(client.backup_command(job, Request(plan.paths, plan.skipped))):
        raise Refusal(
            f"the client cannot be given {len(plan.paths)} paths, its command line would be too "
            "long; choose what lies above them as well, a dataset or a directory, or make "
            "several jobs",
            EX_CONFIG,
        )
    notes = (*plan.notes, *job.remarks, *client.about_live(plan.skipped, plan.paths))
    return drawing._replace(plan=plan._replace(notes=notes))


def _with_existing(task: Task, selection: Selection) -> Selection:
    from kopiatomic.backup import existing  # which most jobs do without

    try:
        return existing.take(task.door, task.job, selection)
    except CommandFailed as error:
        raise Refusal(f"cannot see which snapshots there are: {error}", EX_OSERR) from error
