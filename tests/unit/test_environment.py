"""Env files: what is read, what is refused, and that no value shows."""

import os

import pytest

from kopiatomic import environment
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, EX_NOPERM, Refusal

ME = os.geteuid()


def write(tmp_path, text, mode=0o600):
    path = tmp_path / "env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


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
