"""The client's environment: what is inherited, and what env files hold, of which no value shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kopiatomic import environment
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, EX_NOPERM, Refusal
from kopiatomic.system.command import PATH

ME = os.geteuid()


def write(tmp_path, text, mode=0o600):
    path = tmp_path / "env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def read(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    return environment.read(write(tmp_path, text), ME)


def test_reads_lines_and_executes_nothing(tmp_path):
    text = """\
# a comment
RESTIC_PASSWORD=se=cret $(touch /tmp/x) `id`

export RESTIC_REPOSITORY="/backup/with space"
SINGLE='a "b"'
EMPTY=
  SPACED = x y
"""
    assert environment.read(write(tmp_path, text), ME) == {
        "RESTIC_PASSWORD": "se=cret $(touch /tmp/x) `id`",
        "RESTIC_REPOSITORY": "/backup/with space",
        "SINGLE": 'a "b"',
        "EMPTY": "",
        "SPACED": "x y",
    }


def test_bytes_that_are_no_text_pass_through(tmp_path):
    assert os.fsencode(environment.read(write(tmp_path, b"A=\xff"), ME)["A"]) == b"\xff"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_open_to_others(tmp_path, mode):
    with pytest.raises(Refusal, match="chmod 600") as caught:
        environment.read(write(tmp_path, "A=1", mode), ME)
    assert caught.value.status == EX_NOPERM


@pytest.mark.parametrize(
    "line", ["hunter2", "=hunter2", "1A=hunter2", "A B=hunter2", "A\0=hunter2"]
)
def test_a_line_that_makes_no_sense_is_named_without_its_value(tmp_path, line):
    with pytest.raises(Refusal, match="line 2: not of the form NAME=VALUE") as caught:
        environment.read(write(tmp_path, f"A=1\n{line}\n"), ME)
    assert caught.value.status == EX_CONFIG
    assert "hunter2" not in str(caught.value)


def test_a_value_with_a_nul(tmp_path):
    with pytest.raises(Refusal, match="NUL"):
        environment.read(write(tmp_path, "A=1\0"), ME)


def test_missing(tmp_path):
    with pytest.raises(Refusal, match="No such file") as caught:
        environment.read(str(tmp_path / "none"), ME)
    assert caught.value.status == EX_NOINPUT


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "env", 0o600)
    with pytest.raises(Refusal, match="not a plain file"):
        environment.read(str(tmp_path / "env"), ME)


@pytest.mark.skipif(ME != 0, reason="only root can give files away")
def test_of_another_user(tmp_path):
    path = write(tmp_path, "A=1")
    os.chown(path, 12345, 12345)
    with pytest.raises(Refusal, match="does not belong to root"):
        environment.read(path, 0)


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


class TestInherit:
    def test_all_but_what_could_make_root_load_something_else(self):
        dropped = [
            "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PERL5LIB", "RUBYOPT", "BASH_FUNC_x%%",
            "IFS", "ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "ZDOTDIR", "FPATH", "CDPATH", "PS4",
        ]  # fmt: skip
        kept = ["COLD_KEY", "RESTIC_PASSWORD", "LANG", "MY_ENV", "ENVIRONMENT", "XPATH", "SSL_LD_"]
        given = dict.fromkeys([*dropped, *kept], "x")
        base = environment.inherit(given)
        assert base == {**dict.fromkeys(kept, "x"), "PATH": PATH, "HOME": base["HOME"]}

    def test_programs_are_looked_up_in_our_path(self):
        assert environment.inherit({"PATH": "/evil"})["PATH"] == PATH

    def test_without_a_home_it_is_the_users(self, monkeypatch):
        monkeypatch.setattr(environment, "_home", lambda: "/root")
        assert environment.inherit({})["HOME"] == "/root"
        assert environment.inherit({"HOME": ""})["HOME"] == "/root"

    def test_a_user_without_an_entry(self, monkeypatch):
        def unknown(uid):
            raise KeyError(uid)

        monkeypatch.setattr(environment.pwd, "getpwuid", unknown)
        assert environment.inherit({})["HOME"] == "/"

    def test_what_is_given_stays_as_it_was(self):
        given = {"PATH": "/evil", "LD_PRELOAD": "x"}
        environment.inherit(given)
        assert given == {"PATH": "/evil", "LD_PRELOAD": "x"}

    @pytest.mark.skipif(ME != 0, reason="only root can give files away")
    def test_the_home_of_another_user_is_not_taken_over(self, tmp_path, monkeypatch):
        """As `su -m` leaves it: kopia would take that user's configuration, as root."""
        names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
        given = dict.fromkeys(names, str(tmp_path))
        assert environment.inherit(given).items() >= given.items()
        monkeypatch.setattr(environment.os, "geteuid", lambda: 12345)
        os.chown(tmp_path, 54321, -1)
        monkeypatch.setattr(environment, "_home", lambda: "/root")
        ours = environment.inherit(given)
        assert ours["HOME"] == "/root"
        assert not ours.keys() & set(names[1:])
        assert environment.inherit({"HOME": "/no/such"})["HOME"] == "/no/such"
