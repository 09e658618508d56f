"""The one door: time limits, failures, what is shown."""

import errno
import os
import sys

import pytest
from support.libc import FORCE, mounted

from kopiatomic.system import command
from kopiatomic.system.command import (
    ENVIRONMENT,
    CommandFailed,
    Door,
    MountRefused,
    chunks,
    printable,
    quote,
)


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


class TestMounts:
    """By system call where there is one; by a program otherwise, and never by both."""

    ARGV = ("mount_nullfs", "-o", "ro", "/a", "/v/a")
    OPTIONS = {"fstype": "nullfs", "fspath": ".", "target": "/a", "ro": ""}  # noqa: RUF012

    def test_a_call_is_traced_as_the_program_that_it_spares(self, library, fp):
        told = []
        door = Door(told.append, library.kernel())
        door.mount(self.ARGV, self.OPTIONS, 0x800000, time_limit=9)
        assert told == ["+ mount_nullfs -o ro /a /v/a"]
        assert library.given == [(self.OPTIONS, 0x800000)]
        assert not fp.calls

    def test_where_it_refuses_no_program_is_asked_to_follow_a_path(self, library, fp):
        library.refusals["nmount"] = [errno.EDEADLK]
        with pytest.raises(MountRefused, match=r"^mount_nullfs .*: Resource deadlock") as caught:
            Door(kernel=library.kernel()).mount(self.ARGV, self.OPTIONS, time_limit=9)
        assert caught.value.number == errno.EDEADLK
        assert not fp.calls

    def test_without_such_a_call(self, fp):
        fp.register(self.ARGV, returncode=1, stderr="mount_nullfs: /v/a: Operation not permitted")
        with pytest.raises(CommandFailed, match="Operation not permitted") as caught:
            Door().mount(self.ARGV, self.OPTIONS, time_limit=9)
        assert not isinstance(caught.value, MountRefused)

    def test_one_is_unmounted_by_the_number_of_its_file_system(self, library, fp):
        library.table = [mounted(b"/a", b"/v/a", b"nullfs", (3, 4))]
        told = []
        door = Door(told.append, library.kernel())
        door.unmount("/v/a", (3, 4), force=True)
        assert told == ["+ umount -f /v/a"]
        assert library.unmounted == [((3, 4), FORCE)]
        with pytest.raises(CommandFailed, match=r"^umount /v/a: No such file or directory$"):
            door.unmount("/v/a", (3, 4))
        assert not fp.calls

    def test_by_its_name_where_that_is_not_known(self, library, fp):
        fp.register("umount -f /v/a")
        Door().unmount("/v/a", (3, 4), force=True)
        fp.register("umount /v/a", returncode=1, stderr="umount: unmount of /v/a failed: busy")
        with pytest.raises(CommandFailed, match="busy"):
            Door(kernel=library.kernel()).unmount("/v/a", None)
        assert len(fp.calls) == 2
        assert library.unmounted == []


class TestAnotherRoot:
    def test_a_program_begins_there(self, monkeypatch, tmp_path):
        """The child does so itself, just before it becomes the program."""
        monkeypatch.setattr(os, "chroot", lambda root: (tmp_path / "root").write_text(root))
        told = []
        here = os.getcwd()
        with Door(told.append).start(
            python(f"import os; open('{tmp_path}/here', 'w').write(os.getcwd())"),
            environment=ENVIRONMENT, root="/v i",
        ) as process:  # fmt: skip
            assert process.wait() == 0
        assert (tmp_path / "root").read_text() == "/v i"
        assert (tmp_path / "here").read_text() == "/"
        assert told[0].startswith("+ chroot '/v i' ")
        assert os.getcwd() == here

    def test_where_there_is_none(self, tmp_path):
        with pytest.raises(CommandFailed, match="cannot be started"):
            Door().start(["true"], environment=ENVIRONMENT, root=str(tmp_path / "none"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    def test_the_program_is_looked_up_there(self, tmp_path):
        with pytest.raises(CommandFailed, match="No such file or directory"):
            Door().start([sys.executable], environment=ENVIRONMENT, root=str(tmp_path))


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
