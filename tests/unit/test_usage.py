"""What --help prints."""

import re

import pytest

from kopiatomic import cli


@pytest.mark.parametrize("program", ["kopiatomic", "restomic"])
def test_help_names_every_option(capsys, program):
    assert cli.main(program, ["--help"]) == 0
    text = capsys.readouterr().out
    for long, short in cli.LONG.items():
        assert f"--{long.rstrip('=')}" in text
        assert re.search(rf"(?<![\w-]){short}\b", text)
    assert max(map(len, text.splitlines())) <= 80
