"""What --help prints."""

import re

import pytest

from kopiatomic import cli, usage

PROGRAMS = {"kopiatomic": "kopia", "restomic": "restic"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_names_every_option(capsys, program):
    assert cli.main(program, ["--help"]) == 0
    text = capsys.readouterr().out
    for long, short in cli.LONG.items():
        assert f"--{long.rstrip('=')}" in text
        assert re.search(rf"(?<![\w-]){short}\b", text)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_offers_no_option_that_there_is_not(program):
    told = re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", usage.text(program))
    # What stands in the values of examples is the clients' own.
    theirs = {"--tag", "--keep-daily"}
    ours = {f"--{long.rstrip('=')}" for long in cli.LONG} | set(cli.LONG.values())
    clusters = {"-anr", "-ceoj"}
    assert set(told) - ours - theirs - clusters == set()


@pytest.mark.parametrize(("program", "client"), PROGRAMS.items())
def test_each_program_speaks_of_its_own_client(program, client):
    text = usage.text(program)
    assert text.startswith(f"usage: {program} ")
    assert f"ZFS datasets with {client}," in text
    assert f"""'exec {client} "$@"'""" in text
    assert text.endswith(f"Manual: {program}(8)\n")
    (other,) = PROGRAMS.keys() - {program}
    assert other not in text
    assert not re.search(r"[{}]", text)
