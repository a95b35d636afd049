"""The manifests in launch/: they pass their schemas, and what they name and start is there."""

import copy
import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from launch.ray_cluster import RAY_SETTINGS, support_bundles, worker_resources
from primus_scale.config import Config
from primus_scale.config_file import load_config

ROOT = Path(__file__).parents[2]
RAYJOB, CLUSTER = ROOT / "launch/kuberay/rayjob.yaml", ROOT / "launch/cluster.yaml"
RAYJOB_SCHEMA = json.loads((ROOT / "tests/rayjob_schema.json").read_text())
RAY_SCHEMA = json.loads(Path(ray.__path__[0], "autoscaler/ray-schema.json").read_text())
KUBERNETES = "1.33"
IMAGE_ROOT = "/app"


@pytest.fixture
def claim() -> dict[str, Any]:
    return next(yaml.safe_load_all(RAYJOB.read_text()))


@pytest.fixture
def job() -> dict[str, Any]:
    return list(yaml.safe_load_all(RAYJOB.read_text()))[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text())


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's group and the workers'."""
    spec = job["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in groups(job)]


def check_job(job: dict[str, Any]) -> None:
    jsonschema.validate(job, RAYJOB_SCHEMA)
    for group in groups(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_rayjob_passes_its_schemas(claim: dict[str, Any], job: dict[str, Any]) -> None:
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    check_job(job)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(shutDownAfterJobFinishes=True),
        lambda job: job["spec"].update(backoffLimit="3"),
        lambda job: job["spec"]["rayClusterSpec"].update(authOptions={"mode": "tokens"}),
        lambda job: groups(job)[0]["rayStartParams"].update({"num-cpus": 0}),
        lambda job: groups(job)[1].pop("groupName"),
        lambda job: pods(job)[0].update(volume=[]),
        lambda job: pods(job)[1]["containers"][0]["env"][0].pop("name"),
        lambda job: pods(job)[1]["containers"][0].update(volumeMounts=[{"name": "shared"}]),
    ],
)
def test_a_mistake_in_the_rayjob_is_found(
    spoil: Callable[[dict[str, Any]], None], job: dict[str, Any]
) -> None:
    spoiled = copy.deepcopy(job)
    spoil(spoiled)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_job(spoiled)


def test_rayjob_has_the_tested_ray_and_a_token(job: dict[str, Any]) -> None:
    spec = job["spec"]["rayClusterSpec"]
    assert f"ray=={spec['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    assert spec["authOptions"] == {"mode": "token"}


def run_of(entrypoint: str) -> Config:
    """The configuration that the entrypoint runs, with the image's files found in this checkout."""
    python, option, module, flag, file, *overrides = shlex.split(entrypoint)
    assert (python, option, flag) == ("python", "-m", "--config")
    assert importlib.util.find_spec(module) is not None
    return load_config(ROOT / Path(file).relative_to(IMAGE_ROOT), overrides)


def test_rayjob_starts_a_run_for_which_it_has_room(job: dict[str, Any]) -> None:
    config = run_of(job["spec"]["entrypoint"])
    workers = groups(job)[1]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    needs = [worker_resources(config.launch)] * config.launch.worker_counts[-1]
    needs += support_bundles(config)
    for kind, limit in (("CPU", limits["cpu"]), ("GPU", limits["nvidia.com/gpu"])):
        assert sum(need.get(kind, 0) for need in needs) <= workers["replicas"] * int(limit)
        assert max(need.get(kind, 0) for need in needs) <= int(limit)
    assert groups(job)[0]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


def test_rayjob_writes_where_its_pods_share(claim: dict[str, Any], job: dict[str, Any]) -> None:
    output = Path(run_of(job["spec"]["entrypoint"]).output)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(job):
        (container,) = pod["containers"]
        assert container["workingDir"] == IMAGE_ROOT
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert mounts.keys() == volumes.keys()
        (shared,) = [name for name, path in mounts.items() if output.is_relative_to(path)]
        claimed = volumes[shared]["persistentVolumeClaim"]["claimName"]
        assert claimed == claim["metadata"]["name"]


def test_rayjob_takes_credentials_from_a_secret(job: dict[str, Any]) -> None:
    text = RAYJOB.read_text()
    assert "kubectl create secret generic primus-scale-s3" in text
    for pod in pods(job):
        variables = {each["name"]: each for each in pod["containers"][0]["env"]}
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            source = variables.pop(name)["valueFrom"]["secretKeyRef"]
            assert source == {"name": "primus-scale-s3", "key": name}
            assert f"--from-literal={name}=" in text
        assert variables["RAY_worker_niceness"]["value"] == RAY_SETTINGS["RAY_worker_niceness"]
        assert set(variables) == {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "RAY_worker_niceness"}


def test_cluster_passes_the_schema_of_ray(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, RAY_SCHEMA)
    prepared = prepare_config(cluster)
    validate_config(prepared)
    (nodes,) = prepared["available_node_types"].values()
    assert nodes["min_workers"] == len(cluster["provider"]["worker_ips"])


def test_cluster_has_a_token_everywhere(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    commands = [cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in command for command in commands)
    assert "--dashboard-host=127.0.0.1" in commands[0]
    assert not re.search(r"RAY_AUTH_TOKEN=\S", CLUSTER.read_text())


def test_ray_start_knows_all_options(cluster: dict[str, Any], job: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        *_, command = cluster[f"{role}_start_ray_commands"]
        words = [word for word in shlex.split(command) if "=" not in word or word[0] == "-"]
        program, verb, *options = words
        assert (Path(program).name, verb) == ("ray", "start")
        with start.make_context("start", options):
            pass
    known = {name for option in start.params for name in option.opts}
    for group in groups(job):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known
    with pytest.raises(click.NoSuchOption):
        start.make_context("start", ["--dashbord-host=127.0.0.1"])
