"""How a job's client is called for anything but a backup.

The backup's own command line says which repository it is and how to reach it.
"""

import os
from collections.abc import Sequence

from kopiatomic.clients.base import ByHand, backend_of
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import quote

# Options of a backup that say which repository and how to reach it, so that the
# client's other subcommands need them as well: those that take a word, and those
# that do not.
_REPOSITORY_WORDS = {
    "restomic": (
        "-r", "--repo", "--repository-file", "-p", "--password-file", "--password-command",
        "--key-hint", "--cacert", "--tls-client-cert", "--cache-dir", "-o", "--option",
        "--limit-download", "--limit-upload", "--retry-lock", "--stuck-request-timeout",
        "--http-user-agent", "--compression", "--pack-size",
    ),
    "kopiatomic": (
        "--config-file", "-p", "--password", "--log-dir", "--log-file", "--log-level",
        "--file-log-level",
    ),
}  # fmt: skip
_REPOSITORY_SWITCHES = {
    "restomic": ("--insecure-tls", "--insecure-no-password", "--no-cache", "--cleanup-cache"),
    "kopiatomic": (
        "--progress", "--no-progress", "--use-keyring", "--no-use-keyring",
        "--disable-file-logging", "--disable-content-log",
    ),
}  # fmt: skip


def base_command(job: Job) -> list[str]:
    """Return the words to which the client's other subcommands can be added.

    They are those of the backup's command before its subcommand, and what it
    says of the repository after that. Raises Refusal where that cannot be told.
    """
    parts = backend_of(job.program)
    words = parts.command(job)
    first = parts.subcommand[0]
    if job.plain or first not in words[1:]:
        wanted = " ".join((os.path.basename(words[0]), *parts.subcommand))
        raise Refusal(
            f"the command '{words[0]}' does not name its subcommand, so {parts.name} cannot be "
            f"asked for anything but a backup; let it end in 'exec {parts.name} \"$@\"' and "
            f"call it as in -c \"{wanted}\""
        )
    index = words.index(first, 1)
    return [*words[:index], *repository_words(job.program, [*words[index + 1 :], *job.options])]


def repository_words(program: str, options: Sequence[str]) -> list[str]:
    """Return those of a backup's options that say which repository and how to reach it."""
    with_word, switches = _REPOSITORY_WORDS[program], _REPOSITORY_SWITCHES[program]
    words: list[str] = []
    for index, word in enumerate(options):
        name, equals, _ = word.partition("=")
        joined = not word.startswith("--") and len(word) > 2 and word[:2] in with_word
        if word in switches or joined or (equals and name in with_word):
            words.append(word)
        elif name in with_word:
            words += options[index : index + 2]
    return words


def by_hand(job: Job) -> ByHand:
    """Return how somebody calls this job's client for anything but a backup."""
    try:
        return ByHand(quote(base_command(job)), job.env_file)
    except Refusal:
        return ByHand(backend_of(job.program).name, job.env_file)
