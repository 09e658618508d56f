"""What a client stores of its standard input under a name that it is given: a volume, say."""

from collections.abc import Collection, Sequence

from kopiatomic.record import Record


class Streamed(Record):
    """What new backups have of a stream: their ids, and its size in bytes.

    Of several backups, in several repositories, it is the smallest size, and None where one of
    them has nothing of that name. There are no ``backups`` where the client has made none.
    """

    backups: tuple[str, ...] = ()
    size: int | None = None


def without(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Return the words of a command line without some options, each of which takes a word."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name = word.partition("=")[0]
        if word in options:
            next(rest, None)
        elif name not in options and not _is_joined(word, options):
            kept.append(word)
    return kept


def _is_joined(word: str, options: Collection[str]) -> bool:
    """Say whether a word is a short option together with its word, as in -ePATTERN."""
    return len(word) > 2 and word[0] == "-" != word[1] and word[:2] in options
