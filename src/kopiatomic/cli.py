"""The command line: arguments to a Job, and the two entry points."""

import sys
from typing import TYPE_CHECKING

from kopiatomic import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kopiatomic.command import Door
    from kopiatomic.job import Job
    from kopiatomic.upkeep import Account

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
    "check": "--check",
    "max-age=": "--max-age",
    "expect=": "--expect",
    "sweep": "--sweep",
    "verbose": "--verbose",
    "periodic": "--periodic",
    "datasets=": "--datasets",
    "excludes=": "--excludes",
    "upkeep": "--upkeep",
    "verify=": "--verify",
    "maintenance": "--maintenance",
    "forget=": "--forget",
    "prune": "--prune",
    "drill=": "--drill",
    "seed=": "--seed",
    "size-limit=": "--size-limit",
}

# What the exit status of a script tells periodic(8), beside 0: nothing to tell.
PERIODIC_INFORMATION = 1
PERIODIC_TROUBLE = 3

HELP = """\
usage: {program} [-anr] [options] dataset | path ...
       {program} --status | --sweep [-j job]
       {program} --check [--max-age hours] [--expect program/job] ...
       {program} --upkeep | --drill N [-ceoj as for the backup] ...

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

Between backups, of the same -c, -o, -e and -j:
      --upkeep            look after the repository, with one or more of:
      --verify PERCENT      check it, and read that much of its data
      --maintenance         kopia's full maintenance
      --forget FLAGS        restic forget for this machine; FLAGS say what to
                            keep, as in --forget '--keep-daily 7'
      --prune               restic prune
      --drill N           restore N files of each newest backup and compare
      --seed NUMBER         choose the files of an earlier drill again
      --size-limit SIZE     pass over larger files (1G)

Else:
  -n, --dry-run           say what would be done, and do nothing
      --json              the report as JSON on standard output
      --status            each job's newest good backup and last seven nights,
                          and what runs that died have left behind
      --check             only what endangers the backups, of all jobs of both
                          programs; exit status 1 if there is anything:
      --max-age HOURS       a good backup older than this is too old (48); holds
                            for the jobs that are named after it
      --expect PROGRAM/JOB  a job that must be fresh, not all that ever ran; may
                            be given more than once
      --sweep             remove what a run that was killed has left behind
      --verbose           show every command
      --periodic          report and exit as periodic(8) scripts do
      --datasets WORDS    more datasets and paths in one text, split as sh would
      --excludes WORDS    more patterns for -x, likewise
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
    periodic = "--periodic" in arguments
    try:
        return _main(program, list(arguments))
    except (Refusal, CommandFailed) as error:
        # periodic(8) mails standard output; there, status 3 means trouble.
        stream = sys.stdout if periodic else sys.stderr
        print(f"{program}: {printable(str(error))}", file=stream)
        status = error.status if isinstance(error, Refusal) else EX_OSERR
        return PERIODIC_TROUBLE if periodic else status


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
    job = job_from(program, options, targets)
    door = Door(trace=_tracer(job) if "--verbose" in switches else None)
    if _looks(switches, job):
        if "--check" in switches:
            return _check(job, door, options)
        return _status(job, door, switches)
    if "--sweep" in switches:
        return _sweep(job, door)
    if _between_backups(switches, job):
        return _look_after(job, door, dict(options))
    if job.everything and job.targets:
        raise Refusal(f"-a means every dataset: leave out -a, or '{job.targets[0]}'")
    if not (job.everything or job.targets):
        raise Refusal(f"nothing to back up: name a dataset or a path, or say -a; see {program} -h")
    if "-n" in switches:
        return _dry_run(job, door, as_json="--json" in switches)
    return _run(job, door, as_json="--json" in switches, periodic="--periodic" in switches)


def _tracer(job: "Job") -> "Callable[[str], None]":
    """Return what writes a command line to standard error, without the secrets in it."""
    import os

    from kopiatomic.redact import redactor

    hide = redactor({**os.environ, **job.environment}, [*job.command, *job.options])

    def tell(line: str) -> None:
        print(hide(line), file=sys.stderr, flush=True)

    return tell


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

    def words(option: str) -> "list[str]":
        return [
            word for text in every(option) for word in preflight.split_words(text, option)
        ]

    switches = {name for name, _ in options}
    return Job(
        program=program,
        name=state.check_job_name(last("-j") or "default"),
        targets=(*targets, *words("--datasets")),
        everything="-a" in switches,
        recursive="-r" in switches,
        exclude=(*every("-x"), *words("--excludes")),
        command=preflight.split_words(last("-c") or "", "-c"),
        options=tuple(words("-o")),
        plain="--plain" in switches,
        before=last("-p"),
        after_snapshot=last("-s"),
        after=last("-q"),
        live=every("--live"),
        env_file=last("-e"),
    )


def _run(job: "Job", door: "Door", as_json: bool, periodic: bool) -> int:
    import os
    from dataclasses import replace

    from kopiatomic import client, envfile, preflight, report, run

    preflight.need_root(job)
    if job.env_file is not None:
        job = replace(job, environment=envfile.read(job.env_file))
    if periodic:
        streams = client.Streams(output=None, messages=None)
    else:
        terminal = client.on_terminal()
        streams = client.Streams(output=2 if as_json else 1, capture=as_json or not terminal)
    done = run.run(job, door, streams, os.environ)
    if as_json:
        _print(report.as_json(report.as_dict(done)))
    elif periodic:
        _print(report.as_mail(done))
    else:
        _print("\n" + report.as_text(done))
    if not periodic:
        for problem in done.problems:
            print(f"{job.program}: {problem}", file=sys.stderr)
        return done.status
    if done.status != 0:
        return PERIODIC_TROUBLE
    return PERIODIC_INFORMATION if done.noteworthy else 0


def _dry_run(job: "Job", door: "Door", as_json: bool) -> int:
    import os
    from dataclasses import replace

    from kopiatomic import backend, client, envfile, redact, report, run
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
        text = report.as_json(report.plan_as_dict(plan, words))
    else:
        text = report.plan_as_text(plan, words)
    _print(redact.redactor(environment, [*job.command, *job.options])(text))
    return 0


def _between_backups(switches: "set[str]", job: "Job") -> bool:
    """Say whether upkeep or a drill is asked for; raises Refusal if that is unclear."""
    from kopiatomic.refusal import Refusal

    main_options = sorted(switches & {"--upkeep", "--drill"})
    for name in ("--verify", "--maintenance", "--forget", "--prune"):
        if name in switches and "--upkeep" not in switches:
            raise Refusal(f"{name} goes with --upkeep")
    for name in ("--seed", "--size-limit"):
        if name in switches and "--drill" not in switches:
            raise Refusal(f"{name} goes with --drill")
    if len(main_options) == 2:
        raise Refusal("--upkeep and --drill are two runs: call them one after the other")
    if main_options and (job.targets or job.everything):
        raise Refusal(f"{main_options[0]} is about the repository: name no dataset or path")
    return bool(main_options)


def _look_after(job: "Job", door: "Door", values: "dict[str, str]") -> int:
    """Run upkeep or a restore drill; ``values`` are the options by their names."""
    from dataclasses import replace

    from kopiatomic import envfile, preflight
    from kopiatomic.refusal import Refusal

    dry = "-n" in values
    if dry and "--drill" in values:
        raise Refusal("-n does not go with --drill, which only reads")
    if not dry:
        preflight.need_root(job)
        if job.env_file is not None:
            job = replace(job, environment=envfile.read(job.env_file))
    return _drill(job, door, values) if "--drill" in values else _upkeep(job, door, values)


def _upkeep(job: "Job", door: "Door", values: "dict[str, str]") -> int:
    import os

    from kopiatomic import client, preflight, report, upkeep
    from kopiatomic.command import quote
    from kopiatomic.redact import redactor

    verify, forget = values.get("--verify"), values.get("--forget")
    wishes = upkeep.Wishes(
        verify=None if verify is None else upkeep.percent_of(verify),
        maintenance="--maintenance" in values,
        forget=None if forget is None else preflight.split_words(forget, "--forget"),
        prune="--prune" in values,
    )
    if "-n" in values:
        steps = upkeep.plan(job, wishes, os.environ)
        hide = redactor(os.environ, [*job.command, *job.options])
        _print(hide("Would run:\n" + "".join(f"  {quote(step.argv)}\n" for step in steps)))
        return 0
    as_json = "--json" in values
    capture = as_json or not client.on_terminal()
    streams = client.Streams(output=2 if as_json else 1, capture=capture)
    account = upkeep.run(job, door, streams, os.environ, wishes)
    _print(
        report.as_json(upkeep.as_dict(account)) if as_json else "\n" + upkeep.as_text(account)
    )
    return _tell(job, account)


def _drill(job: "Job", door: "Door", values: "dict[str, str]") -> int:
    import os

    from kopiatomic import drill, report

    seed = values.get("--seed")
    wishes = drill.Wishes(
        files=drill.count_of(values["--drill"], "--drill", least=1),
        seed=drill.new_seed() if seed is None else drill.count_of(seed, "--seed"),
        size_limit=drill.size_of(values.get("--size-limit", "1G")),
    )
    account = drill.run(job, door, os.environ, wishes)
    as_json = "--json" in values
    _print(report.as_json(drill.as_dict(account)) if as_json else drill.as_text(account))
    return _tell(job, account)


def _tell(job: "Job", account: "Account") -> int:
    """Say on standard error what went wrong, and return the exit status."""
    from kopiatomic.command import printable

    for problem in account.problems:
        print(f"{job.program}: {printable(problem)}", file=sys.stderr)
    return account.status


def _looks(switches: "set[str]", job: "Job") -> bool:
    """Say whether --status or --check is asked for; raises Refusal if that is unclear."""
    from kopiatomic.refusal import Refusal

    asked = sorted(switches & {"--status", "--check"})
    for name in ("--max-age", "--expect"):
        if name in switches and "--check" not in switches:
            raise Refusal(f"{name} goes with --check")
    if len(asked) == 2:
        raise Refusal("--status and --check are two things: ask for one after the other")
    if asked and (job.targets or job.everything):
        raise Refusal(f"{asked[0]} is about the jobs: name no dataset or path")
    if "--check" in asked and "-j" in switches:
        raise Refusal("--check looks at all jobs; --expect names those that must be fresh")
    return bool(asked)


def _status(job: "Job", door: "Door", switches: "set[str]") -> int:
    import time

    from kopiatomic import preflight, report, status
    from kopiatomic.refusal import EX_OSERR

    preflight.need_root(job)
    name = job.name if "-j" in switches else None
    account = status.look(door, job.program, name, time.time())
    as_json, periodic = "--json" in switches, "--periodic" in switches
    _print(report.as_json(status.as_dict(account)) if as_json else status.as_text(account))
    if account.trouble is None:
        return 0
    print(f"{job.program}: {account.trouble}", file=sys.stdout if periodic else sys.stderr)
    return PERIODIC_TROUBLE if periodic else EX_OSERR


def _check(job: "Job", door: "Door", options: "Sequence[tuple[str, str]]") -> int:
    import time

    from kopiatomic import check, preflight, report

    expect, max_age = check.wishes(options)
    values = dict(options)
    preflight.need_root(job)
    found = check.findings(check.look(door, expect, max_age), time.time())
    _print(report.as_json(check.as_dict(found)) if "--json" in values else check.as_text(found))
    trouble = PERIODIC_TROUBLE if "--periodic" in values else 1
    return trouble if found else 0


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
