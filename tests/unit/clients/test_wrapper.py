"""What the text of a wrapper says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiatomic.clients.restic import Restic, host_of
from kopiatomic.clients.wrapper import assigned, calls, commands, passes_on, sets
from kopiatomic.job import Job

CLASSIC = """#!/bin/sh
# the password is TZ=Mars
export KOPIA_PASSWORD="correct horse"   # the battery
kopia repository connect filesystem --path=/backup/kopia
kopia "$@"
"""


def test_assignments():
    script = """#!/bin/sh
    A=1; B='two words' C="a \\"quoted\\" \\$x"
    export D=/d E="/e e"  # F=no
    env G=g nice -n 5 restic "$@"
    H=$(date) I="$HOME/x" J=`id` K=a\\ b
    echo L=no; [ "$1" = M=no ]
    if true; then export N=n; fi
    A=2
    #O=no
    P=a#b
    """
    assert assigned(script) == {
        "A": "2", "B": "two words", "C": 'a "quoted" $x', "D": "/d", "E": "/e e", "G": "g",
        "K": "a b", "P": "a#b",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["A=$B", 'A="$(cat /x)"', "A=`id`", "A=1; A=$B"])
def test_what_is_worked_out_is_not_known(line: str):
    assert "A" not in assigned(line)
    assert sets(line, "A")
    assert not sets(line, "B")


def test_calls_of_the_client():
    assert calls(CLASSIC, "kopia") == [
        ["repository", "connect", "filesystem", "--path=/backup/kopia"], ["$@"],
    ]  # fmt: skip
    script = 'OPTS="-x --quiet"\nexec nice /usr/local/bin/restic --host a \\\n "$@" | tee /x\n'
    assert calls(script, "restic") == [["-x", "--quiet"], ["--host", "a", "$@"]]
    assert calls("#!/bin/sh\n# restic -x\nset -x; test -x /a && echo 'restic -x'", "restic") == []


@pytest.mark.parametrize(("text", "expected"), [
    ('restic "$@"', True), ("restic $*", True), ("restic ${1}", True),
    ("os.execv(x, sys.argv)", True), ("restic backup /home", False), ("echo $HOME $$", False),
])  # fmt: skip
def test_whether_words_are_passed_on(text: str, expected: bool):
    assert passes_on(text) == expected


@given(st.text(alphabet="ab=\"'\\$`#;&|() \n\t-/x", max_size=60))
def test_any_text_is_read(text: str):
    """Nothing is too wrong to be looked at, and no character of a word is made up."""
    for words in commands(text):
        assert words
        for word in words:
            assert len(word.text) <= len(text)
    assigned(text)
    calls(text, "restic")


def test_variables_of_a_wrapper_count_as_the_environments():
    job = Job("restomic", command=("/w", "backup"))
    assert host_of(job, {"RESTIC_HOST": "env"}, "") == "env"
    assert host_of(job, {"RESTIC_HOST": "env"}, "RESTIC_HOST=mine") == "mine"
    assert host_of(job, {}, "exec restic -Hshort \"$@\"") == "short"
    assert Restic().zone({"TZ": "UTC"}, "export TZ=Asia/Tokyo") == "Asia/Tokyo"
    assert Restic().zone({"TZ": "UTC"}) == "UTC"
    assert Restic().zone({}) is None
