"""Trying a client again that could not reach its repository, from the same snapshots."""

from kopiatomic.backup.client_runs import Called, Try
from kopiatomic.clients.base import Task
from kopiatomic.formatting import duration
from kopiatomic.system.command import decode, printable
from kopiatomic.system.process import Ended, Signals, Streams, tell

# How much of what the client said is told, in characters.
REASON = 300


def once_more(
    task: Task, called: Called, signals: Signals, streams: Streams, ended: Ended
) -> bool:
    """Say whether the client is to be tried again, once the pause is over.

    It is only if it says itself that the network was away: a signal that ended it, a wrong
    password or a lock will not go away. The try is noted in its account. Raises Interrupted
    when a signal comes during the pause.
    """
    job = task.job
    if job.plain or ended.status <= 0 or len(called.tries) >= job.retries:
        return False
    reason = task.client.network_away(ended.status, decode(ended.messages))
    if reason is None:
        return False
    told = printable(reason[:REASON])
    called.tries.append(Try(ended.status, ended.seconds, told))
    tell(
        streams,
        f"{job.program}: {task.client.name} could not reach the repository"
        f"{f' of {task.repository}' if task.repository else ''}: {told}; "
        f"trying again in {duration(job.pause)} ({len(called.tries)} of {job.retries})",
    )
    signals.pause(job.pause)
    return True
