"""A client that answers from a table, for the tests of what is read from clients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping


class Answers:
    """Stands in for a Reader: what the client prints for which words."""

    def __init__(self, answers: Mapping[tuple[str, ...], bytes]) -> None:
        self.answers = dict(answers)
        self.asked: list[tuple[str, ...]] = []

    def whole(self, *words: str) -> bytes:
        self.asked.append(words)
        return self.answers[words]

    def lines(self, *words: str) -> Iterator[bytes]:
        return iter(self.whole(*words).split(b"\n"))


def listing(*nodes: object) -> bytes:
    """Return values as a client lists them: a line of JSON each."""
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in nodes).encode()


class Matching:
    """Stands in for a Reader: answers what has some words in it, and notes what it was asked."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []
        self.base = ["client"]
        self.environment = {"HOME": "/root"}
        self.preface = b""

    def whole(self, *words: str) -> bytes:
        self.asked.append(words)
        return self.answers[next(key for key in self.answers if key in " ".join(words))]

    def lines(self, *words: str) -> list[bytes]:
        return self.whole(*words).split(b"\n")
