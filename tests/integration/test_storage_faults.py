"""A run goes on by itself where object storage answers 503, stalls, resets or is away."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from primus_scale.config import DataConfig
from primus_scale.data.reader import batches
from primus_scale.data.shard_set import ShardSet
from primus_scale.storage.folder import Folder
from primus_scale.storage.patience import Patience
from primus_scale.train.trainer import pretrain
from tests.faulty_proxy import Fault, FaultyProxy
from tests.integration.tiny import (
    BLOCK,
    LAUNCHER,
    PAPER,
    checkpoints,
    errors_of,
    forked,
    last_step,
    losses,
    records,
    said_by,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)
from tests.s3_server import forget_connections, s3_server

FAULTS: dict[Fault, float] = {"503": 3.0, "stall": 3.0, "reset": 3.0, "gone": 5.0}  # seconds
WINDOWS, STEPS = 320, 60
# Faults must come before the run ends, so that its steps are those of the paper's encoder.
READING = (PAPER, "data.shuffle_blocks=1", "train.pictures_every=1000")
NOTICED = "data.timeout_s=1"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between the server and all that is opened meanwhile, here and in processes that start."""
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        forget_connections()
        yield proxy
        forget_connections()


@pytest.fixture(scope="module")
def train(bucket: str) -> str:
    return write_shards(f"{bucket}/train", WINDOWS)


@pytest.fixture(scope="module")
def straight(train: str, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of the run that nothing disturbs, of a rank of its own."""
    folder = tmp_path_factory.mktemp("straight")
    config = tiny_config(folder / "out", train, f"train.steps={STEPS}", *READING)
    file = write_config(config, folder / "run.yaml")
    (said,), codes = said_by(start_ranks(1, LAUNCHER, "--config", str(file)))
    assert codes == [0]
    assert "answer" not in said
    assert not records(folder / "out")[-1]["speed/retries"]
    return losses(folder / "out")


def test_training_goes_through_every_fault(
    train: str, straight: list[float], proxy: FaultyProxy, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    config = tiny_config(output, train, f"train.steps={STEPS}", NOTICED, *READING)
    file = write_config(config, tmp_path / "run.yaml")
    ranks = start_ranks(1, LAUNCHER, "--config", str(file))
    for fault, seconds in FAULTS.items():
        go_through(fault, seconds, output, proxy)
    (said,), codes = said_by(ranks)
    assert codes == [0]
    told = [line for line in said.splitlines() if "answer" in line]
    assert 0 < len(told) <= 2 * len(FAULTS), "never a flood"
    assert records(output)[-1]["speed/retries"]
    assert len(straight) == STEPS
    assert losses(output) == straight


def test_run_ends_where_patience_does_and_goes_on_later(
    bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    train = write_shards(f"{bucket}/patience", 160)
    overrides = ("train.steps=20", NOTICED, *READING)
    assert pretrain(tiny_config(tmp_path / "straight", train, *overrides)) == 0
    output = tmp_path / "out"
    config = tiny_config(output, train, *overrides, "data.patience_s=2")
    file = str(write_config(config, tmp_path / "run.yaml"))
    ranks = start_ranks(2, LAUNCHER, "--config", file)
    wait_until(lambda: last_step(output) > 2)
    proxy.fault = "gone"
    for error in errors_of(ranks):
        assert f"error: {train}/shard-" in error
        assert "has not answered for 2 s" in error
    assert checkpoints(output) == [last_step(output)], "no step is lost"
    proxy.fault = None
    assert wait_for(start_ranks(2, LAUNCHER, "--config", file)) == [0, 0]
    assert losses(output) == pytest.approx(losses(tmp_path / "straight"), rel=1e-4)


def test_ray_starts_the_workers_again_where_patience_ends(
    train: str, straight: list[float], proxy: FaultyProxy, tmp_path: Path
) -> None:
    overrides = (f"train.steps={STEPS}", NOTICED, *READING, "data.patience_s=2")
    output = tmp_path / "out"
    config = tiny_config(output, train, *overrides, "launch.max_failures=20")
    file = str(write_config(config, tmp_path / "run.yaml"))
    with forked("launch.ray_train", "--config", file) as driver:
        wait_until(lambda: last_step(output) > 2, timeout_s=300)  # Ray is slow to start
        proxy.fault = "gone"
        wait_until(lambda: checkpoints(output))
        assert checkpoints(output) == [last_step(output)], "no step is lost"
        proxy.fault, back = None, time.monotonic()
        before = last_step(output)
        wait_until(lambda: last_step(output) > before)
        print(f"the next step {time.monotonic() - back:.1f} s after storage is back")
        (said,), codes = said_by([driver])
    assert codes == [0]
    assert "has not answered for 2 s" in said
    assert losses(output) == straight


def go_through(fault: Fault, seconds: float, output: Path, proxy: FaultyProxy) -> None:
    """Have a run in progress meet ``fault``, and wait for its next step after it."""
    before = last_step(output)
    wait_until(lambda: last_step(output) > before + 3)
    struck = proxy.struck
    proxy.fault = fault
    wait_until(lambda: proxy.struck > struck or fault == "gone")
    time.sleep(seconds)
    proxy.fault = None
    back, before = time.monotonic(), last_step(output)
    wait_until(lambda: last_step(output) > before)
    print(f"{fault} for {seconds:g} s: the next step {time.monotonic() - back:.1f} s after it")


@pytest.mark.parametrize("fault", FAULTS)
def test_writing_goes_through_every_fault(
    bucket: str, proxy: FaultyProxy, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(f"{bucket}/written-{fault}", Patience(timeout_s=1.0, total_s=60.0))
    proxy.fault = fault
    with ThreadPoolExecutor(1) as later:
        later.submit(lambda: (time.sleep(2.5), setattr(proxy, "fault", None)))
        with folder.staging("file") as path:
            path.write_bytes(b"abc")
        assert folder.read("file") == b"abc"
    assert f"{bucket}/written-{fault}/file does not answer" in caplog.messages[0]
    assert len(caplog.messages) == 2
    assert folder.patience.retries > 0


@pytest.mark.parametrize("fault", ["stall", "gone"])
def test_patience_ends(bucket: str, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.fault = fault
    start = time.monotonic()
    told = rf"{bucket}/a/index\.json has not answered for 1 s .*start again"
    with pytest.raises((ConnectionError, TimeoutError), match=told):
        ShardSet.open(f"{bucket}/a", Patience(timeout_s=0.5, total_s=1.0))
    assert time.monotonic() - start < 10


def test_what_will_not_pass_is_not_repeated(bucket: str, proxy: FaultyProxy) -> None:
    folder = Folder(f"{bucket}/nowhere")
    with pytest.raises(FileNotFoundError):
        folder.read("file")
    assert folder.names() == []
    assert folder.patience.retries == 0


@pytest.mark.parametrize("fault", ["stall", "gone"])
def test_a_loader_that_waits_closes_at_once(bucket: str, proxy: FaultyProxy, fault: Fault) -> None:
    url = write_shards(f"{bucket}/closed-{fault}", 10 * BLOCK)
    config = DataConfig(train=(url,), shuffle_blocks=1)
    with batches(config, ShardSet.open(url), batch=BLOCK, seed=0) as loader:
        next(loader)
        time.sleep(1.0)  # until those read ahead are there
        proxy.fault = fault
        next(loader)  # one of them, and begins to read another
        time.sleep(1.0)
        start = time.monotonic()
    assert time.monotonic() - start < 2, "far below data.timeout_s"
    assert fault == "gone" or proxy.struck
