"""Random machines and jobs, for hypothesis."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st

from kopiatomic.job import Job
from kopiatomic.system.machine import Dataset, Mount, ancestors
from properties.model import JOB, Model, Snapshot

# Few parts, so that names and points meet: prefixes of each other, blanks, dots, wildcards.
PARTS = ["a", "b", "ab", "a b", "a.b", "-a", "home", "x:y", "_", "ä"]
NAME_PARTS = ["a", "b", "ab", "a b", "a.b", "home", "x:y", "_0"]
ODD = ["/t\tb", "/n\nl", "/q'uote", "/\udcff", "/var/run/restomic2", "/.zfs"]


def _names(chance: random.Random) -> list[str]:
    """Dataset names of one to three pools, parents included."""
    found: dict[str, None] = {}
    for pool in chance.choice([["p"], ["p", "p2"], ["p", "q", "zroot"]]):
        found[pool] = None
        for _ in range(chance.randrange(7)):
            parts = chance.choices(NAME_PARTS, k=chance.randint(1, 3))
            for depth in range(1, len(parts) + 1):
                found["/".join([pool, *parts[:depth]])] = None
    return sorted(found)


def _point(chance: random.Random) -> str:
    return "/" + "/".join(chance.choices(PARTS, k=chance.randint(1, 4)))


def _machine(chance: random.Random) -> Model:
    """A machine: datasets, mounts, and snapshots that are not ours or look as if."""
    datasets: dict[str, Dataset] = {}
    root = chance.random() < 0.5
    mounts = [Mount("/dev/vtbd0", "/", "ufs"), Mount("devfs", "/dev", "devfs")]
    waiting: list[Mount] = []
    for name in _names(chance):
        kind = "volume" if chance.random() < 0.15 else "filesystem"
        point = None
        if kind == "filesystem" and chance.random() < 0.8:
            point = chance.choice(ODD) if chance.random() < 0.2 else _point(chance)
        if root and kind == "filesystem":
            point, root = "/", False
            mounts[0] = Mount(name, "/", "zfs")
        elif point is not None:
            waiting.append(Mount(name, point, "zfs", chance.random() < 0.5))
        own = chance.choice(["none", "legacy", "/mnt", "/mnt/x", *[_point(chance)] * 6])
        datasets[name] = Dataset(
            name, kind, point is not None, chance.choice(["on", "off", "noauto"]),
            chance.random() < 0.06, chance.choice(["-", "-", "available", "unavailable"]),
            chance.choice(["-", "-", "-", "on", "off"]), "-" if kind == "volume" else own,
        )  # fmt: skip
    for _ in range(chance.randrange(4)):
        kind = chance.choice(["tmpfs", "nullfs", "procfs", "nfs"])
        waiting.append(Mount(f"some:{kind}", _point(chance), kind, chance.random() < 0.5))
    chance.shuffle(waiting)
    mounts += waiting
    model = Model(datasets, mounts)
    for mount in mounts:
        parts = mount.point.split("/")
        model.directories |= {"/".join(parts[:n]) or "/" for n in range(1, len(parts) + 1)}
    # Some have a directory at their mount point, and some of these files in it.
    for each in datasets.values():
        if each.mountpoint.startswith("/") and chance.random() < 0.6:
            parts = each.mountpoint.split("/")
            model.directories |= {"/".join(parts[:n]) or "/" for n in range(1, len(parts) + 1)}
            model.occupied |= {each.mountpoint} if chance.random() < 0.2 else set()
    for _ in range(chance.randrange(5)):
        name = chance.choice(sorted(datasets))
        model.snapshots[f"{name}@{chance.choice(SHORT)}"] = replace(chance.choice(FOREIGN))
    if chance.random() < 0.5:
        # As a replica has them: some datasets have the next one already.
        for name in sorted(datasets):
            for txg in range(6, 6 + chance.randrange(4)):
                model.snapshots[f"{name}@auto-{txg}"] = Snapshot(txg)
    for each in model.snapshots.values():
        each.tags = {"keep"} if chance.random() < 0.1 else set()
    return model


def machines() -> st.SearchStrategy[Model]:
    """Return random machines; by random itself, which is five times as fast as drawing all."""
    return st.integers(0, 2**64).map(lambda seed: _machine(random.Random(seed)))


SHORT = ["auto", "restomic-20260101T000000Z-0123456789ab", "kopiatomic-1"]
FOREIGN = [
    Snapshot(1), Snapshot(2, held=True), Snapshot(3, "restomic:other:1"),
    Snapshot(4, "restomic:default2:1"), Snapshot(5, "kopiatomic:default:1"),
    Snapshot(6, "restomic:default:1", "received"), Snapshot(7, "restomic:default"),
]  # fmt: skip


def jobs(model: Model) -> st.SearchStrategy[Job]:
    """Return jobs that select something on a machine."""
    return st.integers(0, 2**64).map(lambda seed: _job(random.Random(seed), model))


def _job(chance: random.Random, model: Model) -> Job:
    patterns = ["*/a", "p/*", "*b*", "[", "zz"]
    job = JOB._replace(
        recursive=chance.random() < 0.5,
        exclude=tuple(chance.choices(patterns, k=chance.choice([0, 0, 1, 2]))),
        before=chance.choice([None, "true"]),
        after_snapshot=chance.choice([None, "true"]),
        after=chance.choice([None, "true"]),
        jailed=chance.random() < 0.3,
        at=chance.choice([None, None, "/mnt"]),
        snapshot=chance.choice([None, None, None, "auto-*", "*", "*[68]"]),
        env_files=chance.choice([(), (), ("/here.env", "/away.env")]),
    )
    if chance.random() < 0.5:
        job = job._replace(everything=True, recursive=False)
    else:
        job = job._replace(targets=_targets(chance, model))
    asked = chance.random() < 0.4 and (job.everything or job.recursive)
    named = any(name in model.datasets and model.datasets[name].type == "volume"
                for name in job.targets)
    # A volume is more than a path.
    return job._replace(volumes=asked, plain=not (asked or named))


def _targets(chance: random.Random, model: Model) -> tuple[str, ...]:
    """Datasets, mount points, and directories."""
    targets = chance.choices(sorted(model.datasets), k=chance.randint(1, 3))
    while chance.random() < 0.4:
        targets.append(_path(chance, model))
    if chance.random() < 0.3:
        # One within another, with a mount between them where there is one.
        mount = chance.choice([mount for mount in model.mounts if mount.type != "devfs"])
        above = chance.choice(ancestors(mount.point)[1:] or ["/"])
        inner = f"{mount.point.rstrip('/')}/{chance.choice(PARTS)}"
        model.directories |= set(ancestors(inner))
        targets = [above, inner]
    if len(targets) > 1 and chance.random() < 0.3:
        targets = [target for target in targets if target[:1] == "/"] or targets
    return tuple(targets)


def _path(chance: random.Random, model: Model) -> str:
    """A mount point, or a directory of what is mounted there, that is there by now."""
    point = chance.choice([mount.point for mount in model.mounts if mount.type != "devfs"])
    inside = chance.choices(PARTS, k=chance.choice([0, 1, 1, 2]))
    path = "/".join([point.rstrip("/"), *inside]) or "/"
    model.directories |= set(ancestors(path))
    return path
