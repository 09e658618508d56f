"""Running the user's programs: output carried on, signals passed, nothing waited for in vain."""

import os
import signal
import sys
import threading
import time

import pytest

from kopiatomic.system import process
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.process import Interrupted, Signals, Streams

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
        began = time.monotonic()
        ended = run("import os, time\nif os.fork() == 0: time.sleep(30)\nelse: print('done')")
        assert time.monotonic() - began < 5
        assert ended.output == b"done\n"

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


def later(seconds, signum):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signum))
    timer.start()
    return timer


SLEEPER = """
import signal, sys, time
def leave(signum, frame):
    print('got', signum, flush=True)
    sys.exit(7)
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, leave)
print('ready', flush=True)
time.sleep(30)
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
time.sleep(30)
"""


class TestSignals:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_are_passed_on(self, signum):
        with Signals() as signals:
            later(1.0, signum)
            ended = run(SLEEPER, signals=signals)
            assert ended.output == b"ready\ngot %d\n" % signum
            assert ended.status == 7
            with pytest.raises(Interrupted) as caught:
                signals.check()
        assert caught.value.signum == signum

    def test_force_comes_after_the_grace_period(self, monkeypatch):
        monkeypatch.setattr(process, "GRACE", 1.0)
        with Signals() as signals:
            later(1.0, signal.SIGTERM)
            began = time.monotonic()
            assert run(STUBBORN, signals=signals).status == -signal.SIGKILL
        assert 1.5 < time.monotonic() - began < 10

    def test_force_comes_with_the_second_signal(self):
        with Signals() as signals:
            later(1.0, signal.SIGTERM)
            later(1.3, signal.SIGTERM)
            assert run(STUBBORN, signals=signals).status == -signal.SIGKILL

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
