"""Several repositories of one job, an env file for each: what they are called."""

import os
from collections.abc import Sequence

from kopiatomic.clients.base import Task
from kopiatomic.errors import EX_CONFIG, Refusal
from kopiatomic.system.command import printable


def told_apart(tasks: Sequence[Task]) -> Task:
    """Return the first of a job's tasks, which has the others; each with its repository's name.

    Raises Refusal where two lead to the same repository, as far as that can be told: one
    backup would be taken for two.
    """
    files = [each.env_file or "" for each in tasks]
    _refuse_alike(tasks, files)
    named = [
        task._replace(repository=name)
        for task, name in zip(tasks, names_of(files), strict=True)
    ]
    return named[0]._replace(more=tuple(named[1:]))


def names_of(files: Sequence[str]) -> tuple[str, ...]:
    """Return what people call the repositories of these env files, which are absolute paths.

    It is the last part of the path, and as much before it as two that are alike need.
    """
    return tuple(_shortest(each, files) for each in files)


def _shortest(path: str, files: Sequence[str]) -> str:
    words = path.split("/")
    for count in range(1, len(words)):
        name = "/".join(words[-count:])
        if sum(each.endswith(f"/{name}") for each in files) == 1:
            return name
    return path


def _refuse_alike(tasks: Sequence[Task], files: Sequence[str]) -> None:
    real: set[str] = set()
    led: dict[str, str] = {}
    for task, file in zip(tasks, files, strict=True):
        if os.path.realpath(file) in real:
            raise Refusal(f"-e {printable(file)} is given twice: name each env file once")
        real.add(os.path.realpath(file))
        # What is not read, in a dry run without rights, says nothing.
        if task.job.plain or not (task.job.environment or os.access(file, os.R_OK)):
            continue
        place = task.client.leads_to(task.job, task.environment, task.script)
        if place is not None and led.setdefault(place, file) != file:
            raise Refusal(
                f"{printable(led[place])} and {printable(file)} lead to the same repository: each "
                f"must set {task.client.repository_variable} for one of its own, and neither a "
                "wrapper nor -c or -o may name one",
                EX_CONFIG,
            )
