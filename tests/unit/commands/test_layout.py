"""`--layout`: the layout of the machine, or of a file."""

import os
from pathlib import Path

import pytest
from support.libc import Library

from kopiatomic.commands import layout
from kopiatomic.errors import (
    EX_DATAERR,
    EX_NOINPUT,
    EX_OSERR,
    EX_UNAVAILABLE,
    EX_USAGE,
    Refusal,
)
from kopiatomic.job import Job
from kopiatomic.layout import commands, form, taking
from kopiatomic.system.command import CommandFailed, Door
from unit.layout.layouts import LAYOUT

DOOR = Door(kernel=Library().kernel())
JOB = Job("restomic")


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """Return the path of a file as a backup has it."""
    path = tmp_path / "layout.json"
    path.write_text(form.as_text(LAYOUT, commands.script(LAYOUT)))
    return str(path)


@pytest.fixture
def one_pool(fp, monkeypatch):
    """Let the machine have a pool, and a layout of which something is lacking."""
    fp.register(["zpool", "list", fp.any()], stdout="zroot\toff\tONLINE\n")
    taken = taking.Taken(LAYOUT, ("the partitions of the disks: no",))
    monkeypatch.setattr(taking, "take", lambda door, pools, client: taken)


def refusal(*targets: str, door: Door = DOOR) -> Refusal:
    with pytest.raises(Refusal) as caught:
        layout.show(JOB._replace(targets=targets), door, {})
    return caught.value


def test_of_a_file_the_commands(saved, capfd):
    assert layout.show(JOB._replace(targets=(saved,)), DOOR, {}) == 0
    assert capfd.readouterr().out == "\n".join(commands.script(form_of(saved))) + "\n"


def form_of(path: str) -> form.Layout:
    return form.parse(Path(path).read_bytes(), path)


def test_of_this_machine_the_commands_and_what_is_lacking(one_pool, capfd):
    assert layout.show(JOB, DOOR, {}) == 0
    said = capfd.readouterr()
    assert said.out == "\n".join(commands.script(LAYOUT)) + "\n"
    assert said.err == "restomic: not in the layout: the partitions of the disks: no\n"


def test_as_json_it_is_the_file(one_pool, saved, capfd):
    layout.show(JOB, DOOR, {"--json": ""})
    assert capfd.readouterr().out == Path(saved).read_text()


def test_the_commands_in_a_file_are_not_believed(tmp_path, capfd):
    path = tmp_path / "layout.json"
    path.write_text(form.as_text(LAYOUT, ["reboot"]))
    layout.show(JOB._replace(targets=(str(path),)), DOOR, {})
    assert "reboot" not in capfd.readouterr().out


def test_standard_input_is_a_file_too(saved, capfd, monkeypatch):
    with open(saved, "rb") as file:
        kept = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            layout.show(JOB._replace(targets=("-",)), DOOR, {})
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert "zpool create" in capfd.readouterr().out


def test_a_file_that_is_none_is_refused_in_a_line(tmp_path):
    path = tmp_path / "other"
    path.write_text("{}")
    error = refusal(str(path))
    assert error.status == EX_DATAERR
    assert str(error).startswith(f"{path} is no layout that a backup has saved")


def test_one_that_is_too_large_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(form, "LARGEST", 10)
    path = tmp_path / "other"
    path.write_bytes(b"0" * 11)
    assert refusal(str(path)).status == EX_DATAERR


@pytest.mark.parametrize("name", ["gone", "."])
def test_one_that_cannot_be_read_is_refused(tmp_path, name):
    error = refusal(str(tmp_path / name))
    assert error.status == EX_NOINPUT
    assert "cannot be read" in str(error)


def test_two_files_are_refused():
    assert refusal("a", "b").status == EX_USAGE


def test_a_machine_without_a_pool_is_refused(fp):
    fp.register(["zpool", "list", fp.any()], stdout="")
    assert refusal().status == EX_NOINPUT


def test_in_a_jail_the_hosts_is_not_told(fp):
    refused = refusal(door=Door(kernel=Library(jailed=1).kernel()))
    assert refused.status == EX_UNAVAILABLE
    assert "this is a jail" in str(refused)
    assert not fp.calls


def test_a_machine_that_does_not_answer_is_refused(fp, monkeypatch):
    fp.register(["zpool", "list", fp.any()], stdout="zroot\toff\tONLINE\n")

    def fail(*words: object) -> None:
        raise CommandFailed(("zfs", "get"), "no")

    monkeypatch.setattr(taking, "take", fail)
    assert refusal().status == EX_OSERR
