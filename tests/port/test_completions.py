"""The shell completions: every option of the programs, and names of datasets and jobs."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.machine import CHECKOUT, PROGRAMS
from support.rendering import rendered

from kopiatomic.cli import LONG, SHORT
from kopiatomic.state import STATE_DIRECTORY

DIRECTORY = CHECKOUT / "files/completions"
BASH = DIRECTORY / "kopiatomic.bash"
ZSH = DIRECTORY / "_kopiatomic"

# What is one program's only; test_manual.py sees to it that this is true.
OTHERS = {"kopiatomic": {"--forget", "--prune"}, "restomic": {"--maintenance"}}
OPTIONS = {
    program: ({f"-{each}" for each in SHORT.replace(":", "")}
              | {f"--{each.rstrip('=')}" for each in LONG}) - OTHERS[program]
    for program in PROGRAMS
}  # fmt: skip
WITH_WORD = {f"--{each[:-1]}" for each in LONG if each.endswith("=")}

both = pytest.mark.parametrize("program", PROGRAMS)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on this machine")
    return path


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment with a zfs(8) that has datasets, and nothing more."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "zfs").write_text(
        "#!/bin/sh\n"
        '[ "$*" = "list -H -o name -t filesystem,volume" ] || exit 2\n'
        "printf '%s\\n' zroot zroot/home 'zroot/with space' tank/a:b tank/a:c\n"
    )
    (directory / "zfs").chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "LC_ALL": "C"}


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """A directory with the histories of some jobs, and what else lies beside them."""
    directory = tmp_path / "state"
    directory.mkdir()
    for name in (
        "restomic.default.history", "restomic.off.site.history", "restomic.default.upkeep",
        "restomic.new.unfinished", "kopiatomic.home.history",
    ):  # fmt: skip
        (directory / name).touch()
    return directory


# bash


def bash(script: str, environment: dict[str, str]) -> list[str]:
    result = subprocess.run(
        [tool("bash"), "--norc", "--noprofile", "-c", script],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stderr == ""
    return result.stdout.splitlines()


def completed(
    words: list[str], environment: dict[str, str], directory: Path | None = None
) -> list[str]:
    """Return what bash offers for the last of these words."""
    text = BASH.read_text()
    if directory is not None:
        assert STATE_DIRECTORY in text
        text = text.replace(STATE_DIRECTORY, str(directory))
    quoted = " ".join(map(shlex.quote, words))
    return bash(
        f"{text}\nCOMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n_kopiatomic\n"
        "[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\\n' \"${COMPREPLY[@]}\"",
        environment,
    )


def test_bash_offers_files_for_a_layout(stubs, tmp_path):
    (tmp_path / "layout.json").touch()
    assert completed(["restomic", "--layout", f"{tmp_path}/lay"], stubs) == [
        f"{tmp_path}/layout.json"
    ]


def test_bash_has_no_error_in_it():
    result = subprocess.run([tool("bash"), "-n", BASH], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


@both
def test_bash_completes_this_program(program, stubs):
    [line] = bash(f". {BASH}; complete -p {program}", stubs)
    assert line == f"complete -F _kopiatomic {program}"


@both
def test_bash_offers_every_option_and_no_other(program, stubs):
    assert set(completed([program, "-"], stubs)) == OPTIONS[program]


@both
def test_bash_offers_datasets_for_an_option_that_takes_none(program, stubs):
    assert completed([program, "-r", "zroot/h"], stubs) == ["zroot/home"]
    assert completed([f"/usr/local/sbin/{program}", "-n", "zroot/h"], stubs) == ["zroot/home"]


@both
def test_bash_completes_a_long_option(program, stubs):
    assert completed([program, "--rec"], stubs) == ["--recursive"]


def test_bash_knows_which_options_take_a_word(stubs):
    for option in LONG:
        name = f"--{option.rstrip('=')}"
        offered = completed(["restomic", name, "--"], stubs)
        # After an option that takes a word another option is not offered.
        assert ("--recursive" in offered) != (name in WITH_WORD), name
    for letter, mark in re.findall(r"(\w)(:?)", SHORT):
        assert ("--recursive" in completed(["restomic", f"-{letter}", "--"], stubs)) != bool(mark)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["-x", "zroot/w"], [r"zroot/with\ space"]),
        ([r"zroot/with\ s"], [r"zroot/with\ space"]),
        (["tank"], ["tank/a:b", "tank/a:c"]),
        (["tank/a", ":"], ["b", "c"]),
        (["tank/a", ":", "b"], ["b"]),
        (["--exclude", "="], ["zroot", "zroot/home", r"zroot/with\ space", "tank/a:b", "tank/a:c"]),
        (["--exclude", "=", "zroot/h"], ["zroot/home"]),
        (["nothing"], []),
        (["--drill", ""], []),
    ],
)
def test_bash_offers_datasets(words, offered, stubs):
    assert completed(["restomic", *words], stubs) == offered


def test_bash_offers_files_and_directories(stubs, tmp_path):
    (tmp_path / "a file").touch()
    (tmp_path / "a directory").mkdir()
    start = f"{tmp_path}/a"
    everything = [f"{tmp_path}/a directory", f"{tmp_path}/a file"]
    assert sorted(completed(["restomic", "-e", start], stubs)) == everything
    assert completed(["restomic", "--live", start], stubs) == everything[:1]
    assert completed(["restomic", start], stubs) == everything[:1]


def test_bash_offers_jobs(stubs, histories):
    assert completed(["restomic", "-j", ""], stubs, histories) == ["default", "off.site"]
    assert completed(["kopiatomic", "--job", "h"], stubs, histories) == ["home"]
    assert completed(["kopiatomic", "--expect", ""], stubs, histories) == [
        "kopiatomic/home", "restomic/default", "restomic/off.site",
    ]  # fmt: skip


def test_bash_offers_nothing_where_there_is_no_zfs(stubs):
    without = {**stubs, "PATH": os.environ["PATH"]}
    if shutil.which("zfs"):
        pytest.skip("this machine has a zfs")
    assert completed(["restomic", "z"], without) == []


# zsh


def zsh_options(text: str) -> dict[str, str]:
    """Return the options in the specifications of _arguments, with what follows the name."""
    found = {}
    for line in text.splitlines():
        spec = re.match(r"\s+['\"(*]", line) and re.search(r"(--?[^\[]*)\[[^\]]+\](.*)", line)
        if spec:
            names = spec[1].rpartition("{")[2].partition("}")[0]
            for name in names.split(","):
                found[name.rstrip("+=")] = name[len(name.rstrip("+=")) :] + spec[2].rstrip("'\\ ")
    return found


@both
def test_zsh_has_every_option_and_no_other(program):
    text = ZSH.read_text()
    assert text.startswith(f"#compdef {' '.join(PROGRAMS)}\n")
    sections = dict(re.findall(r"^  (\w+)\)\n(.*?);;", text, re.M | re.S))
    assert set(sections) == set(PROGRAMS)
    common = text[text.index("_arguments") :]
    options = zsh_options(sections[program] + common)
    assert set(options) == OPTIONS[program]
    for name, rest in options.items():
        if name.startswith("--"):
            assert (rest[:1] == "=") == (name in WITH_WORD), name
            assert (":" in rest) == (name in WITH_WORD), name


def test_zsh_has_no_error_in_it():
    result = subprocess.run([tool("zsh"), "-n", ZSH], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


# fish


@pytest.fixture(scope="module")
def fish() -> dict[str, str]:
    """The completions of each program for fish, as they are rendered."""
    return rendered("fish")


@both
def test_fish_has_every_option_and_no_other(program, fish):
    found = set()
    for line in fish[program].splitlines():
        words = shlex.split(line) if line.startswith("complete ") else []
        names = {"-s": "-", "-l": "--"}
        options = {names[a] + b for a, b in itertools.pairwise(words) if a in names}
        if options:
            assert words[1:3] == ["-c", program], line
            assert words[-2] == "-d", line
            takes_word = "-x" in words or "-r" in words
            assert takes_word == bool(options & WITH_WORD), line
        found |= options
    assert found == OPTIONS[program]


@both
def test_fish_has_no_error_in_it(program, fish):
    result = subprocess.run(
        [tool("fish"), "-n"], input=fish[program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_fish_offers_datasets_jobs_and_options(stubs, histories, tmp_path, fish):
    text = fish["restomic"].replace(STATE_DIRECTORY, str(histories))
    lines = ["restomic zroot/h", "restomic -j ", "restomic --pr", "restomic --expect kop"]
    asked = "\n".join(f'complete -C "{line}"' for line in lines)
    script = f"function restomic; end\n{text}\n{asked}\n"
    environment = {**stubs, "HOME": str(tmp_path)}
    result = subprocess.run(
        [tool("fish"), "--no-config", "-c", script],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        "zroot/home", "default", "off.site", "--prune", "kopiatomic/home",
    ]  # fmt: skip


# All of them


def test_no_other_program_is_needed_but_plain_ones(fish):
    """FreeBSD's sed and awk know no GNU options, and the port depends on nothing else."""
    for text in (BASH.read_text(), ZSH.read_text(), *fish.values()):
        text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
        assert "zfs list -H -o name -t filesystem,volume" in text
        assert not re.search(r"\b(awk|grep|find|readlink|python3?|_init_completion)\b", text)
        assert not re.search(r"\bsed (?!\"s\|)", text)
