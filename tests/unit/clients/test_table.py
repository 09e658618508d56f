"""The table of clients, and a job made ready to run its client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kopiatomic import clients
from kopiatomic.clients import client_of, make_ready, programs
from kopiatomic.clients.base import Client
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.command import Door

SOURCE = str(Path(clients.__file__).parents[2])


def test_each_program_has_its_client():
    assert {program: client_of(program).name for program in programs()} == {
        "kopiatomic": "kopia", "restomic": "restic",
    }  # fmt: skip


def test_an_unknown_program_is_an_error():
    with pytest.raises(KeyError):
        client_of("borgomic")


def test_a_row_of_the_table_is_a_program(monkeypatch):
    monkeypatch.setitem(clients.TABLE, "borgomic", Client)
    assert type(client_of("borgomic")) is Client
    assert "borgomic" in programs()


@pytest.mark.parametrize(("program", "other"), [("restomic", "kopia"), ("kopiatomic", "restic")])
def test_only_the_client_that_is_needed_is_imported(program, other):
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kopiatomic import clients;"
        f"clients.client_of({program!r}); print('kopiatomic.clients.{other}' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"


@pytest.fixture
def wrapper(tmp_path):
    """A wrapper that knows a password."""
    path = tmp_path / "restic-x"
    path.write_text("#!/bin/sh\nexport RESTIC_PASSWORD='correct horse'\nexec restic \"$@\"\n")
    path.chmod(0o700)
    return str(path)


class TestReady:
    def test_is_all_that_the_client_is_run_with(self, wrapper):
        job = Job("restomic", command=(wrapper, "backup"), environment={"A": "file"})
        task = make_ready(job, Door(), {"A": "caller", "B": "caller", "LD_PRELOAD": "/x"})
        assert (task.job, task.client.name, task.program) == (job, "restic", wrapper)
        assert (task.environment["A"], task.environment["B"]) == ("file", "caller")
        assert "LD_PRELOAD" not in task.environment
        assert task.door == Door()

    def test_hides_what_the_environment_the_words_and_the_wrapper_hold(self, wrapper):
        job = Job(
            "restomic", command=(wrapper, "backup"), options=("--password=battery",),
            environment={"RESTIC_REST_PASSWORD": "staple"},
        )  # fmt: skip
        task = make_ready(job, Door(), {"KOPIA_PASSWORD": "caller's own"})
        said = task.hide("correct horse battery staple caller's own")
        assert said == "[hidden] [hidden] [hidden] [hidden]"

    def test_the_trace_holds_no_secret(self, wrapper, fp):
        lines: list[str] = []
        fp.register(["true", "correct horse", "tank"])
        job = Job("restomic", command=(wrapper, "backup"))
        make_ready(job, Door(trace=lines.append), {}).door.run(["true", "correct horse", "tank"])
        assert lines == ["+ true [hidden] tank"]

    def test_the_systems_calls_stay(self, wrapper):
        kernel = object()
        job = Job("restomic", command=(wrapper, "backup"))
        for trace in (None, print):
            assert make_ready(job, Door(trace, kernel), {}).door.kernel is kernel

    def test_the_client_must_be_there(self):
        job = Job("restomic", command=("/no/such", "backup"))
        with pytest.raises(Refusal, match="'/no/such' is not installed"):
            make_ready(job, Door(), {})

    def test_the_client_need_not_be_there_to_read_how_it_is_called(self):
        job = Job("restomic", command=("/no/such", "backup"), options=("--password=battery",))
        task = make_ready(job, Door(), {}, installed=False)
        assert task.program == ""
        assert task.hide("a battery") == "a [hidden]"
