"""The one door: time limits, failures, what is shown."""

import sys

import pytest

from kopiatomic.system import command
from kopiatomic.system.command import CommandFailed, Door, chunks, printable, quote


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


class TestRun:
    def test_returns_both_streams(self):
        result = Door().run(python("import sys; print('out'); print('err', file=sys.stderr)"))
        assert (result.stdout, result.stderr, result.status) == ("out\n", "err\n", 0)

    def test_gives_text_as_standard_input(self):
        result = Door().run(python("print(input())"), text="grüße\n")
        assert result.stdout == "grüße\n"

    def test_otherwise_standard_input_is_empty(self):
        assert Door().run(python("import sys; print(repr(sys.stdin.read()))")).stdout == "''\n"

    def test_bytes_that_are_no_text_survive(self):
        result = Door().run(python(r"import os; os.write(1, b'\xff\n')"))
        assert command.encode(result.stdout) == b"\xff\n"

    def test_the_callers_environment_is_not_passed_on(self, monkeypatch):
        monkeypatch.setenv("LD_LIBRARY_PATH", "/evil")
        result = Door().run(python("import os; print(sorted(os.environ))"))
        assert "LD_LIBRARY_PATH" not in result.stdout

    def test_failure_is_told_in_one_line(self):
        with pytest.raises(CommandFailed) as caught:
            Door().run(python("import sys; sys.exit('first\\nsecond')"))
        assert str(caught.value).endswith(": first; second (exit status 1)")

    def test_a_program_that_is_not_there(self):
        with pytest.raises(CommandFailed, match="No such file or directory"):
            Door().run(["/nonexistent/zfs", "list"])

    def test_a_nul_in_an_argument(self):
        with pytest.raises(CommandFailed, match="null byte"):
            Door().run(["true", "a\0b"])

    def test_a_program_that_hangs_is_killed(self):
        with pytest.raises(CommandFailed, match=r"did not end within 0\.2 s"):
            Door().run(python("import time; time.sleep(60)"), time_limit=0.2)

    def test_death_by_signal_is_told(self):
        with pytest.raises(CommandFailed, match="killed by SIGKILL"):
            Door().run(python("import os; os.kill(os.getpid(), 9)"))

    def test_trace(self):
        told = []
        Door(told.append).run(python("pass"))
        assert told == [f"+ {quote(python('pass'))}"]


def test_printable_shows_what_cannot_be_seen():
    assert printable("a b") == "a b"
    assert printable("a\tb\n\x1b[1m\udcff") == "a\\x09b\\x0a\\x1b[1m\\xff"


def test_quote_counts_what_it_leaves_out():
    assert quote(["zfs", "a b", "c", "d"], limit=2) == "zfs 'a b' ... (2 more)"


def test_chunks_keep_order_and_fit():
    words = [f"/view/{'x' * 100}/{number}" for number in range(1000)]
    parts = chunks(words, limit=5000)
    assert [word for part in parts for word in part] == words
    assert all(command.argument_bytes(part) <= 5000 for part in parts)
    assert chunks([]) == []
    assert chunks(["x" * 100], limit=10) == [["x" * 100]]
