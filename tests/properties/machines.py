"""Random machines and jobs, for hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from kopiatomic.job import Job
from kopiatomic.machine import Dataset, Mount
from properties.model import JOB, Model, Snapshot

# Few parts, so that names and points meet: prefixes of each other, blanks, dots, wildcards.
PARTS = st.sampled_from(["a", "b", "ab", "a b", "a.b", "-a", "home", "x:y", "_", "ä"])
NAME_PARTS = st.sampled_from(["a", "b", "ab", "a b", "a.b", "home", "x:y", "_0"])
POINTS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
ODD = st.sampled_from(["/t\tb", "/n\nl", "/q'uote", "/\udcff", "/var/run/restomic2", "/.zfs"])


@st.composite
def names(draw: st.DrawFn) -> list[str]:
    """Dataset names of one to three pools, parents included."""
    found: dict[str, None] = {}
    for pool in draw(st.sampled_from([["p"], ["p", "p2"], ["p", "q", "zroot"]])):
        found[pool] = None
        for parts in draw(st.lists(st.lists(NAME_PARTS, min_size=1, max_size=3), max_size=6)):
            for depth in range(1, len(parts) + 1):
                found["/".join([pool, *parts[:depth]])] = None
    return sorted(found)


@st.composite
def machines(draw: st.DrawFn) -> Model:
    """A machine: datasets, mounts, and snapshots that are not ours or look as if."""
    datasets: dict[str, Dataset] = {}
    root = draw(st.booleans())
    mounts = [Mount("/dev/vtbd0", "/", "ufs"), Mount("devfs", "/dev", "devfs")]
    waiting: list[Mount] = []
    for name in draw(names()):
        kind = draw(st.sampled_from(["filesystem"] * 9 + ["volume"]))
        point = draw(st.one_of(st.none(), POINTS, POINTS, POINTS, ODD))
        if kind == "volume":
            point = None
        if root and kind == "filesystem":
            point, root = "/", False
            mounts[0] = Mount(name, "/", "zfs")
        elif point is not None:
            waiting.append(Mount(name, point, "zfs", draw(st.booleans())))
        datasets[name] = Dataset(
            name, kind, point is not None, draw(st.sampled_from(["on", "off", "noauto"])),
            draw(st.sampled_from([False] * 15 + [True])),
            draw(st.sampled_from(["-", "-", "available", "unavailable"])),
            draw(st.sampled_from(["-", "-", "-", "on", "off"])),
        )  # fmt: skip
    for kind in draw(st.lists(st.sampled_from(["tmpfs", "nullfs", "procfs", "nfs"]), max_size=3)):
        waiting.append(Mount(f"some:{kind}", draw(POINTS), kind, draw(st.booleans())))
    mounts += draw(st.permutations(waiting))
    model = Model(datasets, mounts)
    for mount in mounts:
        parts = mount.point.split("/")
        model.directories |= {"/".join(parts[:n]) or "/" for n in range(1, len(parts) + 1)}
    for name in draw(st.lists(st.sampled_from(sorted(datasets)), max_size=4)):
        model.snapshots[f"{name}@{draw(st.sampled_from(SHORT))}"] = draw(st.sampled_from(FOREIGN))
    return model


SHORT = ["auto", "restomic-20260101T000000Z-0123456789ab", "kopiatomic-1"]
FOREIGN = [
    Snapshot(1), Snapshot(2, held=True), Snapshot(3, "restomic:other:1"),
    Snapshot(4, "restomic:default2:1"), Snapshot(5, "kopiatomic:default:1"),
    Snapshot(6, "restomic:default:1", "received"), Snapshot(7, "restomic:default"),
]  # fmt: skip


@st.composite
def jobs(draw: st.DrawFn, model: Model) -> Job:
    """A job that selects something on a machine."""
    job = replace(
        JOB,
        recursive=draw(st.booleans()),
        exclude=tuple(draw(st.lists(st.sampled_from(["*/a", "p/*", "*b*", "[", "zz"]), max_size=2))),
        before=draw(st.sampled_from([None, "true"])),
        after_snapshot=draw(st.sampled_from([None, "true"])),
        after=draw(st.sampled_from([None, "true"])),
    )
    if draw(st.booleans()):
        return replace(job, everything=True, recursive=False)
    targets = draw(st.lists(st.sampled_from(sorted(model.datasets)), min_size=1, max_size=3))
    return replace(job, targets=tuple(targets))
