"""The command line: arguments to a Job, and the two entry points."""

import sys

from kopiatomic import __version__

# Everything else is imported where it is needed, so that --version is quick;
# importing typing for this name would take half of that time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kopiatomic.job import Job
    from kopiatomic.system.command import Door

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
    "paths-from=": "--paths-from",
    "snapshot=": "--snapshot",
    "live=": "--live",
    "jailed": "--jailed",
    "at=": "--at",
    "plain": "--plain",
    "no-proof": "--no-proof",
    "json": "--json",
    "status": "--status",
    "full": "--full",
    "check": "--check",
    "max-age=": "--max-age",
    "expect=": "--expect",
    "sweep": "--sweep",
    "verbose": "--verbose",
    "periodic": "--periodic",
    "datasets=": "--datasets",
    "excludes=": "--excludes",
    "volumes": "--volumes",
    "lives=": "--lives",
    "env-files=": "--env-files",
    "upkeep": "--upkeep",
    "verify=": "--verify",
    "maintenance": "--maintenance",
    "forget=": "--forget",
    "prune": "--prune",
    "drill=": "--drill",
    "seed=": "--seed",
    "size-limit=": "--size-limit",
    "wait=": "--wait",
    "notify=": "--notify",
    "metrics": "--metrics",
    "layout": "--layout",
    "no-layout": "--no-layout",
    "retries=": "--retries",
    "retry-pause=": "--retry-pause",
}

# What asks for something else than a backup, and the options that go with that alone.
INSTEAD = {
    "--status": ("--full", "--metrics"),
    "--check": ("--max-age", "--expect"),
    "--sweep": (),
    "--layout": (),
    "--upkeep": ("--verify", "--maintenance", "--forget", "--prune"),
    "--drill": ("--seed", "--size-limit"),
}


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

    from kopiatomic.errors import EX_OSERR, EX_SOFTWARE, Refusal
    from kopiatomic.system.command import CommandFailed

    umask = os.umask(0o077)
    _fill_standard_streams()
    try:
        return _main(program, list(arguments), umask)
    except Refusal as refusal:
        outcome = "refused" if refusal.status < 128 else "interrupted"
        given_up = str(refusal), refusal.status, outcome
    except CommandFailed as error:
        given_up = str(error), EX_OSERR, "failed"
    except KeyboardInterrupt:
        # Before or after a run, which catches signals itself: there is nothing to take down.
        given_up = "interrupted by SIGINT", 130, "interrupted"
    except Exception as error:
        if "--verbose" in arguments:
            raise
        message = f"internal error, please report it: {error!r} (--verbose shows where)"
        given_up = message, EX_SOFTWARE, "failed"
    return _give_up(program, arguments, umask, *given_up)


def _fill_standard_streams() -> None:
    """Open the standard streams that the caller closed, on nothing.

    The next file of ours would be taken for one of them, and be written to.
    """
    import os

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # It gets the lowest number there is, which is the one that is missing.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def _give_up(
    program: str, arguments: "Sequence[str]", umask: int, message: str, status: int, outcome: str
) -> int:
    """Say in one line why nothing was done, and return the exit status."""
    from kopiatomic.errors import PERIODIC_TROUBLE
    from kopiatomic.formatting import title
    from kopiatomic.system.command import printable

    values = _as_far_as_readable(arguments)
    job = values.get("-j") or "default"
    others = ("--upkeep", "--drill", "--status", "--check", "--sweep", "--layout")
    what = next((option[2:] for option in others if option in values), "backup")
    line = f"{title(program, job)}: NO {what.upper()}: {printable(message)}"
    periodic = "--periodic" in arguments
    if periodic:
        # periodic(8) mails standard output, and it must be plain which job is without a backup.
        print(line, flush=True)
    else:
        print(f"{program}: {printable(message)}", file=sys.stderr)
    if "--notify" in values and what in ("backup", "upkeep", "drill"):
        from kopiatomic.commands.notify import Notice, tell_refusal
        from kopiatomic.state import is_job_name

        name = job if is_job_name(job) else ""
        notice = Notice(program, name, what, outcome, status, message, f"{line}\n")
        tell_refusal(notice, values, umask)
    return PERIODIC_TROUBLE if periodic else status


def _need_a_place() -> None:
    """Refuse to start in a directory that was removed: nobody knows what ``.`` is there."""
    import os

    try:
        os.getcwd()
    except FileNotFoundError as error:
        from kopiatomic.errors import EX_NOINPUT, Refusal

        message = "the directory in which this was started is there no more: change to another one"
        raise Refusal(message, EX_NOINPUT) from error


def _as_far_as_readable(arguments: "Sequence[str]") -> "dict[str, str]":
    """Return the options of a command line that stand before the first error in it."""
    from kopiatomic.errors import Refusal

    for end in range(len(arguments), 0, -1):
        try:
            return dict(_parse(arguments[:end])[0])
        except Refusal:
            continue
    return {}


def _main(program: str, arguments: "Sequence[str]", umask: int) -> int:
    """Do what the arguments ask for; ``umask`` is the caller's."""
    options, targets = _parse(arguments)
    values = dict(options)
    if "-h" in values:
        from kopiatomic import usage

        print(usage.text(program), end="")
        return 0
    if "-v" in values:
        if targets or len(options) > 1:
            from kopiatomic.errors import Refusal

            raise Refusal("-v prints the version and does nothing else; to see more, say --verbose")
        print(f"{program} {__version__}")
        return 0
    _need_a_place()
    job = job_from(program, options, targets)

    from kopiatomic.system.command import Door
    from kopiatomic.system.kernel import find_kernel

    door = Door(_tell if "--verbose" in values else None, find_kernel(), umask)
    instead = _instead_of_a_backup(set(values), job)
    if instead is not None:
        return _do_instead(instead, job, door, options)

    from kopiatomic.commands import backup

    job = _with_lists(job, options)
    _need_a_selection(job)
    return (backup.dry_run if "-n" in values else backup.back_up)(job, door, values)


def _do_instead(asked: str, job: "Job", door: "Door", options: "Sequence[tuple[str, str]]") -> int:
    """Do what an option asks for instead of a backup; returns the exit status."""
    values = dict(options)
    if asked in ("--status", "--check"):
        from kopiatomic.commands import monitoring

        look = monitoring.check_all if asked == "--check" else monitoring.show_status
        return look(job, door, options)
    if asked in ("--upkeep", "--drill"):
        from kopiatomic.commands import repository

        care = repository.look_after if asked == "--upkeep" else repository.restore_drill
        return care(job, door, values)
    if asked == "--layout":
        from kopiatomic.commands import layout

        return layout.show(job, door, values)
    from kopiatomic.commands import sweep

    return sweep.sweep(job, door, values)


def _with_lists(job: "Job", options: "Sequence[tuple[str, str]]") -> "Job":
    """Return a job with the targets that stand in lists; raises Refusal."""
    from kopiatomic.clients import client_of
    from kopiatomic.lists import Listing, with_targets_of

    ours = tuple(Listing(value) for name, value in options if name == "--paths-from")
    job, others = client_of(job.program).without_lists(job)
    return with_targets_of(job, (*ours, *others)) if ours or others else job


def _need_a_selection(job: "Job") -> None:
    from kopiatomic.errors import Refusal

    if job.everything and job.targets:
        raise Refusal(f"-a means every dataset: leave out -a, or '{job.targets[0]}'")
    if job.volumes and not (job.everything or job.recursive):
        raise Refusal("--volumes goes with -a or -r; a single volume is backed up by its name")
    if not (job.everything or job.targets):
        raise Refusal(
            f"nothing to back up: name a dataset or a path, or say -a; see {job.program} -h"
        )


def _tell(line: str) -> None:
    """Write a command line to standard error, once the job has been made ready without secrets."""
    print(line, file=sys.stderr, flush=True)


def _parse(arguments: "Sequence[str]") -> "tuple[list[tuple[str, str]], list[str]]":
    """Return the options by their canonical names, and the targets; raises Refusal."""
    import getopt

    from kopiatomic.errors import Refusal

    try:
        options, targets = getopt.gnu_getopt(list(arguments), SHORT, list(LONG))
    except getopt.GetoptError as error:
        raise Refusal(f"{error.msg}; see --help") from error
    names = {f"--{name.rstrip('=')}": short for name, short in LONG.items()}
    return [(names.get(name, name), value) for name, value in options], targets


def job_from(program: str, options: "Sequence[tuple[str, str]]", targets: "Sequence[str]") -> "Job":
    """Return the job that a command line describes; raises Refusal."""
    import os

    from kopiatomic import state
    from kopiatomic.job import Job, pattern_of, retries_of, seconds_of, split_words

    last = dict(options)  # of an option that is given twice, the later one counts

    def every(option: str) -> "tuple[str, ...]":
        return tuple(value for name, value in options if name == option)

    def words(option: str) -> "list[str]":
        return [word for text in every(option) for word in split_words(text, option)]

    def files(option: str) -> "list[str]":
        """Return the files of a list; a path with blanks in it that is there needs no quotes."""
        return [
            file
            for text in every(option)
            for file in ([text] if os.path.exists(text) else split_words(text, option))
        ]

    snapshot = last.get("--snapshot")
    return Job(
        program=program,
        name=state.check_job_name(last.get("-j") or "default"),
        targets=(*targets, *words("--datasets")),
        everything="-a" in last,
        recursive="-r" in last,
        exclude=(*every("-x"), *words("--excludes")),
        snapshot=None if snapshot is None else pattern_of(snapshot),
        volumes="--volumes" in last,
        command=split_words(last.get("-c") or "", "-c"),
        options=tuple(words("-o")),
        plain="--plain" in last,
        retries=retries_of(last.get("--retries", "0")),
        pause=seconds_of(last.get("--retry-pause", "5m"), "--retry-pause"),
        proof="--no-proof" not in last,
        layout="--no-layout" not in last,
        before=last.get("-p"),
        after_snapshot=last.get("-s"),
        after=last.get("-q"),
        notify=last.get("--notify"),
        live=(*every("--live"), *words("--lives")),
        jailed="--jailed" in last,
        periodic="--periodic" in last,
        at=os.path.normpath(last["--at"]) if last.get("--at") else None,
        env_files=tuple(map(os.path.abspath, (*every("-e"), *files("--env-files")))),
    )


def _instead_of_a_backup(switches: "set[str]", job: "Job") -> "str | None":
    """Return the option that asks for something else than a backup, or None.

    Raises Refusal if it is unclear what is asked for.
    """
    from kopiatomic.errors import Refusal

    for name, options in INSTEAD.items():
        for option in options:
            if option in switches and name not in switches:
                raise Refusal(f"{option} goes with {name}")
    asked = [name for name in INSTEAD if name in switches]
    if len(asked) > 1:
        raise Refusal(f"{asked[0]} and {asked[1]} are two things: ask for one after the other")
    if asked and "-n" in switches and asked[0] != "--upkeep":
        raise Refusal(f"-n does not go with {asked[0]}")
    idle = [name for name in ("-n", "--status", "--check") if name in switches]
    if "--wait" in switches and idle:
        raise Refusal(f"--wait does not go with {idle[0]}, which waits for nothing")
    if "--notify" in switches and asked and asked[0] not in ("--upkeep", "--drill"):
        raise Refusal(f"--notify does not go with {asked[0]}, of which it tells nothing")
    if {"--metrics", "--json"} <= switches:
        raise Refusal("--metrics and --json are two forms of the same: choose one")
    again = [name for name in ("--retries", "--retry-pause") if name in switches]
    if again and asked:
        raise Refusal(f"{again[0]} does not go with {asked[0]}: only a backup is tried again")
    if asked and "--paths-from" in switches:
        raise Refusal(f"--paths-from does not go with {asked[0]}: it is about what a backup is of")
    if asked and job.snapshot is not None:
        raise Refusal(f"--snapshot does not go with {asked[0]}: it is about what a backup is of")
    if job.retries and job.plain:
        raise Refusal("--retries does not go with --plain: what the client says is not known")
    if "--layout" in asked and "--periodic" in switches:
        raise Refusal("--periodic does not go with --layout")
    if "--sweep" in asked and {"-a", "-j"} <= switches:
        raise Refusal("--sweep -a is about all jobs: leave out -a, or -j")
    if job.volumes and asked:
        raise Refusal(f"--volumes does not go with {asked[0]}, which is not about single datasets")
    named = job.targets and asked != ["--layout"]
    if asked and (named or (job.everything and asked != ["--sweep"])):
        raise Refusal(f"{asked[0]} is not about single datasets: name no dataset or path")
    if "--check" in asked and "-j" in switches:
        raise Refusal("--check looks at all jobs; --expect names those that must be fresh")
    return asked[0] if asked else None
