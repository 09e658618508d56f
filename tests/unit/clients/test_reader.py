"""Reading what the client prints."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from kopiatomic import state
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.process import Interrupted, Signals


@pytest.fixture
def reader(place):
    """A reader of a client that is a line of Python."""
    state.private_directory(state.STATE_DIRECTORY)
    with Signals() as signals:
        yield Reader(Door(), [sys.executable, "-c"], os.environ, signals)


def test_a_listing_is_read_as_it_comes(reader):
    code = "import sys\nfor i in range(100000): print('x' * 50)\nprint('end', end='')"
    lines = list(reader.lines(code))
    assert len(lines) == 100_001
    assert lines[-1] == b"end"


def test_a_listing_left_early_ends_the_client(reader):
    code = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(3600)"
    lines = reader.lines(code)
    client = int(next(lines))
    lines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(client, 0)


def test_all_of_it(reader):
    assert reader.whole("print('a'); print('b')") == b"a\nb\n"


def test_its_words_are_added(reader):
    code = "import sys; print(*sys.argv[1:], sep='|')"
    assert reader.whole(code, "one two", "") == b"one two|\n"


def test_into_a_file(reader, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        reader.into(file.fileno(), "import os; os.write(1, b'\\xff' * 300_000)")
    assert (tmp_path / "file").read_bytes() == b"\xff" * 300_000


class TestBeginning:
    def test_all_where_there_is_no_more(self, reader):
        assert b"".join(reader.beginning(10, "print('abc')")) == b"abc\n"

    def test_and_no_more_than_was_asked_for(self, reader, tmp_path):
        """The client is asked to end, so that it can remove its lock."""
        code = (
            "import os, signal, time\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / 'ended')!r}, 'w'),"
            " os._exit(0)))\n"
            "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
            "while True:\n"
            "    try: os.write(1, b'x' * 65536)\n"
            "    except OSError: time.sleep(0.01)\n"
        )
        read = b"".join(reader.beginning(1_000_001, code))
        assert read == b"x" * 1_000_001
        assert (tmp_path / "ended").exists()

    def test_without_what_a_wrapper_prints_before(self, reader):
        reader.preface = b"Hello!\n\nAsking:\n"
        code = "import os, sys; os.write(1, b'Bye!\\n\\nAsking:\\n' + b'\\n' * int(sys.argv[1]))"
        assert b"".join(reader.beginning(3, code, "2")) == b"\n\n"
        assert b"".join(reader.beginning(3, code, "9")) == b"\n\n\n"

    def test_a_failure(self, reader):
        with pytest.raises(ClientFailed):
            list(reader.beginning(10_000, FAILS))


FAILS = r"""
import sys
print('out')
print('one\n\ntwo\n three\x1b', file=sys.stderr)
sys.exit(5)
"""


class TestFailure:
    def test_is_told_with_the_end_of_what_the_client_said(self, reader):
        with pytest.raises(ClientFailed) as caught:
            reader.whole(FAILS)
        assert caught.value.status == 5
        assert str(caught.value).endswith(": two; three\\x1b (exit status 5)")
        assert str(caught.value).startswith(os.path.basename(sys.executable))

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ('{"message_type": "exit_error", "message": "Fatal: no\\nsuch"}', "Fatal: no"),
            ('{"message": 7}', '{"message": 7}'), ('{"x": 1}', '{"x": 1}'), ("[1]", "[1]"),
            ("{", "{"), ('{"message": ""}', '{"message": ""}'),
        ],
    )  # fmt: skip
    def test_of_a_message_in_json_the_words_are_told(self, reader, line, told):
        with pytest.raises(ClientFailed) as caught:
            reader.whole(f"import sys; sys.stderr.write({line!r}); sys.exit(5)")
        assert str(caught.value).endswith(f": {told} (exit status 5)")

    def test_comes_after_the_lines(self, reader):
        lines = reader.lines(FAILS)
        assert next(lines) == b"out"
        with pytest.raises(ClientFailed):
            next(lines)

    def test_into_a_file(self, reader, tmp_path):
        with open(tmp_path / "file", "wb") as file, pytest.raises(ClientFailed):
            reader.into(file.fileno(), FAILS)

    def test_by_a_signal(self, reader):
        with pytest.raises(ClientFailed, match="killed by SIGKILL") as caught:
            reader.whole("import os; os.kill(os.getpid(), 9)")
        assert caught.value.status == -9

    def test_of_a_client_that_cannot_be_started(self, reader):
        gone = Reader(reader.door, ["/no/such"], {}, reader.signals)
        with pytest.raises(CommandFailed, match="cannot be started"):
            gone.whole("x")


@pytest.mark.parametrize("way", ["whole", "into"])
def test_a_signal_ends_the_client(surviving, reader, tmp_path, way):
    told = tmp_path / "told"
    code = (
        "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60);"
        f" open({str(told)!r}, 'w')"
    )
    with open(tmp_path / "file", "wb") as file, pytest.raises(Interrupted):
        reader.whole(code) if way == "whole" else reader.into(file.fileno(), code)
    assert not told.exists()


def test_what_the_client_says_is_kept_where_only_root_can_read(reader, monkeypatch):
    """And nothing of it stays."""
    seen = []
    made = tempfile.TemporaryFile

    def temporary(**options):
        seen.append(options["dir"])
        return made(**options)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    reader.whole("")
    assert seen == [state.STATE_DIRECTORY]
    assert os.listdir(state.STATE_DIRECTORY) == []


class TestTimeLimit:
    @pytest.fixture(autouse=True)
    def _state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path))

    def reader(self, script: str, limit: float | None) -> Reader:
        return Reader(Door(), ["/bin/sh", "-c", script, "client"], os.environ, Signals(), limit)

    @pytest.mark.parametrize("script", ["sleep 60", "echo x; sleep 60 & sleep 60", "trap '' TERM; "
                                        "sleep 0.1; while :; do sleep 1; done"])  # fmt: skip
    def test_a_client_that_hangs_is_ended(self, script: str, monkeypatch, tmp_path: Path):
        monkeypatch.setattr("kopiatomic.clients.reader.GRACE", 0.3)
        reader = self.reader(script, 0.2)
        for ask in (lambda: reader.whole("ls"), lambda: list(reader.lines("ls"))):
            with pytest.raises(ClientFailed, match=r"sh ls: did not answer within 0\.2 s"):
                ask()
        with open(tmp_path / "file", "wb") as file, pytest.raises(ClientFailed, match="answer"):
            reader.into(file.fileno(), "dump")

    def test_one_that_does_not_hang_is_not(self):
        assert self.reader("echo x", 60.0).whole("ls") == b"x\n"
        assert self.reader("echo x", None).whole("ls") == b"x\n"

    @pytest.mark.parametrize(("preface", "written", "size", "start"), [
        (b"", b"content", 7, 0), (b"a\n", b"a\ncontent", 7, 2), (b"a\n", b"content", 7, 0),
        (b"1\n2\n", b"33\n4\ncontent", 7, 5), (b"a\n", b"a\nshort", 7, 2),
        (b"a\n", b"b\nshort", 7, 0), (b"a\n", b"a\na\n", 2, 2), (b"a\n", b"a\n", 0, 2),
    ])  # fmt: skip
    def test_where_the_content_begins(
        self, preface: bytes, written: bytes, size: int, start: int, tmp_path: Path
    ):
        reader = self.reader("", None)
        reader.preface = preface
        with open(tmp_path / "file", "w+b") as file:
            file.write(written)
            file.flush()
            assert reader.begins_at(file.fileno(), size) == start
