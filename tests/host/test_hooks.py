"""Hooks leave services as they found them."""

from __future__ import annotations

import stat

import pytest
from support.machine import BASE, Machine, wait_for

from host.conftest import clean


def restomic(machine: Machine, *words: str, before: str = "umask 022") -> str:
    """Run a plain job after a line of sh, expect it to be good and clean; return its output."""
    line = f'{before}; exec /usr/local/sbin/restomic --plain "$@"'
    if not machine.is_sandbox:
        line = line.replace("/usr/local/sbin/restomic", str(machine.programs / "restomic"))
    result = machine.run(["/bin/sh", "-c", line, "sh", *words, "kta/src"])
    assert result.returncode == 0, result.stdout + result.stderr
    clean(machine)
    return result.stdout


def read_soon(machine: Machine, name: str) -> str:
    """Wait until a file holds a line, and return it."""
    path = machine.path(name)
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text()


@pytest.mark.parametrize("umask", ["022", "002", "077"])
def test_hooks_have_the_callers_umask_and_the_client_has_ours(filled: Machine, umask: str):
    client = filled.path(f"{BASE}/client")
    client.write_text(f"#!/bin/sh\numask > {BASE}/client-umask\n")
    client.chmod(0o755)
    hooks = [f"umask > {BASE}/umask{each}; : > {BASE}/made{each}" for each in ("-p", "-s", "-q")]
    restomic(
        filled, "-c", f"{BASE}/client", "-p", hooks[0], "-s", hooks[1], "-q", hooks[2],
        before=f"umask {umask}",
    )  # fmt: skip
    for each in ("-p", "-s", "-q"):
        assert filled.path(f"{BASE}/umask{each}").read_text() == f"0{umask}\n"
        mode = stat.S_IMODE(filled.path(f"{BASE}/made{each}").stat().st_mode)
        assert mode == 0o666 & ~int(umask, 8)
    assert filled.path(f"{BASE}/client-umask").read_text() == "0077\n"


@pytest.mark.parametrize("option", ["-p", "-s", "-q"])
def test_what_a_hook_leaves_can_write_after_the_run(filled: Machine, option: str):
    after = f"while [ ! -e {BASE}/over ]; do sleep 0.2; done"
    hook = f"({after}; /bin/echo x >&2; echo status $? > {BASE}/told) &"
    restomic(filled, "-c", "true", option, hook)
    filled.path(f"{BASE}/over").touch()
    assert read_soon(filled, f"{BASE}/told") == "status 0\n"


def test_it_is_in_the_way_of_nothing(filled: Machine):
    """Neither it nor what reads its output holds the lock, the view, or our own output."""
    after = f"while [ ! -e {BASE}/over ]; do sleep 0.2; done"
    hook = f"({after}; echo out; /bin/echo err >&2; echo status $? > {BASE}/told) & echo hooked"
    # It comes back at once, although our output is a pipe that is read to its end.
    assert "hooked\n" in restomic(filled, "-c", "true", "-p", hook)
    assert "Taken down" not in restomic(filled, "-c", "true")
    filled.run(["zfs", "unmount", "kta/src"], check=True)
    filled.run(["zfs", "mount", "kta/src"], check=True)
    filled.path(f"{BASE}/over").touch()
    assert read_soon(filled, f"{BASE}/told") == "status 0\n"


def test_a_reader_that_goes_ends_what_a_hook_runs(filled: Machine):
    """As in every shell, and not as under python, which ignores SIGPIPE."""
    hook = f"(yes; echo $? > {BASE}/told) | head -n 1"
    restomic(filled, "-c", "true", "-s", hook)
    assert read_soon(filled, f"{BASE}/told") == "141\n"


def test_what_the_caller_ignores_stays_ignored(filled: Machine):
    hook = f"sh -c 'kill -HUP $$; echo lives > {BASE}/told'; true"
    restomic(filled, "-c", "true", "-s", hook, before="trap '' HUP")
    assert read_soon(filled, f"{BASE}/told") == "lives\n"
    filled.path(f"{BASE}/told").unlink()
    restomic(filled, "-c", "true", "-s", hook)
    assert not filled.path(f"{BASE}/told").exists()
