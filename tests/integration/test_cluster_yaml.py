"""cluster/ as Ray itself reads it: `ray up`'s validator, the autoscaler's view of the RayCluster, `ray start`'s options.

Starts no Ray; seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm_ray.config.profiles import PROFILES

pytestmark = pytest.mark.integration
CLUSTER = Path(__file__).parents[2] / "cluster"
sys.path.insert(0, str(CLUSTER))

import local_cluster  # noqa: E402


def ray_up() -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / "ray-up.yaml").read_text()))


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it talks to a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return dict(prepared)


def test_ray_up_accepts_the_yaml_and_keeps_the_labels() -> None:
    node_types = checked(ray_up())["available_node_types"]
    assert {name: kind["labels"] for name, kind in node_types.items() if kind.get("labels")} == PROFILES["pools"]["cluster"][
        "labels"
    ]
    assert node_types["teacher"]["max_workers"] == 4


@pytest.mark.parametrize(
    ("key", "value"), [("head_node_type", "boss"), ("max_workers", 1), ("docker", {"images": "x"}), ("idle_timeout", 3)]
)
def test_that_validator_sees_mistakes(key: str, value: object) -> None:
    import jsonschema

    with pytest.raises((ValueError, jsonschema.ValidationError)):
        checked(ray_up() | {key: value})


def test_rays_autoscaler_reads_the_pools_from_the_raycluster() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = yaml.safe_load((CLUSTER / "kuberay-raycluster.yaml").read_text())
    cluster["metadata"]["namespace"] = "default"
    derived = _derive_autoscaling_config_from_ray_cr(cluster)
    wanted = PROFILES["pools"]["cluster"]["labels"]
    for pool, labels in wanted.items():
        kind = derived["available_node_types"][pool]
        assert kind["labels"] == labels
        assert (kind["resources"]["GPU"], kind["resources"]["CPU"]) == (1, 8)
        assert kind["min_workers"] == 1
    assert derived["available_node_types"]["headgroup"]["resources"]["CPU"] == 0


def test_ray_start_knows_every_option_that_the_local_cluster_gives() -> None:
    from ray._private.label_utils import parse_node_labels_string
    from ray.scripts.scripts import start

    head = local_cluster.head_command(6479, 8265, [7001, 7002, 7003], Path("/tmp/x"))
    worker = local_cluster.worker_command("train", "train", 6479, 2, [7004])
    for command in (head, worker):
        start.make_context("start", command[command.index("start") + 1 :])
    parsed = start.make_context("start", worker[worker.index("start") + 1 :]).params
    assert parse_node_labels_string(parsed["labels"]) == PROFILES["pools"]["cluster"]["labels"]["train"]
    assert (parsed["num_cpus"], parsed["block"]) == (2, True)
