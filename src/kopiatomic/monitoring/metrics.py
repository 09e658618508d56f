"""The state of the jobs as Prometheus reads it, for --metrics.

The form is Prometheus's text format 0.0.4, and the names follow "Metric and label naming" of
its documentation: base units, and no name that only a counter may have. One series of each
metric is one job, or one of several client runs of a job. What is not known has no series;
what has never been is 0 seconds after 1970, so that it is older than any limit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from kopiatomic import __version__
from kopiatomic.clients.records import CHECK
from kopiatomic.monitoring import care, runs
from kopiatomic.monitoring.history import JobHistory, PastRun, number, read_histories
from kopiatomic.monitoring.runs import LastGood
from kopiatomic.record import Record

PREFIX = "kopiatomic"

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class Metric(Record):
    """A metric: what its name ends in, what it says, and its value for a job, None if unknown."""

    name: str
    help: str
    value: Callable[[JobHistory], float | None]


def _last_success(job: JobHistory) -> float | None:
    run = job.last_success
    return 0.0 if run is None else run.when


def _last_start(job: JobHistory) -> float | None:
    runs = job.runs
    return runs[-1].start if runs else 0.0


def _last_result(job: JobHistory) -> float | None:
    runs = job.runs
    return float(runs[-1].succeeded or runs[-1].is_well) if runs else None


def _of_success(number: Callable[[PastRun], float | None]) -> Callable[[JobHistory], float | None]:
    """Return what gives a number of the last successful backup."""

    def value(job: JobHistory) -> float | None:
        run = job.last_success
        return None if run is None else number(run)

    return value


def _works(job: JobHistory, kind: str) -> list[care.Work]:
    """Return the work of a kind: one, or that in each of several repositories."""
    return [work for work in job.works if work.what == kind]


def _last_good(kind: str) -> Callable[[JobHistory], float | None]:
    """Return what tells when a step of upkeep, or a drill, last succeeded, in all repositories."""

    def value(job: JobHistory) -> float | None:
        worked = [work.worked for work in _works(job, kind)]
        if not all(worked):
            return 0.0
        ended = [each.ended for each in worked if each]
        known = [each for each in ended if each is not None]
        return (min(known) if len(known) == len(ended) else None) if ended else 0.0

    return value


def _last_result_of(kind: str) -> Callable[[JobHistory], float | None]:
    """Return what tells whether the last step of upkeep, or drill, succeeded."""

    def value(job: JobHistory) -> float | None:
        works = _works(job, kind)
        return float(not any(work.failed for work in works)) if works else None

    return value


METRICS = (
    Metric("backup_last_success_timestamp_seconds",
           "The moment that the last successful backup shows, 0 if there is none.",
           _last_success),
    Metric("backup_last_run_timestamp_seconds",
           "When the last backup began, whatever came of it, 0 if none ever did.",
           _last_start),
    Metric("backup_last_run_success",
           "Whether the last backup is complete.", _last_result),
    Metric("backup_running",
           "Whether a run of the job is under way.", lambda job: float(job.running)),
    Metric("backup_duration_seconds",
           "How long the last successful backup took.", _of_success(lambda run: run.seconds)),
    Metric("backup_added_bytes",
           "What the last successful backup added, before compression if the client tells.",
           _of_success(lambda run: run.added)),
    Metric("backup_captured_datasets",
           "How many datasets are in the last successful backup.",
           _of_success(lambda run: len(run.captured))),
    Metric("backup_partly_captured_datasets",
           "Of how many of these only directories are in the last successful backup.",
           _of_success(lambda run: len(run.parts))),
    Metric("backup_left_out_datasets",
           "How many datasets and mounts the last successful backup left out.",
           _of_success(lambda run: run.left_out)),
    Metric("check_last_success_timestamp_seconds",
           "When a check of the repository last succeeded, 0 if none ever did.",
           _last_good(CHECK)),
    Metric("check_last_run_success",
           "Whether the last check of the repository succeeded.", _last_result_of(CHECK)),
    Metric("drill_last_success_timestamp_seconds",
           "When a restore drill last succeeded, 0 if none ever did.", _last_good(care.DRILL)),
    Metric("drill_last_run_success",
           "Whether the last restore drill succeeded.", _last_result_of(care.DRILL)),
)  # fmt: skip


class RunMetric(Record):
    """A metric of one of several client runs of a job, likewise."""

    name: str
    help: str
    value: Callable[[LastGood], float | None]


RUN_METRICS = (
    RunMetric("client_run_last_success_timestamp_seconds",
              "The moment that the last good backup by one of several client runs shows, "
              "0 if there is none.",
              lambda run: 0.0 if run.run is None else run.when),
    RunMetric("client_run_last_success",
              "Whether the last of such a client run made a complete backup.",
              lambda run: float(run.row.is_good)),
    RunMetric("client_run_duration_seconds",
              "How long the client took for the last good one.",
              lambda run: number(run.good.seconds) if run.good else None),
    RunMetric("client_run_added_bytes",
              "What the last good one added, before compression if the client tells.",
              lambda run: number(run.good.added) if run.good else None),
)  # fmt: skip


def observe(program: str, job: str | None) -> list[JobHistory]:
    """Return a program's jobs, or the one that is asked for; raises Refusal."""
    return [
        history
        for history in read_histories()
        if history.place.program == program and job in (None, history.place.job)
    ]


def as_text(program: str, jobs: Sequence[JobHistory]) -> str:
    """Return the metrics of a program's jobs; without any job, that the program is there."""
    info = {"program": program, "version": __version__}
    lines = [
        *_head("build_info", "The version of the program that wrote this; its value is 1."),
        _sample("build_info", info, 1.0),
    ]
    for metric in METRICS:
        samples = list(_samples(metric, jobs))
        if samples:
            lines += [*_head(metric.name, metric.help), *samples]
    for each in RUN_METRICS:
        samples = list(_samples_of_runs(each, jobs))
        if samples:
            lines += [*_head(each.name, each.help), *samples]
    return "".join(f"{line}\n" for line in lines)


def _head(name: str, text: str) -> list[str]:
    return [
        f"# HELP {PREFIX}_{name} {text.translate(_HELP_ESCAPES)}",
        f"# TYPE {PREFIX}_{name} gauge",
    ]


def _samples(metric: Metric, jobs: Sequence[JobHistory]) -> Iterator[str]:
    for job in jobs:
        value = metric.value(job)
        if value is not None:
            place = job.place
            labels = {"program": place.program, "job": place.job}
            yield _sample(metric.name, labels, value)


def _samples_of_runs(metric: RunMetric, jobs: Sequence[JobHistory]) -> Iterator[str]:
    for job in jobs:
        for run in runs.several(job):
            value = metric.value(run)
            if value is not None:
                place, kind, of = job.place, run.row.key[0], run.row.key[1]
                labels = {
                    "program": place.program, "job": place.job, "run": run.name,
                    "kind": kind, "of": of, "repository": run.row.repository,
                }  # fmt: skip
                yield _sample(metric.name, labels, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return one line: a number of seconds is told to the millisecond, and never with an e."""
    told = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
    number = f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{PREFIX}_{name}{{{told}}} {number}"

