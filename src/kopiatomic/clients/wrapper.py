"""What the text of a wrapper says: the variables that it sets, and how it calls the client.

The text is looked at and never run. What it works out while it runs is not known here:
only words that stand in it as they are.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache

from kopiatomic.record import Record
from kopiatomic.system.command import decode

# Wrappers are small; anything larger is a program.
LIMIT = 256 * 1024

# What may stand before an assignment.
_BEFORE = ("export", "env", "local", "readonly", "declare", "typeset")

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

# The parts that sh(1) builds words from; a comment begins where a word would.
_PART = (
    r"(?s)(?P<gap>(?:[ \t\r]|\\\n)+)|(?P<end>[\n;&|()<>]+)|'(?P<single>[^']*)'"
    r'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^\s\'"\\;&|()<>]+)|.'
)


class Word(Record):
    """A word of a script; ``literal`` where sh(1) would not change it."""

    text: str
    literal: bool = True


def script_of(path: str | None) -> str:
    """Return the text of a script, or nothing if the file is no script or cannot be read."""
    try:
        with open(path or os.devnull, "rb") as file:
            data = file.read(LIMIT)
    except (OSError, ValueError):
        return ""
    return decode(data) if data.startswith(b"#!") else ""


@lru_cache(maxsize=1)  # a run has one wrapper, of which there are many questions
def commands(script: str) -> tuple[list[Word], ...]:
    """Return the words of each simple command of a script for sh(1), not to be changed."""
    return tuple(_commands(script))


def _commands(script: str) -> Iterator[list[Word]]:
    words: list[Word] = []
    parts: list[tuple[str, bool]] = []

    def close() -> None:
        if parts:
            text = "".join(each for each, _ in parts)
            words.append(Word(text, all(literal for _, literal in parts)))
            parts.clear()

    part_at = re.compile(_PART).match
    position = 0
    while position < len(script):
        if script[position] == "#" and not parts:
            line_end = script.find("\n", position)
            position = len(script) if line_end < 0 else line_end
            continue
        part = part_at(script, position)
        assert part is not None  # the last alternative takes anything
        position = part.end()
        if part["gap"] is not None or part["end"] is not None:
            close()
            if part["end"] is not None and words:
                yield words
                words = []
            continue
        parts.append(_piece(part))
    close()
    if words:
        yield words


def _piece(part: re.Match[str]) -> tuple[str, bool]:
    """Return the text of a part of a word, and whether it stands there as it is."""
    if part["single"] is not None:
        return part["single"], True
    if part["double"] is not None:
        bare = re.sub(r"\\.", "", part["double"], flags=re.S)
        return re.sub(r"\\([\"\\$`\n])", r"\1", part["double"]), not re.search("[$`]", bare)
    if part["escaped"] is not None:
        return part["escaped"], True
    if part["plain"] is not None:
        return part["plain"], not re.search(r"[$`]", part["plain"])
    return part[0], False  # a quotation mark without its other


def assigned(script: str) -> dict[str, str]:
    """Return the variables that a script sets to words which stand in it as they are.

    Of several values of a variable the last counts; one that is set to something
    that has to be worked out is not there.
    """
    variables: dict[str, str] = {}
    for words in commands(script):
        for word in words:
            name, equals, value = word.text.partition("=")
            if equals and re.fullmatch(_NAME, name):
                if word.literal:
                    variables[name] = value
                else:
                    variables.pop(name, None)
            elif word.text not in _BEFORE and not word.text.startswith("-"):
                break
    return variables


def sets(script: str, name: str) -> bool:
    """Say whether a script sets a variable, to whatever value."""
    return any(word.text.startswith(f"{name}=") for words in commands(script) for word in words)


def works_out(script: str, name: str) -> bool:
    """Say whether a script sets a variable to what is not known before it runs."""
    return sets(script, name) and name not in assigned(script)


def calls(script: str, program: str) -> list[list[str]]:
    """Return the words after the name of a program, for each call of it in a script.

    Options that a variable holds, as in OPTIONS="-v -x", are a call of their own.
    """
    found = []
    for words in commands(script):
        for index, word in enumerate(words):
            if os.path.basename(word.text) == program:
                found.append([each.text for each in words[index + 1 :]])
                break
    options = (value.split() for value in assigned(script).values() if value.startswith("-"))
    return [*options, *found]


def passes_on(script: str) -> bool:
    """Say whether a script makes any use of the words that it is called with."""
    return bool(re.search(r"\$\{?[@*1-9]|\bsys\.argv\b|\bARGV\b|\bargv\b", script))
