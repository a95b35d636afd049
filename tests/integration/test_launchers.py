"""The same loop under the deepspeed launcher and under Ray."""

import sys
from pathlib import Path

from primus_scale.config import Config
from primus_scale.train import trainer
from tests.conftest import require
from tests.integration.tiny import (
    LAUNCHER,
    forked,
    free_port,
    losses,
    started,
    tiny_config,
    wait_for,
    write_config,
    write_shards,
)


def test_deepspeed_launcher(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("deepspeed")
    require(program.is_file(), "the deepspeed command is not installed")
    config = tiny_config(tmp_path / "out", write_shards(tmp_path / "shards"))
    file = write_config(config, tmp_path / "run.yaml")
    arguments = ("--num_gpus", "2", "--master_port", str(free_port()))
    command = (sys.executable, str(program), *arguments, str(LAUNCHER), "--config", str(file))
    with started(*command) as launcher:
        assert wait_for([launcher]) == [0]
    assert len(losses(tmp_path / "out")) == 6
    assert (tmp_path / "out/encoder/card.json").is_file()


def refusal_of_ray(config: Config, file: Path) -> str:
    """What the Ray launcher prints where it ends with 1 and no traceback."""
    write_config(config, file)
    with forked("launch.ray_train", "--config", str(file)) as driver:
        output, _ = driver.communicate(timeout=240)
        assert driver.returncode == 1, output
    assert "Traceback" not in output
    return output


def test_ray_refuses_bad_input_before_it_starts_anything(tmp_path: Path) -> None:
    shards, file = write_shards(tmp_path / "shards"), tmp_path / "run.yaml"
    config = tiny_config(tmp_path / "out", shards, "launch.workers=3")
    assert "train.batch=8 does not divide by 3 ranks" in refusal_of_ray(config, file)
    (tmp_path / "file").touch()
    config = tiny_config(tmp_path / "file" / "out", shards)
    assert f"cannot write {tmp_path / 'file' / 'out'}" in refusal_of_ray(config, file)


def test_ray_refuses_what_this_machine_has_not(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    config = tiny_config(tmp_path / "out", shards, "launch.gpus_per_worker=1000")
    output = refusal_of_ray(config, tmp_path / "run.yaml")
    assert (
        "launch.workers=1 x launch.gpus_per_worker=1000 need 1000 GPUs, this machine has" in output
    )


def test_ray_does_not_try_again_what_a_user_must_mend(tmp_path: Path) -> None:
    output, shards = tmp_path / "out", write_shards(tmp_path / "shards")
    trainer.pretrain(tiny_config(output, shards, "train.steps=1"))
    other = tiny_config(output, shards, "optimizer.lr=0.5", "launch.max_failures=3")
    printed = refusal_of_ray(other, tmp_path / "run.yaml")
    assert "ray_train: error: " in printed
    assert "optimizer.lr" in printed.partition("ray_train: error: ")[2]
    assert printed.count("global batch 8 =") == 1  # a worker prints it when it sets out
