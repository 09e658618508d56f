"""What is asked of zfs(8), and how its answers are read."""

import pytest

from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import Dataset

DOOR = Door()
LIST = (
    "zfs list -Hp -t filesystem,volume "
    "-o name,type,mounted,canmount,jailed,keystatus,org.kopiatomic:backup"
)


def issued(fp):
    return [list(call) for call in fp.calls]


class TestList:
    def test_reads_every_column(self, fp):
        fp.register(
            LIST,
            stdout="zroot\tfilesystem\tno\ton\toff\t-\t-\n"
            "zroot/a b\tfilesystem\tyes\tnoauto\ton\tunavailable\toff\n"
            "zroot/vol\tvolume\t-\t-\t-\t-\t-\n",
        )
        assert zfs.list_datasets(DOOR) == [
            Dataset("zroot", "filesystem", False, "on", False, "-", "-"),
            Dataset("zroot/a b", "filesystem", True, "noauto", True, "unavailable", "off"),
            Dataset("zroot/vol", "volume", False, "-", False, "-", "-"),
        ]

    @pytest.mark.parametrize(
        "answer",
        ["garbage\n", "a\tb\tc\n", "t\tfilesystem\tyes\ton\toff\t-\t-\n" * 2, "\x00\xff\t\n"],
    )
    def test_refuses_what_is_no_list(self, fp, answer):
        fp.register(LIST, stdout=answer)
        with pytest.raises(CommandFailed, match="not understood"):
            zfs.list_datasets(DOOR)

    def test_tells_why_it_failed(self, fp):
        fp.register(LIST, returncode=1, stderr="internal error: out of memory\n")
        with pytest.raises(CommandFailed, match=r"out of memory \(exit status 1\)$"):
            zfs.list_datasets(DOOR)


class TestSnapshot:
    def test_one_command_for_all(self, fp):
        command = ["zfs", "snapshot", "-o", "org.kopiatomic:run=R", "t/a@s", "t/b c@s"]
        fp.register(command)
        zfs.snapshot(DOOR, ["t/a@s", "t/b c@s"], "R")
        assert issued(fp) == [command]

    def test_failure_names_the_reason(self, fp):
        fp.register(
            ["zfs", fp.any()], returncode=1,
            stderr="cannot create snapshots : out of space\nno snapshots were created\n",
        )  # fmt: skip
        with pytest.raises(CommandFailed) as caught:
            zfs.snapshot(DOOR, ["t@s"], "R")
        assert caught.value.reason == (
            "cannot create snapshots : out of space; no snapshots were created (exit status 1)"
        )

    def names(self):
        return [f"tank/{'x' * 190}/{number}@restomic-20261123T000000Z-0" for number in range(3000)]

    def test_more_than_a_command_line_holds_goes_through_a_channel_program(self, fp):
        fp.register(["zfs", "program", fp.any()], stdout='{"return":3000}\n')
        zfs.snapshot(DOOR, self.names(), "R")
        assert len(issued(fp)) == 1
        assert issued(fp)[0][-2:] == ["tank", "-"]

    def test_a_channel_program_that_made_none_is_a_failure(self, fp):
        fp.register(["zfs", fp.any()], stdout='{"return":{"tank/b@s":17,"tank/a@s":17}}')
        with pytest.raises(CommandFailed, match=r"2 snapshots.*'tank/a@s': dataset already exists"):
            zfs.snapshot(DOOR, self.names(), "R")

    @pytest.mark.parametrize("answer", ["", "[]", '{"return":2}', "null", '{"x":1}'])
    def test_a_channel_program_with_an_odd_answer_is_a_failure(self, fp, answer):
        fp.register(["zfs", fp.any()], stdout=answer)
        with pytest.raises(CommandFailed):
            zfs.snapshot(DOOR, self.names(), "R")

    def test_the_programs_text_checks_all_before_it_makes_any(self):
        text = zfs.channel_program(["t/a@s", 't/"\\\n@s'], "R")
        assert '"t/a@s"' in text
        assert r'"t/\034\092\010@s"' in text
        assert text.index("zfs.check.snapshot") < text.index("zfs.sync.snapshot")

    def test_by_pool(self):
        assert zfs.by_pool(["b@s", "a/x@s", "b/y@s"]) == {"a": ["a/x@s"], "b": ["b/y@s", "b@s"]}


class TestOwnSnapshots:
    COMMAND = "zfs get -Hp -t snapshot -s local -o name,value org.kopiatomic:run"

    def test_only_the_jobs_own(self, fp):
        fp.register(
            self.COMMAND,
            stdout="t@a\trestomic:default:1\nt@b\trestomic:other:2\n"
            "t@c\tkopiatomic:default:3\nt@d\trestomic:default:4\nt\trestomic:default:5\n",
        )
        assert zfs.own_snapshots(DOOR, "restomic:default:") == ["t@a", "t@d"]


class TestDestroy:
    def test_one_by_its_name(self, fp):
        fp.register("zfs destroy t/a@s")
        assert zfs.destroy(DOOR, ["t/a@s"]) == zfs.Destroyed()

    def test_several_of_a_pool_with_one_command_after_asking(self, fp):
        fp.register("zfs destroy -nvp -r t/a@s", stdout="destroy\tt/a/x@s\ndestroy\tt/a@s\n")
        fp.register("zfs destroy -r t/a@s")
        assert zfs.destroy(DOOR, ["t/a@s", "t/a/x@s"]) == zfs.Destroyed()
        assert len(issued(fp)) == 2

    def test_each_pool_with_its_own(self, fp):
        fp.register("zfs destroy t@s")
        fp.register("zfs destroy u@s")
        assert zfs.destroy(DOOR, ["t@s", "u@s"]) == zfs.Destroyed()

    def test_a_foreign_snapshot_of_the_same_name_is_spared(self, fp):
        fp.register(
            "zfs destroy -nvp -r t@s",
            stdout="destroy\tt/a@s\ndestroy\tt/b@s\ndestroy\tt/theirs@s\n",
        )
        fp.register("zfs destroy t/a@s")
        fp.register("zfs destroy t/b@s")
        assert zfs.destroy(DOOR, ["t/a@s", "t/b@s"]) == zfs.Destroyed()

    def test_what_is_gone_is_no_problem(self, fp):
        gone = "could not find any snapshots to destroy; check snapshot names.\n"
        fp.register("zfs destroy -nvp -r t@s", returncode=1, stderr=gone)
        assert zfs.destroy(DOOR, ["t/a@s", "t/b@s"]).missing == ("t/a@s", "t/b@s")
        fp.register("zfs destroy t/a@s", returncode=1, stderr=gone)
        assert zfs.destroy(DOOR, ["t/a@s"]) == zfs.Destroyed(missing=("t/a@s",))

    def test_if_one_is_busy_the_others_go(self, fp):
        busy = "cannot destroy snapshot t/b@s: dataset is busy\n"
        fp.register("zfs destroy -nvp -r t@s", stdout="destroy\tt/a@s\ndestroy\tt/b@s\n")
        fp.register("zfs destroy -r t@s", returncode=1, stderr=busy)
        fp.register("zfs destroy t/a@s")
        fp.register("zfs destroy t/b@s", returncode=1, stderr=busy)
        left = zfs.destroy(DOOR, ["t/a@s", "t/b@s"]).left
        assert [each.name for each in left] == ["t/b@s"]
        assert "dataset is busy" in left[0].reason

    def test_a_dataset_is_never_destroyed(self, fp):
        with pytest.raises(ValueError, match="only snapshots"):
            zfs.destroy(DOOR, ["t/a@s", "t/b"])
        assert issued(fp) == []

    def test_nothing_to_do(self, fp):
        assert zfs.destroy(DOOR, []) == zfs.Destroyed()
