"""Several runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from support.machine import wait_for

from faults.injector import PLACE, RESTOMIC, Injected

pytestmark = [pytest.mark.linux(reason="faults are put into the stand-ins"), pytest.mark.slow]

EX_TEMPFAIL = 75


def start(injected: Injected, *words: str) -> subprocess.Popen[str]:
    return injected.machine.popen(
        [RESTOMIC, "--plain", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        new_group=True,
    )  # fmt: skip


def client(injected: Injected, name: str, text: str) -> str:
    path = injected.path(f"/kt/{name}")
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"/kt/{name}"


def test_of_twenty_runs_of_a_job_one_works(injected: Injected):
    injected.plan(0)
    go = injected.path("/kt/go")
    go.unlink(missing_ok=True)
    waits = client(injected, "waits", "while [ ! -f /kt/go ]; do sleep 0.05; done")
    runs = [start(injected, "-c", waits, "-r", "kta/home") for _ in range(20)]
    wait_for(lambda: sum(run.poll() is not None for run in runs) >= 19)
    go.touch()
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    statuses = sorted(run.returncode for run in runs)
    assert statuses == [0] + [EX_TEMPFAIL] * 19, outputs
    for run, output in zip(runs, outputs, strict=True):
        if run.returncode:
            assert "restomic/default is still running" in output
            assert output.count("\n") == 1
    assert not injected.check_clean()


def test_two_jobs_do_not_disturb_each_other(injected: Injected):
    """Each goes through all of its steps while the other does, over and over."""
    injected.plan(0)
    reads = client(injected, "reads", 'find "$@" -type f | wc -l')
    for _ in range(5):
        runs = [
            start(injected, "-j", job, "-c", reads, "-r", "kta/home", "kta/src")
            for job in ("one", "two")
        ]
        for run in runs:
            output = run.communicate(timeout=60)[0]
            assert run.returncode == 0, output
            assert output.startswith("9\n"), output
            assert "Note" not in output
    for job in ("one", "two"):
        assert not injected.left_over(job)
    assert not injected.check_clean()


def test_sweeping_one_job_leaves_the_other_alone(injected: Injected):
    injected.plan(0)
    go = injected.path("/kt/go")
    go.unlink(missing_ok=True)
    waits = client(
        injected, "waits", 'while [ ! -f /kt/go ]; do sleep 0.05; done; find "$@" -type f | wc -l'
    )
    other = start(injected, "-j", "default.2", "-c", waits, "-r", "kta/home")
    # The frozen dataset is what is mounted last in the view.
    while "/default.2/view/kt/kta/home (" not in injected.machine.run(["mount", "-v"]).stdout:
        assert other.poll() is None
        time.sleep(0.05)
    swept = injected.machine.run([RESTOMIC, "--sweep"])
    assert swept.returncode == 0
    assert swept.stdout == "nothing was left behind\n"
    go.touch()
    output = other.communicate(timeout=60)[0]
    assert other.returncode == 0, output
    assert output.startswith("6\n")
    assert not injected.check_clean()


def test_the_lock_of_a_dead_process_is_no_lock(injected: Injected):
    injected.plan(0)
    injected.path(f"{PLACE}/client-plan").write_text("sleep 30\n")
    run = injected.start()
    while "client" not in "".join(injected.calls()):
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    lock = injected.path("/var/run/restomic/default.lock")
    assert lock.read_text().split()[0].isdigit()
    assert not injected.next_run()
