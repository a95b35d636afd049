"""Planted secrets stay out of all that runs write and say; runs listen on loopback only."""

import base64
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.ray_train import main
from primus_scale.train.trainer import REQUEUE
from tests.integration.ray_head import scratch_folder
from tests.integration.tiny import (
    forked,
    free_port,
    last_step,
    newest_checkpoint,
    tiny_config,
    wait_until,
    write_config,
    write_shards,
)
from tests.listening import listening
from tests.s3_server import KEY, SECRET, forget_connections, s3_server

# Found in no file by chance. The server knows those of S3, so that a run can read from it.
PLANTED = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "HF_TOKEN": f"hf_{secrets.token_hex(16)}",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
WRONG = "planted-in-a-failing-run"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as bucket:
        yield write_shards(f"{bucket}/train")


def told_in(data: bytes) -> list[str]:
    """Names of the planted secrets that ``data`` tells, as they are or in base64."""
    return [
        name
        for name, secret in (*PLANTED.items(), ("WRONG", WRONG))
        if secret.encode() in data or base64.b64encode(secret.encode())[:-4] in data
    ]


def files_that_tell(folder: Path) -> dict[str, list[str]]:
    """Files below ``folder`` with a planted secret in their content or their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    told = {str(path): told_in(path.read_bytes() + bytes(path)) for path in files}
    return {path: names for path, names in told.items() if names}


def test_a_run_under_ray_tells_no_secret_and_listens_on_loopback(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    overrides = ("train.steps=100000", "train.pictures_every=5", "train.validate_every=5")
    file = write_config(tiny_config(output, shards, *overrides), tmp_path / "run.yaml")
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with scratch_folder() as session:
        monkeypatch.setenv("RAY_TMPDIR", session)
        with forked("launch.ray_train", "--config", str(file)) as driver:
            wait_until((output / "metrics.jsonl").is_file, timeout_s=300)  # Ray is slow to start
            found = listening(driver.pid)
            driver.send_signal(signal.SIGTERM)
            said, _ = driver.communicate(timeout=120)
            assert driver.returncode == REQUEUE, said
        assert files_that_tell(Path(session)) == {}, "Ray's own records"
    assert "step 1/100000" in said
    assert newest_checkpoint(output) == last_step(output) > 0, (
        "SIGTERM to the driver: no step is lost"
    )
    assert told_in(said.encode()) == []
    assert files_that_tell(output) == {}
    assert {"config.yaml", "environment.json", "checkpoints", "tensorboard", "ray"} <= {
        path.name for path in output.iterdir()
    }
    assert found
    assert all(each.on_loopback for each in found), found


@pytest.mark.parametrize(
    ("environment", "override", "problem"),
    [
        ({"AWS_SECRET_ACCESS_KEY": WRONG}, "", "check the URL and credentials"),
        ({"AWS_ACCESS_KEY_ID": WRONG}, "", "check the URL and credentials"),
        ({"AWS_SESSION_TOKEN": WRONG}, "", "check the URL and credentials"),
        ({"AWS_ENDPOINT_URL": "http://user:{}@127.0.0.1:{}"}, "", "has not answered for 0 s"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{1}"}, "", "has not answered for 0 s"),
        ({}, "data.train=['http://user:{}@127.0.0.1:{}/shards']", "has credentials"),
        ({}, "data.train=['http://127.0.0.1:{1}/shards?token={0}']", "has credentials"),
    ],
)
def test_a_run_that_fails_tells_no_secret(
    environment: dict[str, str],
    override: str,
    problem: str,
    shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = tiny_config(tmp_path / "out", shards, "data.patience_s=0")
    file = write_config(config, tmp_path / "run.yaml")
    for name, secret in {**PLANTED, **environment, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, secret.format(WRONG, free_port()))
    forget_connections()
    overrides = [override.format(WRONG, free_port())] if override else []
    try:
        assert main(["--config", str(file), *overrides]) == 1
    finally:
        forget_connections()
    said = "".join(capfd.readouterr())
    assert problem in said
    assert "Traceback" not in said
    assert told_in(said.encode()) == []
    assert files_that_tell(tmp_path) == {}
