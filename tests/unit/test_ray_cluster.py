"""What a run asks of a Ray cluster, worked out from its configuration."""

from contextlib import nullcontext
from typing import Any

import pytest
from ray.dashboard.utils import get_address_for_submission_client

from launch import ray_cluster
from launch.ray_cluster import check_workers, scaling_config, support_bundles
from primus_scale.config import Config
from primus_scale.config_file import parse_config


def config(**sections: Any) -> Config:
    tree = {"name": "run", "output": "out", "data": {"train": ["shards"]}, **sections}
    return parse_config(Config, tree, source="test")


def test_every_number_of_workers_must_divide_the_batch() -> None:
    check_workers(config(launch={"workers": [1, 4]}, train={"batch": 24, "accumulation": 2}))
    with pytest.raises(ValueError, match=r"each number of workers from 1 to 4 .* multiple of 12"):
        check_workers(config(launch={"workers": [1, 4]}, train={"batch": 16}))
    with pytest.raises(ValueError, match="multiple of 24"):
        check_workers(config(launch={"workers": [1, 4]}, train={"batch": 12, "accumulation": 2}))


def test_elastic_workers_beside_actors_that_hold_resources_are_refused() -> None:
    service = {"home": "service", "cpus_per_actor": 0.5}
    with pytest.raises(ValueError, match=r"support\.cpus_per_actor=0\.5"):
        check_workers(config(launch={"workers": [1, 2]}, support=service))
    check_workers(config(launch={"workers": 2}, support=service))
    check_workers(config(launch={"workers": [1, 2]}, support={"home": "service"}))


@pytest.mark.parametrize("workers", [0, [0, 2], [3, 2], [1, 2, 3], "many"])
def test_a_number_of_workers_that_cannot_be_is_refused(workers: object) -> None:
    with pytest.raises(ValueError, match=r"launch\.workers"):
        config(launch={"workers": workers})


def test_scaling_takes_workers_resources_and_labels() -> None:
    fixed = scaling_config(config(launch={"workers": 3, "cpus_per_worker": 2}).launch)
    assert fixed.num_workers == 3
    assert fixed.resources_per_worker == {"CPU": 2}
    assert not fixed.use_gpu

    launch = {
        "workers": [2, 5],
        "gpus_per_worker": 1,
        "resize_every_s": 7,
        "labels": {"ray.io/accelerator-type": "H100"},
    }
    elastic = scaling_config(config(launch=launch).launch)
    assert elastic.num_workers == (2, 5)
    assert elastic.resources_per_worker == {"CPU": 1, "GPU": 1}
    assert elastic.use_gpu
    assert elastic.label_selector == {"ray.io/accelerator-type": "H100"}
    assert elastic.elastic_resize_monitor_interval_s == 7


def test_support_actors_have_bundles_only_for_what_they_ask() -> None:
    service = {"home": "service", "actors": 3}
    assert support_bundles(config(support=service)) == []
    assert support_bundles(config(support={**service, "gpus_per_actor": 1})) == [{"GPU": 1}] * 3
    both = {**service, "gpus_per_actor": 0.5, "cpus_per_actor": 2}
    assert support_bundles(config(support=both)) == [{"CPU": 2, "GPU": 0.5}] * 3
    assert support_bundles(config(support={"gpus_per_actor": 1})) == []
    without = {f"neighbour_{modality}": 0.0 for modality in ("video", "text", "imu")}
    nothing = config(support={**service, "gpus_per_actor": 1}, objective={"weights": without})
    assert support_bundles(nothing) == []


def test_a_run_alone_asks_no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says which, Ray's helpers ask the dashboard of any cluster on this machine."""
    monkeypatch.setattr(ray_cluster, "ray_cluster", nullcontext)
    monkeypatch.setattr(ray_cluster, "_check_output", lambda _: None)
    monkeypatch.setattr(ray_cluster, "_check_room", lambda _: None)
    for name in ray_cluster.RAY_SETTINGS | ray_cluster.ALONE_SETTINGS:
        monkeypatch.setenv(name, "")  # and what the connection sets ends with the test
    for cluster, asked in (("", "http://127.0.0.1:0"), ("ray.test:1", "http://other:8265")):
        monkeypatch.setenv("RAY_ADDRESS", cluster)
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
        with ray_cluster.connected(config()):
            assert get_address_for_submission_client(None) == asked
