"""Env files: what sh would read in another way is refused, with the line, and never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kopiatomic import environment
from kopiatomic.errors import EX_CONFIG, Refusal

ME = os.geteuid()


def read(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    path = tmp_path / "env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return environment.read(str(path), ME)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('A="hunter2" # comment', "something follows the closing \""),
        ("A='hunter2' # comment", "something follows the closing '"),
        ('A="hunter2"\t# comment', "something follows the closing \""),
        ('A="hunter2" # the "new" one, "hunter2"', "something follows the closing \""),
        ('A="hunter2" "and more"', "something follows the closing \""),
        ("A=hunter2 # comment", "a comment behind a value"),
        ("A=hunter2\t#comment", "a comment behind a value"),
        ("A= # hunter2", "a comment behind a value"),
        ("A=hunter2 'two' #comment", "a comment behind a value"),
        ('A="hunter2', 'the quote " is not closed'),
        ("A='hunter2", "the quote ' is not closed"),
        ("A='hunter2\"", "the quote ' is not closed"),
        ('export A="hunter2#', 'the quote " is not closed'),
        ('A="hunter2"#comment', 'the quote " is not closed'),
        ('A="', 'the quote " is not closed'),
        ("A=hunter2\r", "carriage return"),
        ('A="hunter2"\r', "carriage return"),
        ("A=hunter2\rB=x", "carriage return"),
        ("# hunter2\r", "carriage return"),
    ],
)
def test_what_would_be_a_wrong_password_is_named_by_its_line(tmp_path: Path, line: str, says: str):
    with pytest.raises(Refusal) as caught:
        read(tmp_path, f"# first\nB=1\n{line}\nC=2\n")
    message = str(caught.value)
    assert caught.value.status == EX_CONFIG
    assert f"{tmp_path}/env, line 3: " in message
    assert says in message
    assert ";" in message  # and what to do
    assert "hunter2" not in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "data",
    ["\ufeffA=hunter2\n".encode(), "\ufeff# comment\n".encode(), "A=hunter2\n".encode("utf-16"),
     b"\xfe\xff" + "A=hunter2\n".encode("utf-16-be")],
    ids=["utf-8", "comment", "utf-16", "utf-16-be"],
)  # fmt: skip
def test_a_byte_order_mark(tmp_path: Path, data: bytes):
    with pytest.raises(Refusal, match="line 1: begins with a byte order mark; save") as caught:
        read(tmp_path, data)
    assert caught.value.status == EX_CONFIG
    assert "hunter2" not in str(caught.value)


def test_what_can_be_meant_in_one_way_only_goes_on_working(tmp_path: Path):
    text = """\
  # a comment, indented
SHARP=#se#cret#
QUOTED_SHARP="se # cret"
INNER="pa"ss'wo rd"
APOSTROPHE=it's two words
DOUBLE='say "x" twice'
LAST=secret"
DOLLAR=a$b `c` \\d
EMPTY_QUOTED=""
EMPTY=
"""
    assert read(tmp_path, text) == {
        "SHARP": "#se#cret#",
        "QUOTED_SHARP": "se # cret",
        "INNER": "pa\"ss'wo rd",
        "APOSTROPHE": "it's two words",
        "DOUBLE": 'say "x" twice',
        "LAST": 'secret"',
        "DOLLAR": "a$b `c` \\d",
        "EMPTY_QUOTED": "",
        "EMPTY": "",
    }


def test_the_last_line_needs_no_end(tmp_path: Path):
    assert read(tmp_path, "A=1\nB='2'") == {"A": "1", "B": "2"}
