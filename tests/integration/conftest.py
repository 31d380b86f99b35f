"""One real Ray for each module of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tiny import make_tiny_model


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """A local Ray of 4 logical CPUs for the module; its address. Nothing of it is left behind."""
    import ray

    context = ray.init(
        address="local",  # another test process may have its own
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level="warning",
        runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(__file__)}},
    )
    yield str(context.address_info["address"])
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
