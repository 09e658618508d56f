"""What a client stores of its standard input under a name that it is given: a volume, say."""

from kopiatomic.record import Record


class Streamed(Record):
    """What new backups have of a stream: their ids, and its size in bytes.

    Of several backups, in several repositories, it is the smallest size, and None where one of
    them has nothing of that name. There are no ``backups`` where the client has made none.
    """

    backups: tuple[str, ...] = ()
    size: int | None = None
