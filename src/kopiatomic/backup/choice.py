"""What a job was told to back up, as its history keeps it and --check reads it again."""

import os
from collections.abc import Mapping

from kopiatomic.backup.preflight import is_path
from kopiatomic.job import Job


def as_dict(job: Job) -> dict[str, object]:
    """Return the choice of a job as plain data: targets, -a, -r, -x and what selects beside these.

    Paths are absolute, since nobody knows later where the run was started.
    """
    return {
        "targets": [os.path.abspath(each) if is_path(each) else each for each in job.targets],
        "everything": job.everything,
        "recursive": job.recursive,
        "exclude": list(job.exclude),
        **({"jailed": True} if job.jailed else {}),
        **({"at": job.at} if job.at is not None else {}),
        **({"snapshot": job.snapshot} if job.snapshot is not None else {}),
        **({"volumes": True} if job.volumes else {}),
    }


def job_of(entry: Mapping[str, object]) -> Job | None:
    """Return a job that chooses as the one of a history's entry did, or None if it does not say."""
    choice = entry.get("selection")
    if not isinstance(choice, dict):
        return None
    targets, exclude, at = choice.get("targets"), choice.get("exclude"), choice.get("at")
    snapshot = choice.get("snapshot")
    if not (isinstance(targets, list) and isinstance(exclude, list)):
        return None
    return Job(
        program=str(entry.get("program")),
        name=str(entry.get("job")),
        targets=tuple(map(str, targets)),
        everything=choice.get("everything") is True,
        recursive=choice.get("recursive") is True,
        exclude=tuple(map(str, exclude)),
        jailed=choice.get("jailed") is True,
        at=at if isinstance(at, str) else None,
        snapshot=snapshot if isinstance(snapshot, str) else None,
        volumes=choice.get("volumes") is True,
    )
