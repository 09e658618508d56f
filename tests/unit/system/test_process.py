"""Running the user's programs: output carried on, signals passed, nothing waited for in vain.

What a hook starts goes on as if the caller had started it: umask, signals, its output.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.patience import PATIENCE

from kopiatomic import cli
from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.process import Ended, Interrupted, Signals, Streams

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def run(code, *, signals=None, **streams):
    argv = [sys.executable, "-c", code]
    return process.run(Door(), argv, ENVIRONMENT, signals or Signals(), Streams(**streams))


class TestOutput:
    def test_passes_through_and_is_kept(self, capfd):
        ended = run("import sys; print('out'); print('err', file=sys.stderr)")
        assert (ended.status, ended.output, ended.messages) == (0, b"out\n", b"err\n")
        assert capfd.readouterr() == ("out\n", "err\n")

    def test_can_be_kept_to_ourselves(self, capfd):
        assert run("print('json')", output=None).output == b"json\n"
        assert capfd.readouterr().out == ""

    def test_secrets_are_hidden_on_the_way(self, capfd):
        ended = run("print('pass' + 'word')", hide=lambda text: text.replace("password", "*"))
        assert capfd.readouterr().out == "*\n"
        assert ended.said == b"*\n"

    def test_of_a_line_written_over_the_last_state_is_shown(self, capfd):
        code = r"import sys; sys.stdout.write('\r1 %\r50 %\r100 % \r\nnext\nno newline')"
        assert run(code).said == b"100 %\nnext\nno newline\n"
        assert capfd.readouterr().out == "100 %\nnext\nno newline\n"

    def test_only_the_tail_of_very_much_is_kept(self):
        null = os.open(os.devnull, os.O_WRONLY)
        ended = run("print('x' * 3_000_000 + 'end')", output=null)
        os.close(null)
        assert len(ended.output) == process.TAIL
        assert ended.output.endswith(b"end\n")

    def test_a_reader_that_has_gone_does_not_stop_the_backup(self):
        reader, writer = os.pipe()
        os.close(reader)
        ended = run("print('x' * 100000); print('done')", output=writer)
        os.close(writer)
        assert (ended.status, ended.output[-5:]) == (0, b"done\n")

    def test_what_it_leaves_running_is_not_waited_for(self):
        ended = run("import os, time\nif child := os.fork(): print(child)\nelse: time.sleep(600)")
        # It runs still, or there would be nobody to end.
        os.kill(int(ended.output), signal.SIGKILL)

    def test_a_program_that_is_not_there(self):
        with pytest.raises(CommandFailed, match="cannot be started"):
            process.run(Door(), ["/nonexistent/x"], ENVIRONMENT, Signals(), Streams())

    def test_it_can_have_another_root(self, monkeypatch, tmp_path):
        monkeypatch.setattr(os, "chroot", lambda root: (tmp_path / "root").write_text(root))
        argv = [sys.executable, "-c", "import os; print(os.getcwd())"]
        ended = process.run(
            Door(), argv, ENVIRONMENT, Signals(), Streams(output=None), root="/view"
        )
        assert (ended.status, ended.output) == (0, b"/\n")
        assert (tmp_path / "root").read_text() == "/view"


def once_ready(path, *numbers):
    """Send ourselves signals, one after the other, as soon as a program has made a file."""

    def send():
        wait_for(path.exists)
        for each in numbers:
            os.kill(os.getpid(), each)
            time.sleep(0.3)

    threading.Thread(target=send).start()


SLEEPER = """
import pathlib, signal, sys, time
def leave(signum, frame):
    print('got', signum, flush=True)
    sys.exit(7)
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, leave)
pathlib.Path({ready!r}).touch()
time.sleep(600)
"""

STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))
pathlib.Path({ready!r}).touch()
while True:
    time.sleep(600)
"""


@pytest.mark.usefixtures("surviving")
class TestSignals:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_are_passed_on(self, signum, tmp_path):
        ready = tmp_path / "ready"
        with Signals() as signals:
            once_ready(ready, signum)
            ended = run(SLEEPER.format(ready=str(ready)), signals=signals)
            assert ended.output == b"got %d\n" % signum
            assert ended.status == 7
            with pytest.raises(Interrupted) as caught:
                signals.check()
        assert caught.value.signum == signum

    def test_force_comes_after_the_grace_period(self, monkeypatch, tmp_path):
        ready = tmp_path / "ready"
        monkeypatch.setattr(process, "GRACE", 1.0 * PATIENCE)
        with Signals() as signals:
            once_ready(ready, signal.SIGTERM)
            ended = run(STUBBORN.format(ready=str(ready)), signals=signals)
        # It had the time to answer.
        assert (ended.status, ended.output) == (-signal.SIGKILL, b"asked\n")

    def test_force_comes_with_the_second_signal(self, monkeypatch, tmp_path):
        ready = tmp_path / "ready"
        monkeypatch.setattr(process, "GRACE", 3600.0)
        with Signals() as signals:
            once_ready(ready, signal.SIGTERM, signal.SIGTERM)
            ended = run(STUBBORN.format(ready=str(ready)), signals=signals)
        assert ended.status == -signal.SIGKILL

    def test_one_that_came_before_reaches_the_next_program(self):
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert run("import time; time.sleep(30)", signals=signals).status == -signal.SIGTERM

    def test_handlers_are_put_back(self):
        before = [signal.getsignal(each) for each in process.CAUGHT]
        with Signals():
            assert signal.getsignal(signal.SIGTERM) not in before
        assert [signal.getsignal(each) for each in process.CAUGHT] == before

    def test_what_nohup_ignores_stays_ignored(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Signals() as signals:
                os.kill(os.getpid(), signal.SIGHUP)
                signals.check()
        finally:
            signal.signal(signal.SIGHUP, before)


KEPT = Streams(output=None, messages=None)


def hook(script: str, door: Door | None = None) -> Ended:
    argv = ["/bin/sh", "-c", script]
    return process.run_hook(door or Door(), argv, ENVIRONMENT, Signals(), KEPT)


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30 * PATIENCE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class TestUmaskOfHooks:
    @pytest.fixture(autouse=True)
    def _narrow(self):
        os.umask(0o077)

    def test_a_hook_has_the_callers(self):
        assert hook("umask", Door(umask=0o027)).output == b"0027\n"

    def test_the_client_keeps_ours(self):
        words = ["/bin/sh", "-c", "umask"]
        ended = process.run(Door(umask=0o027), words, ENVIRONMENT, Signals(), KEPT)
        assert ended.output == b"0077\n"

    def test_so_do_the_systems_own_programs(self):
        assert Door(umask=0o027).run(["/bin/sh", "-c", "umask"]).stdout == "0077\n"

    def test_the_program_hands_it_to_the_door(self, monkeypatch):
        from kopiatomic.commands import backup

        doors = []
        monkeypatch.setattr(backup, "back_up", lambda job, door, values: doors.append(door) or 0)
        os.umask(0o026)
        assert cli.main("restomic", ["tank"]) == 0
        assert doors[0].umask == 0o026
        assert os.umask(0o022) == 0o077


class TestSignalsOfHooks:
    PRINT = (
        "import signal; print(*(int(signal.getsignal(s) is signal.SIG_IGN) for s in"
        " (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)))"
    )

    def test_a_pipe_without_a_reader_ends_what_a_hook_runs(self):
        """Python ignores SIGPIPE, which a service must not inherit."""
        ended = hook("kill -PIPE $$; echo lives")
        assert (ended.status, ended.output) == (-signal.SIGPIPE, b"")

    def test_what_the_caller_ignores_is_ignored_and_nothing_else(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Signals():
                ended = hook(f"exec {sys.executable} -c '{self.PRINT}'")
        finally:
            signal.signal(signal.SIGHUP, before)
        assert ended.output == b"1 0 0 0\n"


class TestOutputThatStaysOpen:
    def test_what_goes_on_in_the_background_can_write_after_we_have_gone(self, tmp_path):
        told, go = tmp_path / "told", tmp_path / "go"
        ended = hook(
            f"(while [ ! -e {go} ]; do sleep 0.1; done; /bin/echo out; one=$?;"
            f" /bin/echo err >&2; echo $one $? > {told}) & echo done"
        )
        assert (ended.status, ended.output) == (0, b"done\n")
        go.touch()
        wait_for(lambda: text(told))
        assert told.read_text() == "0 0\n"

    def test_more_than_a_pipe_holds(self, tmp_path):
        told, go = tmp_path / "told", tmp_path / "go"
        hook(
            f"(while [ ! -e {go} ]; do sleep 0.1; done;"
            f" dd if=/dev/zero bs=65536 count=64 >&2 2> {tmp_path}/dd; echo $? > {told}) &"
        )
        go.touch()
        wait_for(lambda: text(told))
        assert told.read_text() == "0\n"

    @pytest.fixture
    def drain(self, tmp_path, monkeypatch):
        """What tells of itself and then drains as the real one does."""
        script = tmp_path / "drain"
        script.write_text(
            f"#!/bin/sh\necho $$ $(pwd) > {tmp_path}/$$.begun\n"
            f"cat; echo > {tmp_path}/$$.ended\n"
        )
        script.chmod(0o755)
        shell, option, words = process.DRAIN
        assert words.count("/bin/cat ") == 1
        drain = (shell, option, words.replace("/bin/cat", str(script)))
        monkeypatch.setattr(process, "DRAIN", drain)
        return tmp_path

    def test_what_drains_ends_with_what_writes(self, drain):
        go = drain / "go"
        ready = f"{drain}/ready"
        hook(
            f"(exec > /dev/null; : > {ready}; while [ ! -e {go} ]; do sleep 0.1; done) &"
            f" while [ ! -e {ready} ]; do sleep 0.1; done"
        )
        wait_for(lambda: any(map(text, drain.glob("*.begun"))))
        # One pipe is held, and one is not.
        (begun,) = drain.glob("*.begun")
        pid, directory = begun.read_text().split()
        assert directory == "/"
        assert os.getsid(int(pid)) != os.getsid(0)
        assert not list(drain.glob("*.ended"))
        go.touch()
        wait_for(lambda: list(drain.glob("*.ended")))

    def test_nothing_stays_where_nothing_was_left(self, drain):
        hook("echo out; echo err >&2; (sleep 0.1; echo out) & wait")
        ready = f"{drain}/ready"
        hook(
            f"(exec > /dev/null 2>&1; : > {ready}; sleep 1) &"
            f" while [ ! -e {ready} ]; do sleep 0.1; done"
        )
        assert not list(drain.glob("*.begun"))

    def test_nothing_of_ours_stays_open_in_it(self, drain):
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        go = drain / "go"
        try:
            hook(f"(while [ ! -e {go} ]; do sleep 0.1; done) &")
            wait_for(lambda: any(map(text, drain.glob("*.begun"))))
        finally:
            os.close(writer)
        try:
            assert os.read(reader, 1) == b""
        finally:
            os.close(reader)
            go.touch()

    def test_the_client_leaves_nothing(self, drain):
        """What it left running is ended when the view is taken down."""
        words = ["/bin/sh", "-c", f"sleep 1; exec sleep 5 & echo > {drain}/done"]
        process.run(Door(), words, ENVIRONMENT, Signals(), KEPT)
        assert not list(drain.glob("*.begun"))

    def test_a_hook_is_good_where_nothing_can_be_started_any_more(self, drain, monkeypatch):
        start = Door.start

        def refuse(door, argv, **options):
            if argv == process.DRAIN:
                raise CommandFailed(argv, "cannot be started")
            return start(door, argv, **options)

        monkeypatch.setattr(Door, "start", refuse)
        assert hook("sleep 1 &").status == 0


def test_a_hook_at_a_terminal_writes_to_it_itself(tmp_path):
    """There is no pipe then, and nothing to keep open."""
    file = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT, 0o600)
    before = os.dup(1)
    os.dup2(file, 1)
    try:
        argv = ["/bin/sh", "-c", "echo seen; umask"]
        ended = process.run_hook(
            Door(umask=0o002), argv, ENVIRONMENT, Signals(), Streams(capture=False)
        )
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(file)
    assert (ended.status, ended.output) == (0, b"")
    assert (tmp_path / "out").read_text() == "seen\n0002\n"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


class TestTold:
    """A hook that is told something on its standard input, with a limit of time."""

    def run(self, script: str, told: bytes = b"told", limit: float = 60, signals=None) -> Ended:
        return process.run_told(
            Door(), ["/bin/sh", "-c", script], ENVIRONMENT, signals or Signals(),
            Streams(output=None, messages=None), told, limit,
        )  # fmt: skip

    def test_it_reads_all_of_it_and_its_end(self):
        assert self.run("cat; echo; echo done").output == b"told\ndone\n"

    def test_more_than_a_pipe_holds(self):
        assert self.run("wc -c", b"x" * 3_000_000).output.split() == [b"3000000"]

    def test_it_need_not_read(self):
        assert self.run("exit 3", b"x" * 3_000_000).status == 3
        assert self.run("exec <&-; echo done", b"x" * 3_000_000).output == b"done\n"

    def test_what_it_leaves_unread_in_the_background_keeps_nobody(self, tmp_path):
        ended = self.run(f"sleep 1000 <&0 & echo $! > {tmp_path}/pid", b"x" * 3_000_000)
        assert ended.status == 0
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)

    def test_at_its_limit_it_is_asked_to_end_with_all_that_it_runs(self):
        signals = Signals()
        script = "trap 'echo sorry; exit 5' TERM; sleep 1000; echo no"
        ended = self.run(script, limit=0.3, signals=signals)
        assert (ended.status, ended.output) == (5, b"sorry\n")
        assert signals.overdue

    def test_and_ended_by_force_if_it_does_not(self, monkeypatch):
        monkeypatch.setattr(process, "GRACE", 0.2)
        signals = Signals()
        ended = self.run("trap '' TERM; while :; do sleep 1; done", limit=0.2, signals=signals)
        assert ended.status == -signal.SIGKILL
        assert signals.overdue

    def test_within_its_limit_nothing_is_overdue(self):
        signals = Signals()
        self.run("true", signals=signals)
        assert not signals.overdue
