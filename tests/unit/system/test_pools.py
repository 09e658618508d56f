"""What is asked of zpool(8) and zfs-get(8), and how their answers are read."""

import pytest

from kopiatomic.system import pools
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.pools import Group, Setting

DOOR = Door()
GET = (
    "zfs get -Hp -r -t filesystem,volume -s local,received,none "
    "-o name,property,source,value all"
)
TITLES = "\tNAME        STATE     READ WRITE CKSUM"


def settings(*lines: str) -> dict[str, dict[str, Setting]]:
    return pools.parse_settings(("zfs", "get"), "\n".join(lines) + "\n")


class TestSettings:
    def test_reads_what_is_set_on_each_dataset(self, fp):
        fp.register(
            f"{GET} tank zroot",
            stdout="tank\ttype\t-\tfilesystem\ntank\tmountpoint\tlocal\t/data\n"
            "zroot\ttype\t-\tfilesystem\nzroot/a b\ttype\t-\tvolume\n"
            "zroot/a b\tvolsize\tlocal\t1024\nzroot/a b\torg.x:y\treceived\t\n",
        )
        assert pools.dataset_settings(DOOR, ["tank", "zroot"]) == {
            "tank": {"type": Setting("filesystem", "-"), "mountpoint": Setting("/data", "local")},
            "zroot": {"type": Setting("filesystem", "-")},
            "zroot/a b": {
                "type": Setting("volume", "-"),
                "volsize": Setting("1024", "local"),
                "org.x:y": Setting("", "received"),
            },
        }

    def test_a_value_may_have_any_number_of_lines(self):
        read = settings("t\ttype\t-\tfilesystem", "t\ta:b\tlocal\tone", "two\tthree", "four")
        assert read["t"]["a:b"].value == "one\ntwo\tthree\nfour"

    @pytest.mark.parametrize(
        "forged",
        [
            ["t/b\tmountpoint\tlocal\t/etc"],  # without its type
            ["t/b\ttype\t-\tfilesystem", "t/b\tmountpoint\tlocal\t/etc"],  # which comes again
            ["t/a\tmountpoint\tlocal\t/etc"],  # behind a user property
            ["t/a\tc:d\tlocal\t1", "t/a\tc:d\tlocal\t2"],
        ],
    )
    def test_a_user_propertys_value_cannot_say_what_another_dataset_has(self, forged):
        head = ["t/a\ttype\t-\tfilesystem", "t/a\tx:y\tlocal\tsomething"]
        with pytest.raises(CommandFailed, match="not understood"):
            settings(*head, *forged, "t/b\ttype\t-\tfilesystem")

    def test_garbage_is_refused(self):
        with pytest.raises(CommandFailed, match="not understood: 'usage: zfs get"):
            settings("usage: zfs get\tlocal\tx\ty")

    def test_nothing_is_no_dataset(self):
        assert settings() == {}


class TestPoolSettings:
    def test_reads_them(self, fp):
        fp.register(
            "zpool get -Hp -o name,property,source,value all tank",
            stdout="tank\tashift\tlocal\t12\ntank\tcomment\tlocal\ta\tb\n",
        )
        assert pools.pool_settings(DOOR, ["tank"]) == {
            "tank": {"ashift": Setting("12", "local"), "comment": Setting("a\tb", "local")}
        }

    @pytest.mark.parametrize("line", ["tank\tashift", "other\tashift\tlocal\t12"])
    def test_garbage_is_refused(self, fp, line):
        fp.register(["zpool", fp.any()], stdout=f"{line}\n")
        with pytest.raises(CommandFailed, match="not understood"):
            pools.pool_settings(DOOR, ["tank"])


def status(*lines: str, pool: str = "tank") -> str:
    rows = "\n".join(f"\t{line}" for line in lines)
    return f"""\
  pool: {pool}
 state: ONLINE
  scan: scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov 22 03:00:01 2026
config:

{TITLES}
\t{pool:<12}ONLINE       0     0     0
{rows}

errors: No known data errors
"""


def groups(*lines: str) -> tuple[Group, ...]:
    return pools.parse_status(("zpool", "status"), status(*lines))["tank"]


class TestGroups:
    def test_reads_pools_one_after_the_other(self, fp):
        text = status("  /dev/ada1   ONLINE       0     0     0") + "\n"
        text += status("  /d e        ONLINE       0     0     0", pool="two")
        fp.register("zpool status -P tank two", stdout=text)
        assert pools.groups(DOOR, ["tank", "two"]) == {
            "tank": (Group("", "", ("/dev/ada1",)),),
            "two": (Group("", "", ("/d e",)),),
        }

    def test_reads_every_kind_of_group(self):
        assert groups(
            "  mirror-0    ONLINE       0     0     0",
            "    /dev/a    ONLINE       0     0     0",
            "    /dev/b    ONLINE       0     0     0  (resilvering)",
            "  draid2:4d:11c:1s-1  ONLINE  0     0     0",
            "    /dev/c    ONLINE       0     0     0",
            "  /dev/d      ONLINE       0     0     0",
            "  indirect-3  ONLINE       0     0     0",
            "special\t",
            "  raidz1-4    ONLINE       0     0     0",
            "    /dev/e    ONLINE       0     0     0",
            "logs\t",
            "  /dev/f      ONLINE       0     0     0",
            "  /dev/g      ONLINE       0     0     0",
            "cache",
            "  /dev/h      ONLINE       0     0     0",
            "spares",
            "  /dev/i      AVAIL   ",
        ) == (
            Group("", "mirror", ("/dev/a", "/dev/b")),
            Group("", "draid2:4d:11c:1s", ("/dev/c",)),
            Group("", "", ("/dev/d",)),
            Group("special", "raidz1", ("/dev/e",)),
            Group("log", "", ("/dev/f", "/dev/g")),
            Group("cache", "", ("/dev/h",)),
            Group("spare", "", ("/dev/i",)),
        )

    def test_of_two_that_stand_for_one_the_one_that_stays(self):
        assert groups(
            "  mirror-0       DEGRADED     0     0     0",
            "    replacing-0  DEGRADED     0     0     0",
            "      /dev/old   OFFLINE      0     0     0",
            "      /dev/new   ONLINE       0     0     0",
            "    spare-1      DEGRADED     0     0     0",
            "      /dev/own   UNAVAIL      0     0     0  cannot open",
            "      /dev/spare ONLINE       0     0     0",
            "  replacing-1    DEGRADED     0     0     0",
            "    /dev/last    OFFLINE      0     0     0",
            "    /dev/next    ONLINE       0     0     0",
        ) == (Group("", "mirror", ("/dev/new", "/dev/own")), Group("", "", ("/dev/next",)))

    def test_a_device_that_is_away_is_called_as_it_was(self):
        line = "  9223372036854775807  UNAVAIL      0     0     0  was /dev/gpt/data 1"
        assert groups(line) == (Group("", "", ("/dev/gpt/data 1",)),)

    @pytest.mark.parametrize("text", ["", "no pools available\n", "config:\n\n"])
    def test_what_is_no_state_of_a_pool_is_refused(self, text):
        with pytest.raises(CommandFailed, match="not the state of a pool"):
            pools.parse_status(("zpool", "status"), text)
