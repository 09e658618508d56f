"""Keeps passwords out of everything that is printed, mailed or remembered."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

from kopiatomic.system.command import decode, printable

HIDDEN = "[hidden]"

# Shorter values are too likely to be a part of ordinary words.
SHORTEST = 4

# Wrappers are small; anything larger is a program.
WRAPPER_LIMIT = 256 * 1024

_SECRET_NAME = re.compile(r"pass(?!word-(file|command))|secret|token|key|credential|auth", re.I)
_NOT_THE_SECRET = re.compile(r"(_FILE|_COMMAND|_PATH|-file|-command|_ID|key-hint)$", re.I)
_ASSIGNMENT = re.compile(r"""([\w-]+)=("[^"]*"|'[^']*'|[^\s;"']+)""")
_IN_URL = re.compile(r"(\w://[^/\s:@]*):([^/\s@]+)@")


def redactor(
    environment: Mapping[str, str], words: Sequence[str] = (), wrapper: str | None = None
) -> Callable[[str], str]:
    """Return a function that hides secrets in a text.

    Secret are the values of variables and options that are called so, what a
    wrapper script at ``wrapper`` assigns to such, and passwords in URLs.
    """
    script = script_of(wrapper)
    texts = [*environment.values(), *words, script]
    values = {
        *(value for name, value in environment.items() if _is_secret(name)),
        *_in_words(words),
        *_assigned(script),
        *(password for text in texts for _, password in _IN_URL.findall(text)),
    }
    pattern = _pattern(values)

    def hide(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(HIDDEN, text)
        return _IN_URL.sub(rf"\1:{HIDDEN}@", text)

    return hide


def everywhere(data: object, hide: Callable[[str], str]) -> object:
    """Return plain data with ``hide`` applied to each text in it."""
    if isinstance(data, str):
        return hide(data)
    if isinstance(data, Mapping):
        return {key: everywhere(value, hide) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [everywhere(value, hide) for value in data]
    return data


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _NOT_THE_SECRET.search(name)


def _in_words(words: Sequence[str]) -> Iterable[str]:
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        # -p is kopia's password; restic's, the name of a file, is no loss.
        if name == "-p" or (name.startswith("-") and _is_secret(name)):
            yield value if equals else next(iter(words[index + 1 : index + 2]), "")


def script_of(path: str | None) -> str:
    """Return the text of a wrapper script, or nothing if it is no script or cannot be read."""
    try:
        with open(path or os.devnull, "rb") as file:
            data = file.read(WRAPPER_LIMIT)
    except OSError:
        return ""
    return decode(data) if data.startswith(b"#!") else ""


def _assigned(script: str) -> Iterable[str]:
    for name, value in _ASSIGNMENT.findall(script):
        if _is_secret(name) and "$" not in value and "`" not in value:
            yield value.strip("\"'")


def _pattern(values: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for the values in all their spellings, the longest first."""
    lines = {line.strip() for value in values for line in value.splitlines()}
    spellings = (str, _in_url, unquote, shlex.quote, printable)
    spelled = {spell(line) for line in lines for spell in spellings}
    long = sorted((each for each in spelled if len(each) >= SHORTEST), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, long))) if long else None


def _in_url(line: str) -> str:
    return quote(line, safe="", errors="surrogateescape")
