"""The command line: arguments to a Job, and the two entry points."""

import sys
from typing import TYPE_CHECKING

from kopiatomic import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kopiatomic.command import Door
    from kopiatomic.job import Job

SHORT = "ac:e:hj:no:p:q:rs:vx:"
LONG = {
    "all": "-a",
    "command=": "-c",
    "env-file=": "-e",
    "help": "-h",
    "job=": "-j",
    "dry-run": "-n",
    "options=": "-o",
    "before=": "-p",
    "after=": "-q",
    "recursive": "-r",
    "after-snapshot=": "-s",
    "version": "-v",
    "exclude=": "-x",
    "live=": "--live",
    "plain": "--plain",
    "json": "--json",
    "status": "--status",
    "sweep": "--sweep",
    "verbose": "--verbose",
}

HELP = """\
usage: {program} [-anr] [options] dataset | path ...
       {program} --status | --sweep [-j job]

Back up ZFS datasets with {client}, all files from one moment in time: snapshot
them, show {client} the live system in which they stand still, clean up.

What to back up:
  dataset | path          a dataset, or a path in it; several may be named
  -a, --all               all mounted datasets
  -r, --recursive         the datasets below those named as well
  -x, --exclude PATTERN   not the datasets PATTERN matches (*, ?, []), nor those
                          below them; may be given more than once

How:
  -c, --command COMMAND   the client, or a wrapper around it that ends in
                          'exec {client} "$@"' (default: {command})
  -o, --options OPTIONS   more options for it, such as -o "--tag nightly"
  -e, --env-file FILE     NAME=VALUE lines for its environment (passwords go
                          here); must be closed to others
  -j, --job NAME          keeps several jobs on one machine apart (default)
      --live DIRECTORY    leave DIRECTORY live although its dataset is frozen
      --plain             COMMAND is neither kopia nor restic: give it the paths
                          and nothing else

Commands of yours, run by sh in the live system:
  -p, --before COMMAND          before the snapshot; if it fails, no backup
  -s, --after-snapshot COMMAND  right after it, also if it failed
  -q, --after COMMAND           when all is over; KOPIATOMIC_OUTCOME and
                                KOPIATOMIC_STATUS say how it went

Else:
  -n, --dry-run           say what would be done, and do nothing
      --json              the report as JSON on standard output
      --status            past runs and what is left of them
      --sweep             remove what a run that was killed has left behind
      --verbose           show every command
  -h, --help              this text
  -v, --version           the version

Try it: {program} -n -r zroot/home      Manual: {program}(8)
"""


def kopiatomic() -> int:
    """Run ``kopiatomic``; returns its exit status."""
    return main("kopiatomic", sys.argv[1:])


def restomic() -> int:
    """Run ``restomic``; returns its exit status."""
    return main("restomic", sys.argv[1:])


def main(program: str, arguments: "Sequence[str]") -> int:
    """Run ``program`` with ``arguments`` and return a sysexits(3) or the client's status."""
    if list(arguments) in (["-v"], ["--version"]):
        print(f"{program} {__version__}")
        return 0
    import os

    from kopiatomic.command import CommandFailed, printable
    from kopiatomic.refusal import EX_OSERR, Refusal

    os.umask(0o077)
    try:
        return _main(program, list(arguments))
    except Refusal as refusal:
        print(f"{program}: {printable(str(refusal))}", file=sys.stderr)
        return refusal.status
    except CommandFailed as error:
        print(f"{program}: {printable(str(error))}", file=sys.stderr)
        return EX_OSERR


def _main(program: str, arguments: "Sequence[str]") -> int:
    from kopiatomic.command import Door
    from kopiatomic.refusal import Refusal

    options, targets = _parse(arguments)
    switches = {name for name, _ in options}
    if "-h" in switches:
        print(help_text(program), end="")
        return 0
    if "-v" in switches:
        print(f"{program} {__version__}")
        return 0
    door = Door(trace=sys.stderr if "--verbose" in switches else None)
    job = job_from(program, options, targets)
    if "--status" in switches:
        raise Refusal("--status is not there yet")
    if "--sweep" in switches:
        return _sweep(job, door)
    if job.everything and targets:
        raise Refusal(f"-a means every dataset: leave out -a, or '{targets[0]}'")
    if not (job.everything or targets):
        raise Refusal(f"nothing to back up: name a dataset or a path, or say -a; see {program} -h")
    if "-n" in switches:
        return _dry_run(job, door, as_json="--json" in switches)
    return _run(job, door, as_json="--json" in switches)


def help_text(program: str) -> str:
    """Return what --help prints."""
    from kopiatomic.backend import backend_of

    backend = backend_of(program)
    command = " ".join((backend.name, *backend.subcommand))
    return HELP.format(program=program, client=backend.name, command=command)


def _parse(arguments: "Sequence[str]") -> "tuple[list[tuple[str, str]], list[str]]":
    """Return the options by their canonical names, and the targets; raises Refusal."""
    import getopt

    from kopiatomic.refusal import Refusal

    try:
        options, targets = getopt.gnu_getopt(list(arguments), SHORT, list(LONG))
    except getopt.GetoptError as error:
        raise Refusal(f"{error.msg}; see --help") from error
    names = {f"--{name.rstrip('=')}": short for name, short in LONG.items()}
    return [(names.get(name, name), value) for name, value in options], targets


def job_from(
    program: str, options: "Sequence[tuple[str, str]]", targets: "Sequence[str]"
) -> "Job":
    """Return the job that a command line describes; raises Refusal."""
    from kopiatomic import preflight, state
    from kopiatomic.job import Job

    def last(option: str) -> "str | None":
        return next((value for name, value in reversed(options) if name == option), None)

    def every(option: str) -> "tuple[str, ...]":
        return tuple(value for name, value in options if name == option)

    switches = {name for name, _ in options}
    words = [word for text in every("-o") for word in preflight.split_words(text, "-o")]
    return Job(
        program=program,
        name=state.check_job_name(last("-j") or "default"),
        targets=tuple(targets),
        everything="-a" in switches,
        recursive="-r" in switches,
        exclude=every("-x"),
        command=preflight.split_words(last("-c") or "", "-c"),
        options=tuple(words),
        plain="--plain" in switches,
        before=last("-p"),
        after_snapshot=last("-s"),
        after=last("-q"),
        live=every("--live"),
        env_file=last("-e"),
    )


def _run(job: "Job", door: "Door", as_json: bool) -> int:
    import os
    from dataclasses import replace

    from kopiatomic import client, envfile, preflight, report, run

    preflight.need_root(job)
    if job.env_file is not None:
        job = replace(job, environment=envfile.read(job.env_file))
    streams = client.Streams(
        output=2 if as_json else 1, capture=as_json or not client.on_terminal()
    )
    done = run.run(job, door, streams, os.environ)
    text = report.as_json(report.as_dict(done)) if as_json else "\n" + report.as_text(done)
    _print(text)
    for problem in done.problems:
        print(f"{job.program}: {problem}", file=sys.stderr)
    return done.status


def _dry_run(job: "Job", door: "Door", as_json: bool) -> int:
    import os
    from dataclasses import replace

    from kopiatomic import backend, client, envfile, report, run
    from kopiatomic.refusal import EX_NOPERM, Refusal
    from kopiatomic.state import Place

    notes = []
    if job.env_file is not None:
        try:
            job = replace(job, environment=envfile.read(job.env_file, os.geteuid()))
        except Refusal as refusal:
            if os.geteuid() == 0 or refusal.status == EX_NOPERM:
                raise
            notes.append(f"{job.env_file} is not read, which root will do")
    environment = backend.client_environment(job, os.environ, None)
    needs = run.find_needs(job, environment)
    plan = run.draw_plan(job, door, run.name_run(Place(job.program, job.name)), needs)
    plan = replace(plan, notes=(*plan.notes, *notes))
    words = backend.client_command(job, plan, None, None, not client.on_terminal())
    if as_json:
        _print(report.as_json(report.plan_as_dict(plan, words)))
    else:
        _print(report.plan_as_text(plan, words))
    return 0


def _sweep(job: "Job", door: "Door") -> int:
    import time

    from kopiatomic import preflight, report, run, state
    from kopiatomic.refusal import EX_OSERR

    preflight.need_root(job)
    place = state.Place(job.program, job.name)
    with state.lock(place):
        done = report.Report(job.program, job.name, "", began=time.time())
        run.sweep(place, door, done, thoroughly=True)
    lines = [f"removed {each}" for each in done.swept] or ["nothing was left behind"]
    _print("".join(f"{line}\n" for line in lines))
    for note in done.notes:
        print(f"{job.program}: {note}", file=sys.stderr)
    return EX_OSERR if done.notes else 0


def _print(text: str) -> None:
    """Write to standard output what may hold bytes that are no text; a gone reader is fine."""
    import os

    try:
        sys.stdout.flush()
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass
