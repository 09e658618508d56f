"""Runs as histories have them, and what is asked of the machine beside these."""

import json
import time

from kopiatomic.monitoring import history
from kopiatomic.monitoring.history import PastRun
from kopiatomic.state import Place

PLACE = Place("restomic", "default")
MOUNT = ["mount", "-v", "--libxo", "json"]
MARKED = "zfs get -H -t snapshot,volume -s local -o name org.kopiatomic:run"
MARKS = "zfs get -Hp -o name,source,value org.kopiatomic:run"
LISTED = "zfs list -H -o name -s name -t snapshot,volume"
NOW = 1_795_420_800.0  # 2026-11-23 08:00:00 UTC
HOUR, DAY = 3600.0, 86400.0


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(NOW - seconds))


def entry(seconds: float, outcome: str = "success", /, **changes):
    return {
        "outcome": outcome, "began": ago(seconds + 2), "moment": ago(seconds), "seconds": 62,
        "captured": [{"dataset": f"t/{n}", "mountpoint": f"/{n}"} for n in "ab"],
        "client": {"added": 4096, "new_or_changed": 7}, **changes,
    }  # fmt: skip


def run(seconds: float, outcome: str = "success", /, **changes) -> PastRun:
    return history.run_of(entry(seconds, outcome, **changes))


def see_snapshots(fp, marked: dict[str, str], *others: str, times: int = 1) -> None:
    """Answer what there is: snapshots by their marks, and those that bear none."""
    for _ in range(times):
        fp.register("zpool list -Hp -o name,readonly,health", stdout="t\toff\tONLINE\n")
        fp.register(LISTED, stdout="".join(f"{each}\n" for each in sorted([*marked, *others])))
        if marked:
            ours = [each for each in sorted(marked) if "@restomic-" in each or "@kopi" in each]
            text = "".join(f"{each}\tlocal\t{marked[each]}\n" for each in ours)
            fp.register([*MARKS.split(), *ours], stdout=text)


def mount_table(*points: str) -> str:
    mounted = [{"special": "/", "node": point, "fstype": "nullfs"} for point in points]
    return json.dumps({"mount": {"mounted": mounted}})
