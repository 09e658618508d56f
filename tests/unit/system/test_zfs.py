"""What is asked of zfs(8), and how its answers are read."""

import pytest
from pytest_subprocess import FakeProcess

from kopiatomic.system import zfs
from kopiatomic.system.command import (
    CommandFailed,
    Door,
    GivenUp,
    Result,
    argument_bytes,
    fits,
)
from kopiatomic.system.machine import Dataset

DOOR = Door()
CLONE = "restomic-20261127T030000Z-0123456789ab.0"
LIST = (
    "zfs list -Hp -t filesystem,volume "
    "-o name,type,mounted,canmount,jailed,org.kopiatomic:backup,mountpoint,keystatus"
)

# Answers to any channel program: the wildcard stands for the words that follow.
PROGRAM = ("zfs", "program", FakeProcess.any())


def issued(fp):
    return [list(call) for call in fp.calls]


class TestList:
    def test_reads_every_column(self, fp):
        fp.register(
            LIST,
            stdout="zroot\tfilesystem\tno\ton\toff\t-\tnone\t-\n"
            "zroot/a b\tfilesystem\tyes\tnoauto\ton\toff\t/a b\tunavailable\n"
            "zroot/vol\tvolume\t-\t-\t-\t-\t-\t-\n",
        )
        assert zfs.list_datasets(DOOR) == [
            Dataset("zroot", "filesystem", False, "on", False, "-", "-", "none"),
            Dataset("zroot/a b", "filesystem", True, "noauto", True, "unavailable", "off", "/a b"),
            Dataset("zroot/vol", "volume", False, "-", False, "-", "-", "-"),
        ]

    def test_a_mount_point_may_hold_what_separates_the_columns(self, fp):
        odd = "/a\tb\nc\n/d"
        lines = (f"t/{n}\tfilesystem\tyes\ton\toff\t-\t{p}\t-\n" for n, p in enumerate((odd, "/e")))
        fp.register(LIST, stdout="".join(lines))
        assert [each.mountpoint for each in zfs.list_datasets(DOOR)] == [odd, "/e"]

    @pytest.mark.parametrize(
        ("names", "recursive", "words"),
        [
            ((), True, LIST),
            (("t/a", "t/b"), False, f"{LIST} t/a t/b"),
            (("t/a",), True, f"{LIST} t/a".replace("-Hp", "-Hp -r")),
        ],
    )
    def test_lists_what_it_is_asked_for(self, fp, names, recursive, words):
        fp.register(words, stdout="t/a\tfilesystem\tyes\ton\toff\t-\t/x\t-\n")
        assert [each.name for each in zfs.list_datasets(DOOR, names, recursive)] == ["t/a"]

    @pytest.mark.parametrize(
        "answer",
        [
            "garbage\n", "a\tb\tc\n", "t\tfilesystem\tyes\ton\toff\t-\t/x\t-\n" * 2,
            "\x00\xff\t\n", "t\tfilesystem\tyes\n",
            "t\tfilesystem\tyes\nt/x\tfilesystem\tyes\ton\toff\t-\t/x\t-\n",
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_list(self, fp, answer):
        fp.register(LIST, stdout=answer)
        with pytest.raises(CommandFailed, match=r"not understood|twice"):
            zfs.list_datasets(DOOR)

    def test_a_volume_belongs_to_the_jail_that_it_is_in(self, fp):
        """It has no property jailed of its own: FreeBSD 14.2 shows a dash."""
        rows = [("t", "filesystem", "off"), ("t/a", "volume", "-"), ("t/jl", "filesystem", "on"),
                ("t/jl/vol", "volume", "-")]  # fmt: skip
        lines = [f"{name}\t{kind}\t-\t-\t{jailed}\t-\t-\t-\n" for name, kind, jailed in rows]
        fp.register(LIST, stdout="".join(lines))
        assert [each.jailed for each in zfs.list_datasets(DOOR)] == [False, False, True, True]

    def test_looks_for_the_end_of_a_mount_point_no_further_than_one_may_go(self, fp):
        whole = "t\tfilesystem\tyes\ton\toff\t-\t/x{}\t-\n"
        fp.register(LIST, stdout=whole.format("\ny" * 4000))
        assert len(zfs.list_datasets(DOOR)[0].mountpoint) == 8002
        fp.register(LIST, stdout=whole.format("\ny" * 40000))
        with pytest.raises(CommandFailed, match="not understood"):
            zfs.list_datasets(DOOR)

    def test_tells_why_it_failed(self, fp):
        fp.register(LIST, returncode=1, stderr="internal error: out of memory\n")
        with pytest.raises(CommandFailed, match=r"out of memory \(exit status 1\)$"):
            zfs.list_datasets(DOOR)


class TestSnapshot:
    NAMES = ("t/a@s", "t/b c@s")

    def test_one_channel_program_for_all_of_a_pool(self, fp):
        fp.register(PROGRAM, stdout='{"return":{}}\n')
        assert zfs.snapshot(DOOR, self.NAMES, "R") == {}
        assert issued(fp) == [
            ["zfs", "program", "-j", "-t", "100000000", "-m", "104857600", "t", "-"]
        ]

    def test_it_is_given_the_text_and_no_name_as_an_argument(self):
        """However many names there are: a command line has an end, standard input has none."""
        given = []

        class Told(Door):
            def run(self, argv, *, text=None, **_):
                given.append((argv, text))
                return Result(tuple(argv), 0, '{"return":[]}', "")

        names = [f"tank/{'x' * 190}/{number}@restomic-1" for number in range(3000)]
        assert zfs.snapshot(Told(), names, "R") == {}
        ((argv, text),) = given
        assert text == zfs.snapshot_program(names, "R")
        assert fits(argv)
        assert not fits(names)

    def test_those_that_cannot_be_made_are_told_with_their_numbers(self, fp):
        fp.register(PROGRAM, stdout='{"return":{"t/b c@s":28}}')
        assert zfs.snapshot(DOOR, self.NAMES, "R") == {"t/b c@s": 28}

    JAIL = Door(jailed=True)

    def test_in_a_jail_by_one_command_for_all(self, fp):
        """No jail can run a channel program."""
        fp.register(["zfs", "snapshot", fp.any()])
        assert zfs.snapshot(self.JAIL, self.NAMES, "R") == {}
        assert issued(fp) == [zfs.snapshot_command(self.NAMES, "R")]

    @pytest.mark.parametrize(
        ("said", "number"),
        [
            (f"cannot create snapshot '{NAMES[0]}': out of space\nno snapshots were created", 28),
            (f"cannot open '{NAMES[0].partition('@')[0]}': dataset does not exist\nusage:", 2),
        ],
    )
    def test_in_a_jail_again_without_those_that_cannot_be_made(self, fp, said, number):
        fp.register(["zfs", "snapshot", fp.any()], returncode=1, stderr=said)
        fp.register(["zfs", "snapshot", fp.any()])
        assert zfs.snapshot(self.JAIL, self.NAMES, "R") == {self.NAMES[0]: number}
        assert issued(fp)[1] == zfs.snapshot_command(self.NAMES[1:], "R")

    @pytest.mark.parametrize(
        "said", ["cannot create snapshots : permission denied", "", "cannot open 'x': odd"]
    )
    def test_in_a_jail_other_reasons_are_told(self, fp, said):
        fp.register(["zfs", "snapshot", fp.any()], returncode=1, stderr=said)
        with pytest.raises(CommandFailed, match=said or "exit status 1"):
            zfs.snapshot(self.JAIL, self.NAMES, "R")
        assert len(fp.calls) == 1

    def test_in_a_jail_more_names_than_a_command_takes(self, fp):
        names = [f"tank/{'x' * 190}/{number}@restomic-1" for number in range(3000)]
        with pytest.raises(CommandFailed, match="3000 names are too many for one command"):
            zfs.snapshot(self.JAIL, names, "R")
        assert not fp.calls

    def test_in_a_jail_each_is_destroyed_by_itself(self, fp):
        fp.register(["zfs", "destroy", fp.any()], occurrences=9)
        assert zfs.destroy(self.JAIL, self.NAMES) == zfs.Destroyed()
        assert issued(fp) == [["zfs", "destroy", name] for name in sorted(self.NAMES)]

    def test_failure_names_the_reason(self, fp):
        fp.register(
            PROGRAM, returncode=1, stderr="Channel program execution failed: pool is read-only\n"
        )
        with pytest.raises(CommandFailed) as caught:
            zfs.snapshot(DOOR, self.NAMES, "R")
        assert caught.value.reason == (
            "Channel program execution failed: pool is read-only (exit status 1)"
        )

    @pytest.mark.parametrize(
        "answer",
        [
            "", "[]", '{"return":2}', "null", '{"x":1}', '{"return":{"t/other@s":2}}',
            '{"return":{"t/a@s":"2"}}', '{"return":"abc"}', '{"return":[[1]]}', "\0{",
            '{"return":' + "[" * 99999,
            '{"return":null}', '{"return":[[["t/a@s"],2]]}',
        ],
    )  # fmt: skip
    def test_a_channel_program_with_an_odd_answer_is_a_failure(self, fp, answer):
        fp.register(PROGRAM, stdout=answer)
        with pytest.raises(CommandFailed, match="printed something that is not its result"):
            zfs.snapshot(DOOR, self.NAMES, "R")

    def test_the_programs_text_checks_all_before_it_makes_any(self):
        text = zfs.snapshot_program(["t/a@s", 't/"\\\n@s', "t/é%d@s"], "R")
        assert '"t/a@s"' in text
        assert r'"t/\034\092\010@s"' in text
        assert r'"t/\195\169\037d@s"' in text
        assert '"org.kopiatomic:run", "R"' in text
        assert text.index("zfs.check.snapshot") < text.index("zfs.sync.snapshot")

    def test_the_command_that_a_dry_run_shows(self):
        assert zfs.snapshot_command(self.NAMES, "R") == [
            "zfs", "snapshot", "-o", "org.kopiatomic:run=R", *self.NAMES
        ]  # fmt: skip

    def test_by_pool(self):
        names = ["b@s", "a/x@s", "b/y@s", "ab@s", "a@s"]
        assert zfs.by_pool(names) == {
            "a": ["a/x@s", "a@s"], "ab": ["ab@s"], "b": ["b/y@s", "b@s"]
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("number", "reason"), [(2, "no such dataset"), (28, "out of space"), (30, "read-only"),
                               (69, "quota"), (999, "error 999")],
    )  # fmt: skip
    def test_numbers_in_words(self, number, reason):
        assert reason in zfs.reason_for(number)


class TestPools:
    COMMAND = "zpool list -Hp -o name,readonly,health"

    def test_what_can_be_the_matter_with_them(self, fp):
        fp.register(self.COMMAND, stdout="gp\ton\tONLINE\ntank\toff\tDEGRADED\nodd\n")
        assert zfs.pools(DOOR) == {
            "gp": zfs.Pool("gp", True, "ONLINE"), "tank": zfs.Pool("tank", False, "DEGRADED")
        }  # fmt: skip

    def test_nobody_knows(self, fp):
        fp.register(self.COMMAND, returncode=1, stderr="out of memory")
        with pytest.raises(CommandFailed, match="out of memory"):
            zfs.pools(DOOR)


class TestOwnSnapshots:
    NAMES = "zfs get -H -t snapshot,volume -s local -o name org.kopiatomic:run"
    GET = "zfs get -Hp -o name,source,value org.kopiatomic:run"

    def test_only_the_jobs_own(self, fp):
        fp.register(self.NAMES, stdout="t@a\nt@b\nt@c\nt@d\nt\n")
        fp.register(
            f"{self.GET} t@a t@b t@c t@d",
            stdout="t@a\tlocal\trestomic:default:1\nt@b\tlocal\trestomic:other:2\n"
            "t@c\tlocal\tkopiatomic:default:3\nt@d\tlocal\trestomic:default:4\n",
        )
        assert zfs.own_snapshots(DOOR, "restomic:default:") == ["t@a", "t@d"]

    def test_what_a_value_says_of_others_counts_for_nothing(self, fp):
        """Who may set a property of one dataset could have us destroy what is in another."""
        fp.register(self.NAMES, stdout="t/u@a\nt@b\n")
        lie = "t/u@a\tlocal\tx\nt@precious\tlocal\trestomic:default:1\n"
        fp.register(f"{self.GET} t/u@a t@b", stdout=f"{lie}t@b\tlocal\trestomic:default:2\n")
        assert zfs.own_snapshots(DOOR, "restomic:default:") == ["t@b"]


class TestMarkedAmong:
    LIST = "zfs list -H -o name -s name -t snapshot,volume"
    GET = "zfs get -Hp -o name,source,value org.kopiatomic:run"

    def test_the_property_is_asked_of_what_is_named_so_alone(self, fp):
        fp.register(self.LIST, stdout="t/restomic-x@daily\nt@restomic-1\nt@restomic-2\nt@x\n")
        text = "t@restomic-1\tlocal\ta:b:1\nt@restomic-2\t-\t-\n"
        fp.register(f"{self.GET} t@restomic-1 t@restomic-2", stdout=text)
        assert zfs.marked_among(DOOR, ("restomic-", "kopiatomic-")) == {"t@restomic-1": "a:b:1"}

    def test_of_none_nothing_is_asked(self, fp):
        fp.register(self.LIST, stdout="t@daily\n")
        assert zfs.marked_among(DOOR, ("restomic-",)) == {}
        assert len(fp.calls) == 1

    def test_more_than_a_command_line_takes(self, fp):
        names = [f"t/{'x' * 200}{number:05}@r-1" for number in range(3000)]
        fp.register(self.LIST, stdout="".join(f"{each}\n" for each in names))
        text = f"{names[0]}\tlocal\tm\n{names[-1]}\t-\t-\n"
        fp.register(["zfs", "get", fp.any()], occurrences=2, stdout=text)
        assert zfs.marked_among(DOOR, ("r-",)) == {names[0]: "m"}
        asked = [issued(fp)[1][6:], issued(fp)[2][6:]]
        assert asked[0] + asked[1] == names
        assert all(argument_bytes(call) < 450_000 for call in issued(fp))

    def test_one_that_has_gone_meanwhile_is_none(self, fp):
        fp.register(self.LIST, stdout="t@r-1\nt@r-2\n")
        gone = "cannot open 't@r-1': dataset does not exist\n"
        fp.register(f"{self.GET} t@r-1 t@r-2", returncode=1, stderr=gone,
                    stdout="t@r-2\tlocal\tm\n")  # fmt: skip
        assert zfs.marked_among(DOOR, ("r-",)) == {"t@r-2": "m"}

    ONE = "zfs get -Hp -s local -o value org.kopiatomic:run"

    def test_one_that_a_value_speaks_of_is_asked_for_alone(self, fp):
        """A newline in a value makes a line; each that was asked for has one of its own as well."""
        fp.register(self.LIST, stdout="t/u@r-1\nt@r-2\nt@r-3\n")
        lie = "t/u@r-1\tlocal\tm\nt@r-2\tlocal\tm\nt@r-3\tlocal\tx\n"
        fp.register(f"{self.GET} t/u@r-1 t@r-2 t@r-3",
                    stdout=f"{lie}t@r-2\treceived\tm\nt@r-3\tlocal\tm3\n")  # fmt: skip
        fp.register(f"{self.ONE} t@r-2")
        fp.register(f"{self.ONE} t@r-3", stdout="m3\n")
        assert zfs.marked_among(DOOR, ("r-",)) == {"t/u@r-1": "m", "t@r-3": "m3"}

    def test_a_mark_of_several_lines_is_none(self, fp):
        fp.register(self.LIST, stdout="t/u@r-1\n")
        lie = "t/u@r-1\tlocal\tm\nt/u@r-1\tlocal\tm\n"
        fp.register(f"{self.GET} t/u@r-1", stdout=lie)
        fp.register(f"{self.ONE} t/u@r-1", stdout="m\nt/u@r-1\tlocal\tm\n")
        assert zfs.marked_among(DOOR, ("r-",)) == {}

    @pytest.mark.parametrize("source", ["received", "inherited from t", "-", "default"])
    def test_a_mark_that_was_not_set_here_is_none(self, fp, source):
        fp.register(self.LIST, stdout="t@r-1\n")
        fp.register(f"{self.GET} t@r-1", stdout=f"t@r-1\t{source}\tm\n")
        assert zfs.marked_among(DOOR, ("r-",)) == {}

    def test_clones_of_volumes_are_among_them(self, fp):
        ours, theirs = f"t/{CLONE}", f"t/vm/{CLONE}"
        fp.register(self.LIST, stdout=f"t/swap\n{ours}\n{ours}@auto\n{theirs}\nt/vol@r-1\n")
        text = f"{ours}\tlocal\tm\nt/vol@r-1\tlocal\tm\n"
        fp.register(f"{self.GET} {ours} t/vol@r-1", stdout=text)
        assert zfs.marked_among(DOOR, ("restomic-", "r-")) == {ours: "m", "t/vol@r-1": "m"}

    @pytest.mark.parametrize(
        "reason", ["", "cannot open 't@r-1': dataset does not exist\ninternal error\n"]
    )
    def test_any_other_failure_is_one(self, fp, reason):
        fp.register(self.LIST, stdout="t@r-1\n")
        fp.register(f"{self.GET} t@r-1", returncode=1, stderr=reason)
        with pytest.raises(CommandFailed):
            zfs.marked_among(DOOR, ("r-",))


class TestClones:
    ROW = "\tvolume\t-\t-\t-\t-\t-\t-\n"
    GET = "zfs get -Hp -o name,source,value org.kopiatomic:run"

    def test_ours_are_nobody_s_datasets(self, fp):
        """While one run reads a volume, another must not back the clone up."""
        ours, theirs = f"t/{CLONE}", f"t/{CLONE[:-1]}9"
        fp.register(LIST, stdout="".join(f"{each}{self.ROW}" for each in ("t/a", ours, theirs)))
        text = f"{ours}\tlocal\trestomic:default:1\n{theirs}\t-\t-\n"
        fp.register(f"{self.GET} {ours} {theirs}", stdout=text)
        assert [each.name for each in zfs.list_datasets(DOOR)] == ["t/a", theirs]

    def test_nothing_is_asked_where_none_is_called_so(self, fp):
        fp.register(LIST, stdout=f"t/a{self.ROW}t/restomic-1{self.ROW}")
        assert len(zfs.list_datasets(DOOR)) == 2
        assert len(fp.calls) == 1

    def test_one_that_was_renamed_is_no_clone_of_ours(self, fp):
        """Whoever does that means to keep it."""
        fp.register(
            "zfs get -H -t snapshot,volume -s local -o name org.kopiatomic:run",
            stdout=f"t/kept\nt/{CLONE}\n",
        )
        fp.register(f"{self.GET} t/{CLONE}", stdout=f"t/{CLONE}\tlocal\trestomic:default:2\n")
        assert zfs.own_snapshots(DOOR, "restomic:default:") == [f"t/{CLONE}"]


class TestDestroy:
    def test_one_by_its_name(self, fp):
        fp.register("zfs destroy t/a@s")
        assert zfs.destroy(DOOR, ["t/a@s"]) == zfs.Destroyed()

    def test_several_of_a_pool_by_one_channel_program(self):
        """Which names each: a foreign snapshot of the same name elsewhere is not touched."""
        given = []

        class Told(Door):
            def run(self, argv, *, text=None, **_):
                given.append((argv, text))
                return Result(tuple(argv), 0, '{"return":{}}', "")

        names = ["t/a@s", "t/a/x@s"]
        assert zfs.destroy(Told(), names) == zfs.Destroyed()
        ((argv, text),) = given
        assert argv[:2] == ["zfs", "program"]
        assert argv[-2:] == ["t", "-"]
        assert text == zfs.destroy_program(["t/a/x@s", "t/a@s"])
        assert text.count("@") == 2
        assert "zfs.sync.destroy(name)" in text

    def test_each_pool_with_its_own(self, fp):
        fp.register("zfs destroy t@s")
        fp.register("zfs destroy u@s")
        assert zfs.destroy(DOOR, ["t@s", "u@s"]) == zfs.Destroyed()

    def test_what_is_gone_is_no_problem(self, fp):
        gone = "could not find any snapshots to destroy; check snapshot names.\n"
        fp.register(PROGRAM, stdout='{"return":{"t/a@s":2,"t/b@s":2}}')
        assert zfs.destroy(DOOR, ["t/a@s", "t/b@s"]) == zfs.Destroyed(missing=("t/a@s", "t/b@s"))
        fp.register("zfs destroy t/a@s", returncode=1, stderr=gone)
        assert zfs.destroy(DOOR, ["t/a@s"]) == zfs.Destroyed(missing=("t/a@s",))
        fp.register("zfs destroy t/a@s", returncode=1, stderr="cannot open 't': dataset does not "
                    "exist\n")  # fmt: skip
        assert zfs.destroy(DOOR, ["t/a@s"]).missing == ("t/a@s",)

    def test_if_one_is_busy_the_others_go(self, fp):
        fp.register(PROGRAM, stdout='{"return":{"t/b@s":16,"t/c@s":2}}')
        fp.register("zfs destroy t/b@s", returncode=1, stderr="dataset is busy")
        done = zfs.destroy(DOOR, ["t/a@s", "t/b@s", "t/c@s"])
        assert [each.name for each in done.left] == ["t/b@s"]
        assert "dataset is busy" in done.left[0].reason
        assert done.missing == ("t/c@s",)

    def test_what_only_a_program_cannot_destroy_is_no_problem(self, fp):
        """Somebody has looked into .zfs/snapshot: zfs-destroy(8) unmounts that."""
        fp.register(PROGRAM, stdout='{"return":{"t/b@s":16}}')
        fp.register("zfs destroy t/b@s")
        assert zfs.destroy(DOOR, ["t/a@s", "t/b@s"]) == zfs.Destroyed()

    def test_one_that_is_not_there_is_told_from_one_that_was_destroyed(self):
        """To zfs.sync.destroy both are success; but its dataset may have been renamed."""
        text = zfs.destroy_program(["t/a@s"])
        assert text.index("zfs.exists(name)") < text.index("zfs.sync.destroy(name)")
        assert "= 2\n" in text

    def test_one_that_somebody_has_looked_into_goes_by_itself(self, fp):
        """A look into .zfs/snapshot has mounted it, which only zfs-destroy(8) undoes."""
        fp.register(PROGRAM, stdout='{"return":{"t/b@s":16,"t/c@s":2}}')
        fp.register("zfs destroy t/b@s")
        assert zfs.destroy(DOOR, ["t/a@s", "t/b@s", "t/c@s"]) == zfs.Destroyed(missing=("t/c@s",))
        assert len(issued(fp)) == 2

    def test_one_that_is_busy(self, fp):
        busy = "cannot destroy snapshot t@s: dataset is busy\n"
        fp.register("zfs destroy t@s", returncode=1, stderr=busy)
        (left,) = zfs.destroy(DOOR, ["t@s"]).left
        assert left.name == "t@s"
        assert "dataset is busy" in left.reason

    @pytest.mark.parametrize("answer", [{"returncode": 1, "stderr": "no"}, {"stdout": "odd"}])
    def test_where_no_channel_program_works_each_goes_by_itself(self, fp, answer):
        fp.register(PROGRAM, **answer)
        fp.register("zfs destroy t/a@s")
        fp.register("zfs destroy t/b@s", returncode=1, stderr="dataset is busy")
        fp.register("zfs destroy u@s")
        left = zfs.destroy(DOOR, ["t/b@s", "u@s", "t/a@s"]).left
        assert [each.name for each in left] == ["t/b@s"]
        assert len(issued(fp)) == 4

    def test_one_that_does_not_come_back(self, monkeypatch):
        def hang(self, argv, **_):
            raise GivenUp(argv, "did not end within 900 s")

        monkeypatch.setattr(Door, "run", hang)
        left = zfs.destroy(DOOR, ["t@s"]).left
        assert left == (zfs.NotDestroyed("t@s", "did not end within 900 s"),)

    @pytest.mark.parametrize("hangs", ["program", "destroy"])
    def test_a_pool_that_does_not_answer_is_asked_once(self, monkeypatch, hangs):
        """Asked for each of ten thousand snapshots, it would hold us up for months."""
        asked = []

        def answer(self, argv, **_):
            asked.append(argv[1])
            if argv[1] == hangs:
                raise GivenUp(argv, "did not end within 900 s")
            raise CommandFailed(argv, "no channel programs here")

        monkeypatch.setattr(Door, "run", answer)
        done = zfs.destroy(DOOR, ["t/a@s", "t/b@s", "t/c@s"])
        assert asked == {"program": ["program"], "destroy": ["program", "destroy"]}[hangs]
        assert [each.name for each in done.left] == ["t/a@s", "t/b@s", "t/c@s"]
        assert {each.reason for each in done.left} == {"did not end within 900 s"}

    def test_a_dataset_is_never_destroyed(self, fp):
        with pytest.raises(ValueError, match="only snapshots"):
            zfs.destroy(DOOR, ["t/a@s", "t/b"])
        assert issued(fp) == []

    def test_nothing_to_do(self, fp):
        assert zfs.destroy(DOOR, []) == zfs.Destroyed()


class TestOthers:
    """Snapshots of others, of which there may be thousands."""

    LIST = "zfs list -Hp -d 1 -t snapshot -s name -o name,guid,createtxg"
    GET = "zfs get -H -s local,received -o name org.kopiatomic:run"

    def test_those_of_some_datasets_by_what_costs_little(self, fp):
        text = "t/a@x y\t123\t5\nt/b@z\t124\t6\nnonsense\nt/b\t1\t2\nt/b@odd\t1\tx\n"
        fp.register(f"{self.LIST} t/a t/b", stdout=text)
        found = zfs.snapshots_on(DOOR, ["t/a", "t/b"])
        assert found == [zfs.Listed("t/a@x y", "123", 5), zfs.Listed("t/b@z", "124", 6)]

    def test_of_a_dataset_that_has_gone_there_are_none(self, fp):
        reason = "cannot open 't/b': dataset does not exist\n"
        fp.register(f"{self.LIST} t/a t/b", stdout="t/a@x\t1\t5\n", returncode=1, stderr=reason)
        assert [each.name for each in zfs.snapshots_on(DOOR, ["t/a", "t/b"])] == ["t/a@x"]

    @pytest.mark.parametrize(
        ("status", "said", "says"),
        [(1, "internal error", "internal error"), (2, "", "exit status 2"), (0, "", "not its")],
    )
    def test_where_it_cannot_be_seen_it_is_said(self, fp, status, said, says):
        fp.register(f"{self.LIST} t/a", stdout="garbage\n", returncode=status, stderr=said)
        with pytest.raises(CommandFailed, match=says):
            zfs.snapshots_on(DOOR, ["t/a"])

    def test_when_they_were_made(self, fp):
        text = "t/a@x\t1795420800\nt/b@x\t-\n"
        fp.register("zfs list -Hp -t snapshot -s name -o name,creation t/a@x t/b@x", stdout=text)
        assert zfs.created_at(DOOR, ["t/a@x", "t/b@x"]) == {"t/a@x": 1795420800.0}

    def test_ours_also_where_they_were_received(self, fp):
        fp.register(f"{self.GET} t/a@x t/b@x", stdout="t/b@x\n")
        assert zfs.bear_our_mark(DOOR, ["t/a@x", "t/b@x"]) == {"t/b@x"}

    def test_an_answer_about_something_else_is_none(self, fp):
        """Or all that was asked about would be taken for gone."""
        ask = "zfs list -Hp -t snapshot -s name -o name,creation t/a@x"
        fp.register(ask, stdout="t/c@x\t1795420800\n")
        with pytest.raises(CommandFailed, match="not its result"):
            zfs.created_at(DOOR, ["t/a@x"])

    def test_copies_of_ours(self, fp):
        listed = "zfs list -H -o name -s name -t snapshot,volume"
        fp.register(listed, stdout="t@daily\nt@restomic-1\n")
        ask = "zfs get -H -s received -o name org.kopiatomic:run"
        fp.register(f"{ask} t@restomic-1", stdout="t@restomic-1\n")
        assert zfs.copies_among(DOOR, ("restomic-", "kopiatomic-")) == ["t@restomic-1"]

    def test_copies_of_clones_wherever_they_have_come(self, fp):
        copy, own = f"u/backup/t/{CLONE}", f"t/{CLONE}"
        names = [f"{copy}@daily", f"{own}@daily", own, "t/vol", copy]
        listed = "zfs list -H -o name -s name -t snapshot,volume"
        fp.register(listed, stdout="".join(f"{each}\n" for each in names))
        ask = "zfs get -H -s received -o name org.kopiatomic:run"
        asked = f"{copy}@daily {own}@daily {own} {copy}"
        fp.register(f"{ask} {asked}", stdout=f"{copy}\n{copy}@daily\n")
        assert zfs.copies_among(DOOR, ("restomic-",)) == [f"{copy}@daily", copy]

    def test_an_answer_that_is_no_list_of_names(self, fp):
        """Or what is ours would be taken for gone."""
        fp.register("zfs list -H -o name -s name -t snapshot,volume", stdout="\x1b[31m\nodd\n")
        with pytest.raises(CommandFailed, match="not a list of names"):
            zfs.copies_among(DOOR, ("restomic-",))

    def test_no_copies_are_asked_about_where_no_name_is_like_ours(self, fp):
        fp.register("zfs list -H -o name -s name -t snapshot,volume", stdout="t@daily\n")
        assert zfs.copies_among(DOOR, ("restomic-",)) == []

    def test_what_they_are_called_by_now(self, fp):
        text = "t/a@moved\t7\nt/b@x\t8\n"
        fp.register("zfs list -Hp -r -t snapshot -s name -o name,guid t", stdout=text)
        assert zfs.by_guid(DOOR, "t", ["7", "9"]) == {"7": "t/a@moved"}

    def test_which_there_are(self, fp):
        reason = "cannot open 't/b@x': dataset does not exist\n"
        fp.register("zfs list -H -t snapshot -s name -o name t/a@x t/b@x",
                    stdout="t/a@x\n", returncode=1, stderr=reason)  # fmt: skip
        assert zfs.there(DOOR, ["t/a@x", "t/b@x"]) == {"t/a@x"}
