"""Made-up machines for the tests of what is pure."""

from collections.abc import Sequence

import pytest

from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan, Scene, arrange
from kopiatomic.backup.selection import select
from kopiatomic.backup.unmounted import BLIND, Sight
from kopiatomic.clients.records import Needs
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import Dataset, Mount, visible_mounts

NAMES = Names("restomic:default:1", "restomic-1", "/var/run/restomic/default")
NEEDS = Needs("/usr/local/bin/restic")
ROOT = (Mount("/dev/vtbd0", "/", "ufs"), Mount("devfs", "/dev", "devfs"))


def dataset(name: str, **changes: object) -> Dataset:
    """Return a mounted, ordinary file system."""
    usual = {
        "type": "filesystem", "mounted": True, "canmount": "on", "jailed": False,
        "keystatus": "-", "backup": "-",
    }  # fmt: skip
    return Dataset(name, **{**usual, **changes})


def unmounted(name: str, **changes: object) -> Dataset:
    """Return a file system that is not mounted."""
    return dataset(name, mounted=False, **changes)


def zfs(name: str, point: str) -> Mount:
    """Return the mount of a dataset."""
    return Mount(name, point, "zfs")


def simple() -> tuple[list[Dataset], list[Mount]]:
    """A machine with /home, /home/ben and /data on ZFS, the rest on UFS."""
    names = {"zroot/home": "/home", "zroot/home/ben": "/home/ben", "tank": "/data"}
    datasets = [unmounted("zroot"), *map(dataset, names)]
    return datasets, [*ROOT, *(zfs(name, point) for name, point in names.items())]


def installer() -> tuple[list[Dataset], list[Mount]]:
    """FreeBSD's own layout of root on ZFS."""
    mounted = {
        "zroot/ROOT/default": "/", "zroot": "/zroot", "zroot/home": "/home", "zroot/tmp": "/tmp",
        "zroot/usr/src": "/usr/src", "zroot/var/log": "/var/log", "zroot/var/tmp": "/var/tmp",
    }  # fmt: skip
    datasets = [
        unmounted("zroot/ROOT"),
        unmounted("zroot/usr", canmount="off"),
        unmounted("zroot/var", canmount="off"),
        *(dataset(name) for name in mounted),
    ]
    mounts = [zfs(name, point) for name, point in mounted.items()]
    return datasets, [mounts[0], Mount("devfs", "/dev", "devfs"), *mounts[1:]]


def make_plan(
    job: Job, datasets: Sequence[Dataset], table: Sequence[Mount], names: Names, needs: Needs,
    each_point: bool = False, sight: Sight = BLIND,
) -> Plan:  # fmt: skip
    """Return what a run of a job does on a machine with these datasets and mounts."""
    scene = Scene(tuple(visible_mounts(table)), needs, names, each_point)
    return arrange(scene, select(job, datasets, scene.mounts, names, sight))


def plan_for(
    machine: tuple[list[Dataset], list[Mount]], *targets: str, needs: Needs = NEEDS,
    names: Names = NAMES, each_point: bool = False, sight: Sight = BLIND, **job: object,
) -> Plan:  # fmt: skip
    """Return the plan of a restomic job on a machine."""
    made = Job("restomic", targets=targets, **job)
    return make_plan(made, *machine, names, needs, each_point, sight)


def refused(*args: object, **kwargs: object) -> Refusal:
    """Return why there is no such plan, which is one line."""
    with pytest.raises(Refusal) as caught:
        plan_for(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


def captured(plan: Plan) -> dict[str, str]:
    """Return what a plan captures, as dataset to mount point."""
    return {each.dataset: each.point for each in plan.captured}


def view_of(plan: Plan) -> dict[str, str]:
    """Return a plan's view as mount point to kind."""
    return {mount.point: mount.kind for mount in plan.view}


def left_out(plan: Plan) -> dict[str, str]:
    """Return what a plan leaves out, with reasons."""
    return {each.name: each.reason for each in plan.left_out}


def left_out_kinds(plan: Plan) -> dict[str, str]:
    """Return what a plan leaves out, and of which kind the reason is."""
    return {each.name: each.kind for each in plan.left_out}
