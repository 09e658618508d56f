"""Clones of volumes: how they are made, waited for, and destroyed."""

import pytest

from kopiatomic.system import machine, volumes
from kopiatomic.system.command import CommandFailed, Door, GivenUp
from kopiatomic.system.volumes import Facts, Removed
from kopiatomic.system.zfs import Destroyed

DOOR = Door()
CLONE = "t/restomic-20261127T030000Z-0123456789ab.0"
SNAPSHOT = "t/vm/disk@restomic-20261127T030000Z-0123456789ab"
MARK = "org.kopiatomic:run=restomic:default:1"
ALONE = "-o com.sun:auto-snapshot=false -o syncoid:sync=false"
MADE = f"zfs clone -o readonly=on -o volmode=none {ALONE} -o {MARK} {SNAPSHOT} {CLONE}"
SET = f"zfs set volmode=dev {CLONE}"
LISTED = f"zfs list -Hp -t volume -o name,volsize,volmode,org.freebsd:swap {CLONE}"
CHILDREN = f"cannot destroy '{CLONE}': volume has children\nuse '-r' to destroy ...\n{CLONE}@auto\n"


def issued(fp):
    return [list(call) for call in fp.calls]


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch):
    """Where the devices are; nothing takes long."""
    monkeypatch.setattr(machine, "DEVICES", str(tmp_path))
    for name, value in (("WAIT", 0.05), ("PAUSE", 0.01)):
        monkeypatch.setattr(volumes, name, value)
    monkeypatch.setattr(volumes, "SETTLE", 0.0)
    (tmp_path / "t").mkdir()
    return tmp_path


class TestNames:
    @pytest.mark.parametrize(
        ("path", "volume"),
        [("/dev/zvol/t/a b", "t/a b"), ("/dev/zvol/t/", "t"), ("/dev/zvol/", None),
         ("/dev/zvolt/a", None), ("/dev/zvol", None), ("t/a", None)],
    )  # fmt: skip
    def test_a_device_names_its_volume(self, monkeypatch, path, volume):
        monkeypatch.setattr(machine, "DEVICES", "/dev/zvol")
        assert machine.volume_at(path) == volume

    def test_and_a_volume_its_device(self, devices):
        assert machine.device_of("t/vm/disk") == f"{devices}/t/vm/disk"


class TestFacts:
    def test_are_read(self, fp):
        fp.register(
            "zfs list -Hp -t volume -o name,volsize,volmode,org.freebsd:swap t/a t/b",
            stdout="t/a\t1048576\tdefault\t-\nt/b\t2097152\tnone\ton\n",
        )
        found = volumes.facts_of(DOOR, ["t/a", "t/b"])
        assert found == {"t/a": Facts(1048576, "default"), "t/b": Facts(2097152, "none", True)}

    @pytest.mark.parametrize("text", ["t/a\t-\tdefault\t-\n", "t/a\n", "x\ty\tz\t-\t-\n"])
    def test_what_is_not_understood_is_no_answer(self, fp, text):
        fp.register(["zfs", "list", fp.any()], stdout=text)
        with pytest.raises(CommandFailed, match="not understood"):
            volumes.facts_of(DOOR, ["t/a"])


class TestClone:
    def test_is_marked_and_read_only_and_no_disk_to_geom(self, fp, devices):
        """At no moment has it a volmode that GEOM would look at."""
        fp.register(MADE)
        fp.register(SET, callback=lambda _: (devices / CLONE).touch())
        fp.register(LISTED, stdout=f"{CLONE}\t4096\tdev\t-\n")
        facts = volumes.clone(DOOR, SNAPSHOT, CLONE, "restomic:default:1")
        assert facts == Facts(4096, "dev")
        assert [" ".join(each) for each in issued(fp)] == [MADE, SET, LISTED]

    def test_without_a_device_in_the_end_it_has_failed(self, fp):
        fp.register(MADE)
        fp.register(SET)
        with pytest.raises(CommandFailed, match=r"there is no .*restomic-.* after"):
            volumes.clone(DOOR, SNAPSHOT, CLONE, "restomic:default:1")

    def test_nor_is_there_one_if_it_gets_no_volmode(self, fp):
        fp.register(MADE)
        fp.register(SET, returncode=1, stderr="cannot set property: no such device\n")
        with pytest.raises(CommandFailed, match="no such device"):
            volumes.clone(DOOR, SNAPSHOT, CLONE, "restomic:default:1")

    def test_a_refusal_is_told(self, fp):
        fp.register(MADE, returncode=1, stderr=f"cannot create '{CLONE}': out of space\n")
        with pytest.raises(CommandFailed, match="out of space"):
            volumes.clone(DOOR, SNAPSHOT, CLONE, "restomic:default:1")
        assert len(issued(fp)) == 1


class TestDestroy:
    def test_by_its_name_and_never_recursively(self, fp):
        fp.register(f"zfs destroy {CLONE}")
        assert volumes.destroy(DOOR, [CLONE]) == Removed()
        assert issued(fp) == [["zfs", "destroy", CLONE]]

    @pytest.mark.parametrize(
        "name",
        ["t/vm/disk", "t", "t/restomic-1.0", CLONE + "@s", f"t/vm/{CLONE[2:]}", CLONE[:-2],
         CLONE + "/x"],
    )  # fmt: skip
    def test_nothing_but_what_is_called_as_ours(self, fp, name):
        with pytest.raises(ValueError, match="only clones of ours"):
            volumes.destroy(DOOR, [CLONE, name])
        assert issued(fp) == []

    def test_one_that_is_gone_is_no_problem(self, fp):
        gone = f"cannot open '{CLONE}': dataset does not exist\n"
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=gone)
        assert volumes.destroy(DOOR, [CLONE]) == Removed(Destroyed(missing=(CLONE,)))

    def test_one_that_is_busy_is_tried_again(self, fp):
        busy = f"cannot destroy '{CLONE}': dataset is busy\n"
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=busy)
        fp.register(f"zfs destroy {CLONE}")
        assert volumes.destroy(DOOR, [CLONE]) == Removed()

    def test_and_told_if_it_stays_so(self, fp):
        busy = f"cannot destroy '{CLONE}': dataset is busy\n"
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=busy, occurrences=2)
        (left,) = volumes.destroy(DOOR, [CLONE]).done.left
        assert left.name == CLONE
        assert "dataset is busy" in left.reason

    def test_a_snapshot_that_others_made_of_it_goes_by_its_name(self, fp):
        """As `zfs snapshot -r t@auto` does, while the volume is read."""
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=CHILDREN)
        fp.register(f"zfs list -H -o origin {CLONE}", stdout=f"{SNAPSHOT}\n")
        listed = f"zfs list -H -d 1 -t snapshot -o name {CLONE}"
        fp.register(listed, stdout=f"{CLONE}@auto\n")
        fp.register(f"zfs destroy {CLONE}@auto")
        fp.register(f"zfs destroy {CLONE}")
        assert volumes.destroy(DOOR, [CLONE]) == Removed(strangers=(f"{CLONE}@auto",))
        assert not any("-r" in call or "-R" in call for call in issued(fp))

    def test_of_one_that_was_promoted_nothing_goes(self, fp):
        """It has the volume's own snapshots now."""
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=CHILDREN)
        fp.register(f"zfs list -H -o origin {CLONE}", stdout="-\n")
        removed = volumes.destroy(DOOR, [CLONE])
        assert [each.name for each in removed.done.left] == [CLONE]
        assert "has children" in removed.done.left[0].reason
        assert len(issued(fp)) == 2

    def test_one_held_by_somebody_is_told(self, fp):
        fp.register(f"zfs destroy {CLONE}", returncode=1, stderr=CHILDREN)
        fp.register(f"zfs list -H -o origin {CLONE}", stdout=f"{SNAPSHOT}\n")
        listed = f"zfs list -H -d 1 -t snapshot -o name {CLONE}"
        fp.register(listed, stdout=f"{CLONE}@auto\n")
        busy = f"cannot destroy snapshot {CLONE}@auto: dataset is busy\n"
        fp.register(f"zfs destroy {CLONE}@auto", returncode=1, stderr=busy)
        removed = volumes.destroy(DOOR, [CLONE])
        assert removed.strangers == ()
        assert removed.done.left[0].reason == (
            f"another program has made the snapshot {CLONE}@auto of it, which stays: "
            f"cannot destroy snapshot {CLONE}@auto: dataset is busy (exit status 1); "
            f"if it is held, release it, see: zfs holds {CLONE}@auto"
        )

    def test_one_that_does_not_come_back(self, monkeypatch):
        def hang(self, argv, **_):
            raise GivenUp(argv, "did not end within 900 s")

        monkeypatch.setattr(Door, "run", hang)
        (left,) = volumes.destroy(DOOR, [CLONE]).done.left
        assert left.reason == "did not end within 900 s"

    def test_nothing_to_do(self, fp):
        assert volumes.destroy(DOOR, []) == Removed()
        assert issued(fp) == []
