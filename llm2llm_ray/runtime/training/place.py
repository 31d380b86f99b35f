"""The placement group of the training workers: remembered in the run, so that the next driver can free what a dead one held.

Ray removes a placement group when its job ends, not when its creator dies; Ray Train has an actor for that, which the same
memory pressure that kills a driver can take too. Seen with `ray start --head` on 2 cores: the driver came back by itself, and
its training waited without end for the CPU that the dead one's workers had reserved.
"""

from __future__ import annotations

import json

import ray
from ray.util import get_current_placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from llm2llm_ray.storage.files import Files

PATH = "train/place.json"


def remember_place(files: Files) -> None:
    """Called by a training worker."""
    group = get_current_placement_group()
    if group is not None:
        files.replace(PATH, json.dumps({"placement_group": group.id.hex()}).encode())


def free_place(files: Files) -> bool:
    """Remove the placement group that earlier workers of this run left reserved on this cluster; whether there was one.

    Called by whoever drives the run now: no other can, so nobody works there any more.
    """
    if not files.exists(PATH):
        return False
    name = files.read_json(PATH)["placement_group"]
    known = placement_group_table().get(name)
    if known is None or known["state"] == "REMOVED":
        return False
    remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
    return True
