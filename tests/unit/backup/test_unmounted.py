"""Where what is not mounted appears in the backup, and where it must not."""

import pytest
from support.datasets import (
    NEEDS,
    ROOT,
    captured,
    dataset,
    left_out,
    left_out_kinds,
    plan_for,
    refused,
    unmounted,
    view_of,
    zfs,
)

from kopiatomic.backup.plan import Plan
from kopiatomic.backup.unmounted import ELSEWHERE, EMPTY, MISSING, OCCUPIED, Sight
from kopiatomic.errors import EX_NOINPUT
from kopiatomic.system.machine import Dataset, Mount

HOLD = "/var/run/restomic/default/hold"


def seeing(in_jail: bool = False, **found: str) -> Sight:
    """Return a look at a machine with one directory of each kind, and /t/NAME as it is said."""
    known = {"/mnt": EMPTY, "/full": OCCUPIED, "/link": ELSEWHERE}
    known |= {f"/t/{name}": what for name, what in found.items()}
    return Sight(lambda path: known.get(path, MISSING), in_jail)


def machine(*odd: Dataset) -> tuple[list[Dataset], list[Mount]]:
    """A pool on /t with /t/home in it, and what is odd about it."""
    datasets = [dataset("t"), dataset("t/home"), *odd]
    return datasets, [*ROOT, zfs("t", "/t"), zfs("t/home", "/t/home")]


def frozen(plan: Plan) -> dict[str, str]:
    """Return the points of a view that show snapshots, and of what."""
    return {mount.point: mount.dataset for mount in plan.view if mount.kind == "frozen"}


ODD = [
    unmounted("t/n", canmount="noauto", mountpoint="/t/n"),
    unmounted("t/n", canmount="off", mountpoint="/t/n"),
    unmounted("t/n", keystatus="available", mountpoint="/t/n"),
]


class TestAtItsMountPoint:
    @pytest.mark.parametrize("odd", ODD)
    def test_where_there_is_an_empty_directory(self, odd: Dataset):
        plan = plan_for(machine(odd), "t/n", sight=seeing(n=EMPTY))
        assert captured(plan) == {"t/n": "/t/n"}
        assert frozen(plan) == {"/t/n": "t/n"}
        assert plan.snapshots == ("t/n@restomic-1",)
        assert plan.paths == ("/t/n",)
        assert plan.captured[0].unmounted.startswith("not mounted")
        # What leads there is live, as with what is mounted.
        assert view_of(plan)["/t"] == "live"

    def test_beside_what_is_mounted(self):
        plan = plan_for(machine(ODD[0]), "t", "t/n", sight=seeing(n=EMPTY))
        assert frozen(plan) == {"/t": "t", "/t/n": "t/n"}
        assert plan.paths == ("/t",)
        assert [each.number for each in plan.captured] == [0, 1]
        assert [hold.directory for hold in plan.holds] == [f"{HOLD}/0", f"{HOLD}/1"]

    def test_named_beside_recursion(self):
        plan = plan_for(machine(ODD[0]), "t", "t/n", sight=seeing(n=EMPTY), recursive=True)
        assert captured(plan) == {"t": "/t", "t/home": "/t/home", "t/n": "/t/n"}

    @pytest.mark.parametrize("job", [{"targets": ("t",), "recursive": True}, {"everything": True}])
    def test_not_where_it_is_not_named(self, job):
        targets = job.pop("targets", ())
        plan = plan_for(machine(ODD[0]), *targets, sight=seeing(n=EMPTY), at="/mnt", **job)
        assert left_out(plan) == {"t/n": "not mounted"}

    def test_a_parent_that_is_never_mounted_is_named_for_those_below_it(self):
        below = dataset("t/n/a")
        datasets, mounts = machine(ODD[1], below)
        mounts.append(zfs("t/n/a", "/a"))
        plan = plan_for((datasets, mounts), "t/n", sight=seeing(n=EMPTY), recursive=True)
        assert captured(plan) == {"t/n/a": "/a"}
        assert left_out_kinds(plan) == {"t/n": "canmount"}
        # Not so where there is a place for such.
        job = {"sight": seeing(n=EMPTY), "recursive": True, "at": "/mnt"}
        wanted = {"t/n": "/t/n", "t/n/a": "/a"}
        assert captured(plan_for((datasets, mounts), "t/n", **job)) == wanted

    def test_without_a_directory_an_empty_tree_takes_the_place_of_what_it_would_lie_in(self):
        plan = plan_for(machine(ODD[0]), "t/n", sight=seeing())
        assert frozen(plan) == {"/t/n": "t/n"}
        gap = next(mount for mount in plan.view if mount.kind == "gap")
        assert (gap.point, gap.directories) == ("/t", ("n",))

    def test_not_in_what_is_captured_itself_nor_in_the_root(self):
        assert "there is no directory /t/n" in reason("t/n", "t", odd=ODD[0])
        assert "there is no directory /n" in reason("t/n", odd=ODD[0]._replace(mountpoint="/n"))

    def test_not_in_what_the_client_needs(self):
        needs = NEEDS._replace(repository="/t/repository")
        refusal = refused(machine(ODD[0]), "t/n", sight=seeing(), needs=needs)
        assert "there is no directory /t/n; make it" in str(refusal)

    def test_one_in_another(self):
        inner = unmounted("t/n/i", mountpoint="/t/n/i")
        plan = plan_for(machine(inner, ODD[0]), "t/n/i", "t/n", sight=seeing(n=EMPTY))
        assert frozen(plan) == {"/t/n": "t/n", "/t/n/i": "t/n/i"}
        assert plan.paths == ("/t/n",)

    def test_not_two_at_one_place_nor_one_over_another(self):
        same = unmounted("t/m", mountpoint="/t/n")
        assert "/t/n is in the way" in reason("t/n", "t/m", odd=ODD[0], other=same, n=EMPTY)

    @pytest.mark.parametrize(
        ("point", "why"),
        [
            ("none", "no mount point of its own"),
            ("legacy", "no mount point of its own"),
            ("-", "no mount point of its own"),
            ("/", "its mount point is /"),
            ("/full", "there are files in /full"),
            ("/link", "a symbolic link leads there"),
            ("/t/home", "/t/home is in the way"),
            ("/t", "/t is in the way"),
            ("/dev/x", "not on a file system of this machine's own"),
            ("/far/x", "not on a file system of this machine's own"),
        ],
    )
    def test_nowhere_where_anything_else_is(self, point: str, why: str):
        odd = unmounted("t/n", mountpoint=point)
        far = Mount("server:/x", "/far", "nfs", local=False)
        datasets, mounts = machine(odd)
        refusal = refused((datasets, [*mounts, far]), "t/n", sight=seeing())
        assert why in str(refusal)
        assert str(refusal).endswith("say by --at DIRECTORY where to show it")
        assert refusal.status == EX_NOINPUT
        # And there it is shown.
        plan = plan_for((datasets, [*mounts, far]), "t/n", sight=seeing(), at="/mnt")
        assert captured(plan) == {"t/n": "/mnt/t+n"}

    def test_one_that_is_hidden_by_another_mount(self):
        datasets, mounts = machine(dataset("t/n", mountpoint="/t/n"))
        mounts += [zfs("t/n", "/t/n"), Mount("tmpfs", "/t/n", "tmpfs")]
        assert "/t/n is in the way" in str(refused((datasets, mounts), "t/n", sight=seeing()))
        plan = plan_for((datasets, mounts), "t/n", sight=seeing(), at="/mnt")
        assert frozen(plan) == {"/mnt/t+n": "t/n"}
        assert plan.captured[0].unmounted == "another file system is mounted over it"


def reason(*targets: str, odd: Dataset, other: Dataset | None = None, **found: str) -> str:
    """Return why a job is refused."""
    known = machine(odd, *([other] if other else []))
    return str(refused(known, *targets, sight=seeing(**found)))


class TestBelowADirectory:
    def test_by_the_name_of_the_dataset(self):
        odd = unmounted("t/a b/c", mountpoint="none")
        plan = plan_for(machine(odd), "t/a b/c", sight=seeing(), at="/mnt")
        assert captured(plan) == {"t/a b/c": "/mnt/t+a b+c"}
        assert view_of(plan)["/mnt"] == "gap"
        gap = next(mount for mount in plan.view if mount.point == "/mnt")
        assert (gap.directories, gap.source) == (("t+a b+c",), "/var/run/restomic/default/gap/at")
        assert plan.paths == ("/mnt/t+a b+c",)

    def test_what_it_lies_in_may_be_captured(self):
        odd = unmounted("t/n", mountpoint="none")
        plan = plan_for(machine(odd), "t", "t/n", sight=seeing(at=EMPTY), at="/t/at")
        assert frozen(plan) == {"/t": "t", "/t/at/t+n": "t/n"}
        assert plan.paths == ("/t",)

    @pytest.mark.parametrize(
        ("at", "why"),
        [
            ("/full", "there are files in it"), ("/link", "it is no directory"),
            ("/t/home", "/t/home is mounted there"), ("/t", "/t is mounted there"),
            ("/dev", "/dev is mounted there"), ("/nonesuch", "it is no directory"),
        ],
    )  # fmt: skip
    def test_it_has_to_be_empty_if_it_is_needed(self, at: str, why: str):
        odd = unmounted("t/n", mountpoint="none")
        refusal = refused(machine(odd), "t/n", sight=seeing(), at=at)
        assert f"--at {at}: {why}" in str(refusal)
        assert captured(plan_for(machine(odd), "t/home", sight=seeing(), at=at))

    def test_nothing_else_is_shown_in_it_or_over_it(self):
        for point in ("/mnt", "/mnt/n"):
            odd = unmounted("t/n", mountpoint=point)
            plan = plan_for(machine(odd), "t/n", sight=seeing(), at="/mnt")
            assert captured(plan) == {"t/n": "/mnt/t+n"}

    def test_nor_is_a_name_too_long(self):
        odd = unmounted("t/" + "n" * 246, mountpoint="none")
        assert "too long" in str(refused(machine(odd), odd.name, sight=seeing(), at="/mnt"))


JAILED = unmounted("t/j", jailed=True, mountpoint="/t/j")
MORE = unmounted("t/j/k", jailed=True, mountpoint="/t/j/k")


class TestJailed:
    def test_never_where_its_mount_point_says(self):
        """The jail's root sets it, and this machine's root would run what is there."""
        assert "its mount point is its jail's affair" in reason("t/j", odd=JAILED, j=EMPTY)
        plan = plan_for(machine(JAILED), "t/j", sight=seeing(j=EMPTY), at="/mnt")
        assert captured(plan) == {"t/j": "/mnt/t+j"}
        assert plan.captured[0].unmounted == "not mounted, and belongs to a jail"

    def test_where_the_jail_has_mounted_it_when_it_is_named(self):
        datasets, mounts = machine(JAILED._replace(mounted=True))
        mounts.append(zfs("t/j", "/jails/j/t/j"))
        plan = plan_for((datasets, mounts), "t/j")
        assert frozen(plan) == {"/jails/j/t/j": "t/j"}
        assert not plan.captured[0].unmounted
        assert captured(plan_for((datasets, mounts), "/jails/j/t/j/x")) == {"t/j": "/jails/j/t/j"}

    @pytest.mark.parametrize("job", [{"targets": ("t",), "recursive": True}, {"everything": True}])
    def test_among_others_when_jailed_ones_are_wanted(self, job):
        datasets, mounts = machine(JAILED._replace(mounted=True), MORE)
        mounts.append(zfs("t/j", "/jails/j/t/j"))
        targets = job.pop("targets", ())
        plain = plan_for((datasets, mounts), *targets, sight=seeing(), at="/mnt", **job)
        assert left_out_kinds(plain) == {"t/j": "jailed", "t/j/k": "jailed"}
        wanted = plan_for((datasets, mounts), *targets, sight=seeing(), jailed=True, **job)
        assert "t/j" in captured(wanted)
        assert "belongs to a jail, and its mount point" in left_out(wanted)["t/j/k"]
        both = plan_for(
            (datasets, mounts), *targets, sight=seeing(), jailed=True, at="/mnt", **job
        )
        assert captured(both)["t/j/k"] == "/mnt/t+j+k"

    def test_what_lies_below_one_that_is_named(self):
        plan = plan_for(machine(JAILED, MORE), "t/j", sight=seeing(), at="/mnt", recursive=True)
        assert captured(plan) == {"t/j": "/mnt/t+j", "t/j/k": "/mnt/t+j+k"}

    def test_what_is_excluded_or_off_stays_so(self):
        off = MORE._replace(backup="off")
        job = {"sight": seeing(), "at": "/mnt", "jailed": True, "everything": True}
        plan = plan_for(machine(JAILED, off), exclude=("t/j",), **job)
        assert left_out_kinds(plan) == {"t/j": "excluded", "t/j/k": "excluded"}
        assert left_out_kinds(plan_for(machine(JAILED, off), **job)) == {"t/j/k": "property"}


class TestInAJail:
    """There what is jailed is its own, and the rest the host's."""

    def machine(self):
        datasets = [unmounted("t"), dataset("t/j", jailed=True), unmounted("t/x")]
        return [*datasets, JAILED._replace(name="t/j/n")], [*ROOT, zfs("t/j", "/data")]

    def test_all_is_what_has_been_given_to_it(self):
        plan = plan_for(self.machine(), everything=True, sight=seeing(in_jail=True))
        assert captured(plan) == {"t/j": "/data"}
        assert left_out(plan) == {"t/j/n": "not mounted"}

    def test_what_is_not_mounted_is_shown_at_its_mount_point(self):
        sight = seeing(in_jail=True)._replace(look=lambda path: EMPTY)
        plan = plan_for(self.machine(), "t/j/n", sight=sight)
        assert captured(plan) == {"t/j/n": "/t/j"}

    def test_the_hosts_is_refused(self):
        refusal = refused(self.machine(), "t", sight=seeing(in_jail=True))
        assert "t cannot be backed up: belongs to the host of this jail" in str(refusal)
        plan = plan_for(self.machine(), "t", recursive=True, sight=seeing(in_jail=True))
        assert captured(plan) == {"t/j": "/data"}
        assert left_out_kinds(plan)["t"] == "host's"

    def test_a_volume_is_read_on_the_host(self):
        datasets, mounts = self.machine()
        datasets.append(dataset("t/j/v", jailed=True, type="volume"))
        sight = seeing(in_jail=True)
        refusal = refused((datasets, mounts), "t/j/v", sight=sight)
        assert "t/j/v cannot be backed up: a volume, which can be read on the host" in str(refusal)
        plan = plan_for((datasets, mounts), everything=True, volumes=True, sight=sight)
        assert captured(plan) == {"t/j": "/data"}
        assert left_out_kinds(plan)["t/j/v"] == "volume"

    @pytest.mark.parametrize("in_jail", [True, False])
    def test_who_names_its_empty_mount_point_means_the_dataset(self, in_jail):
        sight = seeing(in_jail)._replace(look=lambda path: EMPTY)
        datasets, mounts = self.machine()
        if in_jail:
            plan = plan_for((datasets, mounts), "/t/j", sight=sight)
            assert captured(plan) == {"t/j/n": "/t/j"}
        else:
            refused((datasets, mounts), "/t/j", sight=sight)

    def test_below_a_directory_of_it(self):
        datasets, mounts = self.machine()
        datasets.append(JAILED._replace(name="t/j/d", mountpoint="/data/d/e"))
        datasets.append(dataset("t/j/m", jailed=True))
        mounts.append(zfs("t/j/m", "/data/d/m"))
        sight = seeing(in_jail=True)
        plan = plan_for((datasets, mounts), "/data/d", recursive=True, sight=sight)
        assert captured(plan) == {"t/j": "/data", "t/j/m": "/data/d/m"}
        assert left_out(plan) == {"t/j/d": "not mounted"}
