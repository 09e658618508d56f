"""What the programs do between backups: upkeep of the repository, and restore drills.

``values`` are the command line's options by their names.
"""

import os
from collections.abc import Mapping

from kopiatomic import formatting, redact
from kopiatomic.backup import preflight
from kopiatomic.clients import base
from kopiatomic.commands import common
from kopiatomic.job import Job
from kopiatomic.repository import drill, upkeep
from kopiatomic.system.command import Door, quote


def look_after(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Do upkeep or a restore drill, or say what upkeep would do."""
    if "-n" in values:
        return _dry_upkeep(job, values)
    job = preflight.with_environment(job)
    return _drill(job, door, values) if "--drill" in values else _upkeep(job, door, values)


def _wishes(values: Mapping[str, str]) -> upkeep.Wishes:
    verify, forget = values.get("--verify"), values.get("--forget")
    return upkeep.Wishes(
        verify=None if verify is None else upkeep.percent_of(verify),
        maintenance="--maintenance" in values,
        forget=None if forget is None else preflight.split_words(forget, "--forget"),
        prune="--prune" in values,
    )


def _dry_upkeep(job: Job, values: Mapping[str, str]) -> int:
    job, notes = preflight.with_environment_if_allowed(job)
    environment = base.client_environment(job, os.environ, None)
    steps = upkeep.plan(job, _wishes(values), environment)
    hide = redact.redactor(environment, [*job.command, *job.options])
    lines = ["Would run:", *(f"  {quote(step.argv)}" for step in steps), *notes]
    common.show(hide("".join(f"{line}\n" for line in lines)))
    return 0


def _upkeep(job: Job, door: Door, values: Mapping[str, str]) -> int:
    account = upkeep.run(job, door, common.streams(values), os.environ, _wishes(values))
    text = upkeep.as_text(account)
    if "--json" in values:
        text = formatting.as_json(upkeep.as_dict(account))
    elif "--periodic" in values:
        text += formatting.what_was_said("the client", account.said) if account.problems else ""
    else:
        text = "\n" + text
    common.show(text)
    return common.tell(job, account, values)


def _drill(job: Job, door: Door, values: Mapping[str, str]) -> int:
    seed = values.get("--seed")
    wishes = drill.Wishes(
        files=drill.count_of(values["--drill"], "--drill", least=1),
        seed=drill.new_seed() if seed is None else drill.count_of(seed, "--seed"),
        size_limit=drill.size_of(values.get("--size-limit", "1G")),
    )
    account = drill.run(job, door, os.environ, wishes)
    as_json = "--json" in values
    common.show(formatting.as_json(drill.as_dict(account)) if as_json else drill.as_text(account))
    return common.tell(job, account, values)
