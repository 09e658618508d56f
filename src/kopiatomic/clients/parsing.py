"""Reading command lines of clients, and what clients print."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kopiatomic.clients.reader import ClientFailed

# JSON of Go has this for bytes that are not UTF-8, and U+FFFD itself unescaped.
NOT_UTF8 = re.compile(rb"(?<!\\)(?:\\\\)*\\ufffd")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# Command lines


def has_option(words: Sequence[str], *options: str) -> bool:
    """Say whether one of the long ``options`` is among the words."""
    return any(word.split("=", 1)[0] in options for word in words)


def option_value(words: Sequence[str], *options: str) -> str | None:
    """Return what the last of ``options`` is set to, or None if it is not there."""
    value = None
    for index, word in enumerate(words):
        name, equals, inline = word.partition("=")
        if name in options:
            following = words[index + 1] if index + 1 < len(words) else None
            value = inline if equals else following
    return value


# What clients print


@contextmanager
def understood() -> Iterator[None]:
    """Raise ClientFailed where the client's answer has another form than it should."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
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
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep to be an answer") from error
    if not isinstance(value, kind):
        raise ValueError(f"no {kind.__name__}")
    return value


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
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        whole = datetime.fromisoformat(match[1] + zone)
    except ValueError:
        return None
    if whole.tzinfo is None:  # a date, to which no zone belongs
        return None
    seconds = (whole - _EPOCH) // timedelta(seconds=1)
    return seconds * 10**9 + int((match[2] or "0").ljust(9, "0"))
