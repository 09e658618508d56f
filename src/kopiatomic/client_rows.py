"""The client runs of a past backup, as the entries of a history tell them. Pure: nothing acts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kopiatomic.record import Record

# The outcomes of a run that made a complete backup.
GOOD = ("success", "trouble")

# What a client run backs up: these words are in the history.
FILES, VOLUME, LAYOUT = "files", "volume", "layout"

# What a client run is the same by from night to night: its kind, what of, and its env file.
Key = tuple[str, str, str | None]


class Row(Record):
    """A client run: ``key`` is what tells it from others, ``name`` what people call it.

    ``seconds`` and ``added`` are what the client took and added, where the history says it;
    ``backups`` are the ids of what it has made, or of what stands for that.
    """

    key: Key
    name: str
    repository: str
    outcome: str
    seconds: object = None
    added: object = None
    backups: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether it made a complete backup."""
        return self.outcome == "success"


def rows_of(entry: Mapping[str, object]) -> list[Row]:
    """Return the client runs of an entry, in their order.

    Before there could be several, there was one of files in each.
    """
    env_file = _text(entry.get("env_file"))
    if "client_runs" not in entry:
        outcome = "success" if entry.get("outcome") in GOOD else str(entry.get("outcome"))
        return [_row((FILES, "", env_file), FILES, "", outcome, entry)]
    listed = entry["client_runs"]
    return [
        _row(
            (
                str(each.get("kind")), _text(each.get("of")) or "",
                _text(each.get("env_file", env_file)),
            ),
            str(each.get("name")), _text(each.get("repository")) or "",
            str(each.get("outcome")), each,
        )
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]  # fmt: skip


def _row(key: Key, name: str, repository: str, outcome: str, told: Mapping[str, object]) -> Row:
    client = told.get("client")
    figures = client if isinstance(client, dict) else {}
    # Older entries have only what the client said itself, to us.
    ids = told.get("backups", figures.get("snapshots"))
    backups = tuple(map(str, filter(None, ids))) if isinstance(ids, list) else ()
    return Row(
        key, name, repository, outcome, figures.get("seconds"), figures.get("added"), backups
    )


def good_files(
    entries: Iterable[dict[str, object]], env_file: str | None
) -> Iterator[dict[str, object]]:
    """Return the entries in which the backup of files with this env file was good."""
    key = (FILES, "", env_file)
    for entry in entries:
        if any(row.key == key and row.is_good for row in rows_of(entry)):
            yield entry


def any_good_files(entries: Iterable[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Return the entries that are good, or have a good backup of files in one repository."""
    for entry in entries:
        rows = [row for row in rows_of(entry) if row.key[0] == FILES]
        several = len(rows) > 1 and any(row.is_good for row in rows)
        if several or entry.get("outcome") in GOOD:
            yield entry


def last_good(entries: Sequence[Mapping[str, object]]) -> dict[Key, int]:
    """Return the number of the entry in which each client run of the newest was last good.

    Nothing is returned where that has one alone, of which the entry's outcome tells all.
    """
    newest = next((rows for entry in reversed(entries) if (rows := rows_of(entry))), [])
    if len(newest) < 2:
        return {}
    wanted = {row.key for row in newest}
    found: dict[Key, int] = {}
    for number, entry in reversed([*enumerate(entries)]):
        for row in rows_of(entry):
            if row.is_good and row.key in wanted:
                found.setdefault(row.key, number)
        if len(found) == len(wanted):
            break
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
