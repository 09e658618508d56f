"""What the programs do between backups: upkeep of the repository, and restore drills.

``values`` are the command line's options by their names.
"""

from collections.abc import Mapping

from kopiatomic import formatting
from kopiatomic.clients.records import Wishes
from kopiatomic.commands import common, notify
from kopiatomic.commands.notify import Notice
from kopiatomic.job import Job, split_words
from kopiatomic.repository import account as accounts
from kopiatomic.repository import drill, upkeep
from kopiatomic.system.command import Door, quote

# What upkeep and drills wait in periodic(8)'s name for the job's backup, in seconds. The weekly
# and the monthly ones begin one or two hours after the daily backup, which may take all night.
PERIODIC_WAIT = 6 * 3600


def look_after(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Do the steps of upkeep that were asked for, or with -n say which."""
    if "-n" in values:
        return _dry_run(job, door, values)
    wishes, wait = _wishes(values), common.wait_of(job, values, PERIODIC_WAIT)
    task = common.task_of_root(job, door)
    account = upkeep.run(task, common.streams(values), wishes, wait)
    said = account.said if account.problems else ""
    mail = upkeep.as_text(account) + formatting.what_was_said("the client", said)
    if "--json" in values:
        common.show(formatting.as_json(accounts.as_dict(account)))
    elif "--periodic" in values:
        common.show(mail)
    else:
        common.show("\n" + upkeep.as_text(account))
    status = common.tell(job, account, values)
    return notify.tell_end(task, _notice(account, mail), values, status)


def _notice(account: accounts.Account, text: str) -> Notice:
    message = "; ".join(account.problems)
    return Notice(
        account.program, account.job, account.kind, account.outcome, account.status, message, text
    )


def _wishes(values: Mapping[str, str]) -> Wishes:
    verify, forget = values.get("--verify"), values.get("--forget")
    return Wishes(
        verify=None if verify is None else upkeep.percent_of(verify),
        maintenance="--maintenance" in values,
        forget=None if forget is None else split_words(forget, "--forget"),
        prune="--prune" in values,
    )


def _dry_run(job: Job, door: Door, values: Mapping[str, str]) -> int:
    task, notes = common.task_of_anyone(job, door, installed=False)
    steps = upkeep.plan(task, _wishes(values))
    lines = ["Would run:", *(f"  {quote(step.argv)}" for step in steps), *notes]
    common.show(task.hide("".join(f"{line}\n" for line in lines)))
    return 0


def restore_drill(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Restore some files and compare them."""
    seed = values.get("--seed")
    wishes = drill.Wishes(
        files=drill.count_of(values["--drill"], "--drill", least=1),
        seed=drill.new_seed() if seed is None else drill.count_of(seed, "--seed"),
        size_limit=drill.size_of(values.get("--size-limit", "1G")),
    )
    wait = common.wait_of(job, values, PERIODIC_WAIT)
    task = common.task_of_root(job, door)
    account = drill.run(task, wishes, wait)
    text = drill.as_text(account)
    common.show(formatting.as_json(drill.as_dict(account)) if "--json" in values else text)
    status = common.tell(job, account, values)
    return notify.tell_end(task, _notice(account, text), values, status)
