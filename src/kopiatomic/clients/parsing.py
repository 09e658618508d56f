"""Reading command lines of clients, and what clients print."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import decode

if TYPE_CHECKING:
    from typing import Any

# JSON of Go has this for bytes that are not UTF-8, and U+FFFD itself unescaped.
NOT_UTF8 = rb"(?<!\\)(?:\\\\)*\\ufffd"

# In text that came out of such JSON, what stands for any byte that is not UTF-8.
UNKNOWN_BYTE = "\udcff"

# What comes of an answer that has another form than it should.
_WRONG = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)

# So many lines that look like an answer are tried before it is given up.
_TRIES = 100


# Command lines


def has_option(words: Sequence[str], *options: str) -> bool:
    """Say whether one of the long ``options`` is among the words."""
    return any(word.split("=", 1)[0] in options for word in words)


Options = list[tuple[str, str | None]]


def parse_options(words: Sequence[str], with_word: Collection[str]) -> Options:
    """Return the options in words with their values; what belongs to none has the name "".

    ``with_word`` are the options that take a word. A short one may have it joined,
    -Hname, and several short ones may be bundled, -vx, as clients in Go read them.
    """
    return [option for options, _ in spelled(words, with_word) for option in options]


def spelled(
    words: Sequence[str], with_word: Collection[str]
) -> Iterator[tuple[Options, list[str]]]:
    """Yield the options in words likewise, with the words that say them."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            every = [*rest]
            yield [("", each) for each in every], [word, *every]
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            taken = next(rest, None) if not equals and name in with_word else None
            yield [(name, value if equals else taken)], _said(word, taken)
        elif word.startswith("-") and len(word) > 1:
            yield _short_options(word, with_word, rest)
        else:
            yield [("", word)], [word]


def without(
    words: Sequence[str], options: Collection[str], with_word: Collection[str]
) -> list[str]:
    """Return words without some options and their values, read as parse_options() reads them."""
    kept: list[str] = []
    for found, said in spelled(words, with_word):
        others = [name for name, _ in found if name not in options]
        if len(others) == len(found):
            kept += said
        elif others:
            # Of a bundle, the last alone can have a value, and that is the one.
            kept.append("-" + "".join(name[1:] for name in others))
    return kept


def _said(word: str, taken: str | None) -> list[str]:
    return [word] if taken is None else [word, taken]


def _short_options(
    word: str, with_word: Collection[str], rest: Iterator[str]
) -> tuple[Options, list[str]]:
    found: Options = []
    for index, letter in enumerate(word[1:], 2):
        joined = word[index:]
        if f"-{letter}" in with_word:
            value = joined.removeprefix("=")
            taken = None if value else next(rest, None)
            return [*found, (f"-{letter}", value or taken)], _said(word, taken)
        if joined.startswith("="):
            return [*found, (f"-{letter}", joined[1:])], [word]
        found.append((f"-{letter}", None))
    return found, [word]


def is_switched_on(options: Sequence[tuple[str, str | None]], *names: str) -> bool:
    """Say whether a switch that goes by these names is on in the end."""
    values = [value for name, value in options if name in names]
    return bool(values) and (values[-1] or "true").lower() not in ("false", "f", "0")


def last_value(options: Sequence[tuple[str, str | None]], *names: str) -> str | None:
    """Return the last value of an option that goes by these names, or None."""
    values = [value for name, value in options if name in names]
    return values[-1] if values else None


# What clients print


@contextmanager
def understood() -> Iterator[None]:
    """Raise ClientFailed where the client's answer has another form than it should."""
    try:
        yield
    except _WRONG as error:
        raise ClientFailed(1, "the client printed something that is not understood") from error


def json_objects(text: str) -> list[dict[str, object]]:
    """Return the JSON objects in a text that may hold other lines as well."""
    decoder = json.JSONDecoder(strict=False)
    values, end = [], 0
    for match in re.finditer(r"^\{", text, re.M):
        if match.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        values.append(value)
    return values


def json_value(text: bytes, kind: type) -> Any:
    """Return the JSON value that the client printed; raises ValueError if it is none."""
    return json_answer(text, kind)[0]


def ask(reader: Reader, kind: type, words: Sequence[str], *members: str) -> Any:
    """Return the JSON value with which the client answers; raises ClientFailed.

    The reader learns what a wrapper prints before it.
    """
    with understood():
        value, reader.preface = json_answer(reader.whole(*words), kind, *members)
    return value


def json_answer(text: bytes, kind: type, *members: str) -> tuple[Any, bytes]:
    """Return the JSON value that the client printed, and what a wrapper printed before it.

    An object must have the ``members``, and a list consist of objects. Bytes that are
    not UTF-8 come as UNKNOWN_BYTE. Raises ValueError if there is no such value.
    """
    decoder = json.JSONDecoder(strict=False)
    start = rb"^[ \t]*(?=\{)" if kind is dict else rb"^[ \t]*(?=\[)"
    for match in islice(re.finditer(start, text, re.M), _TRIES):
        # The rest is decoded once for an answer that stands alone, which is the rule.
        answer = decode(marked(text[match.end() :]))
        try:
            value, end = decoder.raw_decode(answer)
        except (ValueError, RecursionError):
            continue
        alone = answer[end : end + 1] in ("", "\n", "\r")
        # A list of anything else among other lines may be something that a wrapper says.
        whole = match.start() == 0 and not answer[end:].strip()
        if alone and _is(kind, value, members, whole):
            return value, text[: match.start()]
    raise ValueError(f"no {kind.__name__}")


def _is(kind: type, value: object, members: Sequence[str], whole: bool) -> bool:
    if isinstance(value, dict):
        return kind is dict and all(name in value for name in members)
    objects = isinstance(value, list) and all(isinstance(each, dict) for each in value)
    return isinstance(value, kind) and (whole or objects)


def marked(text: bytes) -> bytes:
    """Return JSON of Go with UNKNOWN_BYTE, escaped, for each byte that is not UTF-8."""
    return re.sub(NOT_UTF8, lambda match: match[0][:-6] + rb"\udcff", text)


def as_marked(path: str) -> str:
    """Return a path as it comes out of marked() JSON."""
    return re.sub("[\udc80-\udcff]", UNKNOWN_BYTE, path)


def as_stored(path: str) -> str:
    """Return a path as clients store it in a backup's list of paths: U+FFFD for each such byte.

    They write it as JSON and read it again, so there nothing tells it from that character.
    """
    return re.sub("[\udc80-\udcff]", "\ufffd", path)


def member(data: Mapping[str, object], *names: str) -> object:
    """Return what stands in nested objects under ``names``, None where there is nothing."""
    value: object = data
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def total(sums: Sequence[object], name: str) -> int:
    """Return the sum of the counts called ``name`` in several objects."""
    return sum(count(member(each, name)) for each in sums if isinstance(each, Mapping))


def count(value: object) -> int:
    """Return a number that a client printed, 0 if it is none that can be true."""
    number = value if isinstance(value, int) else 0
    return number if 0 <= number < 2**63 else 0


def nanoseconds(text: object) -> int | None:
    """Return a time as the clients print it, to the nanosecond; None if it is no time."""
    match = re.fullmatch(r"([^.]+?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", str(text))
    if not match:
        return None
    # Not asked for before the client has run, which waits for all that is loaded.
    from datetime import UTC, datetime, timedelta

    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        whole = datetime.fromisoformat(match[1] + zone)
    except ValueError:
        return None
    if whole.tzinfo is None:  # a date, to which no zone belongs
        return None
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 10**9 + int((match[2] or "0").ljust(9, "0"))


def permissions(mode: int) -> int:
    """Return what chmod(2) knows of a file mode as Go counts it, in which both clients note it."""
    special = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))
    return mode & 0o777 | sum(bit for theirs, bit in special if mode & theirs)
