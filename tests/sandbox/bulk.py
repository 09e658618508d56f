"""Creates many datasets from a job on standard input; runs inside, see Host.create_datasets."""

from __future__ import annotations

import json
import sys

from sandbox.datasets import World
from sandbox.state import State

with State() as state:
    job = json.load(sys.stdin)
    world = World(state)
    txg = state.next_txg()
    state.begin()
    made = []
    for name in job["names"]:
        if name in world.datasets:
            continue
        if name.rpartition("/")[0] not in world.datasets:
            sys.exit(f"cannot create '{name}': parent does not exist")
        made.append(world.create(name, "filesystem", job["properties"], txg))
    state.commit()
    for dataset in made:
        if world.automatic(dataset):
            world.mount_at_property(dataset)
