"""The message of the package, and the samples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kopiatomic import environment
from port.build import CHECKOUT, Port, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = needed()

FILES = CHECKOUT / "files"
WRAPPERS = ("kopia-myrepo.sample", "restic-myrepo.sample")
ENVFILES = ("kopia-myrepo.env.sample", "restic-myrepo.env.sample")


@dataclass(frozen=True)
class Message:
    """A message of a package."""

    type: str
    text: str


def messages(text: str) -> list[Message]:
    """Read UCL as far as messages go: a list of objects with type and message."""
    one = r"\{ type: (install|upgrade|remove)\n  message: <<EOM\n((?:(?!EOM\n).*\n)*)EOM\n\}\n"
    assert re.fullmatch(rf"\[\n(?:{one})+\]\n", text)
    return [Message(*found) for found in re.findall(one, text)]


@pytest.fixture
def told(built: Port) -> dict[str, str]:
    """The messages by type, as they are in the package."""
    path = built.directory / "work/pkg-message"
    return {each.type: each.text for each in messages(path.read_text())}


def test_there_is_a_message_for_installing_and_none_for_upgrading(told: dict[str, str]):
    assert sorted(told) == ["install"]


def test_it_says_what_is_vital_and_where_the_rest_is(told: dict[str, str]):
    text = told["install"]
    assert text.isascii()
    assert "%%" not in text
    lines = text.splitlines()
    assert max(len(line.expandtabs()) for line in lines) <= 80
    # Four commands, and what they are for.
    assert sum(line.startswith("  # ") for line in lines) <= 4
    assert sum(bool(re.match(r"\S", line)) for line in lines) <= 3
    assert len(lines) <= 11
    assert re.search(r"kopiatomic\(8\),\s+restomic\(8\)\.\n$", text)


def test_what_it_puts_into_periodic_conf_is_known_to_the_scripts(told: dict[str, str], built: Port):
    names = re.findall(r"\b(\w+)=", told["install"])
    assert len(names) == 4
    scripts = [path.read_text() for path in (built.stage / "usr/local/etc/periodic").glob("*/*")]
    for name in names:
        assert any(f"{name}=" in script for script in scripts), name


def test_the_files_it_names_are_there(told: dict[str, str], built: Port):
    assert "cp -p restic-myrepo.sample restic-home" in told["install"]
    assert (built.stage / "usr/local/etc/kopiatomic/restic-myrepo.sample").exists()
    assert "  # /usr/local/etc/periodic/daily/800.restomic\n" in told["install"]
    assert (built.stage / "usr/local/etc/periodic/daily/800.restomic").exists()


@pytest.mark.parametrize("name", ENVFILES)
def test_an_env_file_can_be_read_by_the_program(tmp_path: Path, name: str):
    path = tmp_path / "env"
    shutil.copy(FILES / name, path)
    path.chmod(0o600)
    variables = environment.read(str(path), os.geteuid())
    client = name.split("-")[0].upper()
    assert variables
    assert all(each.startswith(f"{client}_") for each in variables)
    assert variables[f"{client}_PASSWORD"] == "change-me"


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_hands_everything_to_the_client(tmp_path: Path, name: str):
    client = name.split("-")[0]
    stub = tmp_path / client
    stub.write_text('#!/bin/sh\nprintf "%s|" "$@"; echo; env\nexit 7\n')
    stub.chmod(0o755)
    result = subprocess.run(
        ["/bin/sh", FILES / name, "one two", "*", ""], check=False, stdout=subprocess.PIPE,
        text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert result.returncode == 7
    assert result.stdout.startswith("one two|*||\n")
    assert f"\n{client.upper()}_" in result.stdout


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_clean_shell(name: str):
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck")
    subprocess.run(["shellcheck", FILES / name], check=True)


@pytest.mark.parametrize("name", WRAPPERS + ENVFILES)
def test_no_secret_is_in_a_sample(name: str):
    for value in re.findall(r"PASSWORD=(.*)", (FILES / name).read_text()):
        assert value == "change-me"
