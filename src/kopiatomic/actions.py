"""What the programs do, one function for each: prepare, run, tell, exit status.

``values`` are the command line's options by their names; ``options`` the same in
the order in which they were given.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kopiatomic import (
    backend,
    check,
    client,
    drill,
    envfile,
    nullfs,
    preflight,
    redact,
    report,
    run,
    state,
    status,
    upkeep,
)
from kopiatomic.command import Door, printable, quote
from kopiatomic.job import Job
from kopiatomic.refusal import (
    EX_NOPERM,
    EX_OSERR,
    PERIODIC_INFORMATION,
    PERIODIC_TROUBLE,
    Refusal,
)
from kopiatomic.upkeep import Account


def back_up(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Run a backup and tell what it came to."""
    job = _with_environment(job)
    door = replace(door, nmount=nullfs.find_nmount())
    done = run.run(job, door, _streams(values), os.environ)
    if "--json" in values:
        _print(report.as_json(report.as_dict(done)))
    elif "--periodic" in values:
        _print(report.as_mail(done))
    else:
        _print("\n" + report.as_text(done))
    return _tell(job, done, values, PERIODIC_INFORMATION if done.noteworthy else 0)


def dry_run(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Say what a backup would do; needs no rights."""
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
    names = run.name_run(state.Place(job.program, job.name))
    plan = run.draw_plan(job, door, names, needs)
    plan = replace(plan, notes=(*plan.notes, *notes))
    words = backend.client_command(job, plan, None, None, not client.on_terminal())
    if "--json" in values:
        text = report.as_json(report.plan_as_dict(plan, words))
    else:
        text = report.plan_as_text(plan, words)
    _print(redact.redactor(environment, [*job.command, *job.options], needs.program)(text))
    return 0


def look_after(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Do upkeep or a restore drill."""
    if "-n" not in values:
        job = _with_environment(job)
    elif "--drill" in values:
        raise Refusal("-n does not go with --drill, which only reads")
    return _drill(job, door, values) if "--drill" in values else _upkeep(job, door, values)


def _upkeep(job: Job, door: Door, values: Mapping[str, str]) -> int:
    verify, forget = values.get("--verify"), values.get("--forget")
    wishes = upkeep.Wishes(
        verify=None if verify is None else upkeep.percent_of(verify),
        maintenance="--maintenance" in values,
        forget=None if forget is None else preflight.split_words(forget, "--forget"),
        prune="--prune" in values,
    )
    if "-n" in values:
        steps = upkeep.plan(job, wishes, os.environ)
        hide = redact.redactor(os.environ, [*job.command, *job.options])
        _print(hide("Would run:\n" + "".join(f"  {quote(step.argv)}\n" for step in steps)))
        return 0
    account = upkeep.run(job, door, _streams(values), os.environ, wishes)
    text = upkeep.as_text(account)
    if "--json" in values:
        text = report.as_json(upkeep.as_dict(account))
    elif "--periodic" in values:
        text += report.what_was_said("the client", account.said) if account.problems else ""
    else:
        text = "\n" + text
    _print(text)
    return _tell(job, account, values)


def _drill(job: Job, door: Door, values: Mapping[str, str]) -> int:
    seed = values.get("--seed")
    wishes = drill.Wishes(
        files=drill.count_of(values["--drill"], "--drill", least=1),
        seed=drill.new_seed() if seed is None else drill.count_of(seed, "--seed"),
        size_limit=drill.size_of(values.get("--size-limit", "1G")),
    )
    account = drill.run(job, door, os.environ, wishes)
    as_json = "--json" in values
    _print(report.as_json(drill.as_dict(account)) if as_json else drill.as_text(account))
    return _tell(job, account, values)


def show_status(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Show past runs and what is left of them."""
    values = dict(options)
    preflight.need_root(job)
    name = job.name if "-j" in values else None
    account = status.look(door, job.program, name, time.time())
    as_json, periodic = "--json" in values, "--periodic" in values
    _print(report.as_json(status.as_dict(account)) if as_json else status.as_text(account))
    if account.trouble is None:
        return 0
    print(f"{job.program}: {account.trouble}", file=sys.stdout if periodic else sys.stderr)
    return PERIODIC_TROUBLE if periodic else EX_OSERR


def check_all(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Say what endangers the backups, of both programs; nothing if nothing does."""
    expect, max_age = check.wishes(options)
    values = dict(options)
    preflight.need_root(job)
    found = check.findings(check.look(door, expect, max_age), time.time())
    _print(report.as_json(check.as_dict(found)) if "--json" in values else check.as_text(found))
    trouble = PERIODIC_TROUBLE if "--periodic" in values else 1
    return trouble if found else 0


def sweep(job: Job, door: Door) -> int:
    """Remove what runs that were killed have left behind."""
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


def _with_environment(job: Job) -> Job:
    """Return a job with what its env file holds; only root gets that far."""
    preflight.need_root(job)
    if job.env_file is None:
        return job
    return replace(job, environment=envfile.read(job.env_file))


def _streams(values: Mapping[str, str]) -> client.Streams:
    """Return where the client's output goes."""
    if "--periodic" in values:
        return client.Streams(output=None, messages=None)
    as_json = "--json" in values
    return client.Streams(
        output=2 if as_json else 1, capture=as_json or not client.on_terminal()
    )


def _tell(
    job: Job, account: Account | report.Report, values: Mapping[str, str], good: int = 0
) -> int:
    """Say what went wrong and return the exit status; ``good`` is periodic(8)'s where all is well.

    The mail has the problems in the report.
    """
    if "--periodic" in values:
        return PERIODIC_TROUBLE if account.status else good
    for problem in account.problems:
        print(f"{job.program}: {printable(problem)}", file=sys.stderr)
    return account.status


def _print(text: str) -> None:
    """Write to standard output what may hold bytes that are no text; a gone reader is fine."""
    try:
        sys.stdout.flush()
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass
