"""Real runs over damaged checkpoints and a full disk: what they say, and that they go on."""

import subprocess
from pathlib import Path

from tests.full_disk import small_disk
from tests.integration.tiny import (
    LAUNCHER,
    PAPER,
    checkpoints,
    errors_of,
    losses,
    said_by,
    start_ranks,
    tiny_config,
    wait_for,
    wait_until,
    write_config,
    write_shards,
)

APART = Path(__file__).with_name("run_apart.py")
LASTING = (
    *(PAPER, "train.checkpoint_every=2", "train.pictures_every=100"),
    "optimizer.schedule=constant",
)


def start(folder: Path, output: Path, steps: int, *overrides: str) -> list[subprocess.Popen[str]]:
    """Two ranks of the run in ``output``, up to ``steps``."""
    shards = folder / "shards"
    if not shards.exists():
        write_shards(shards)
    overrides = (*LASTING, *overrides, f"train.steps={steps}")
    file = write_config(tiny_config(output, str(shards), *overrides), folder / "run.yaml")
    return start_ranks(2, LAUNCHER, "--config", str(file))


def test_damaged_newest_costs_the_steps_since_the_one_before(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert wait_for(start(tmp_path, output, 6, "train.zero_stage=1")) == [0, 0]
    assert checkpoints(output) == [4, 6]
    before = losses(output)

    newest = output / "checkpoints/step-00000006"
    file = newest / "state/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    said, codes = said_by(start(tmp_path, output, 7, "train.zero_stage=1"))
    assert codes == [0, 0]
    warning = f"passing over the damaged checkpoint {newest}: {file} is not what was written"
    assert warning in said[0]
    assert losses(output)[:6] == before
    assert len(losses(output)) == 7


def test_full_disk_while_checkpointing(tmp_path: Path) -> None:
    """Room for the exported encoder (6 MB), not for the optimiser's pieces (8 MB each)."""
    output = tmp_path / "disk" / "out"
    with small_disk(tmp_path / "disk", 128 * 2**20) as filled_but_for:
        assert wait_for(start(tmp_path, output, 2, "train.zero_stage=1")) == [0, 0]
        with filled_but_for(7_500_000):
            for error in errors_of(start(tmp_path, output, 6, "train.zero_stage=1")):
                assert f"{output}/checkpoints cannot hold a checkpoint of 16.8 MiB" in error
                assert "free some space there, or choose another output" in error
        assert len(losses(output)) == 2, "no step was done in vain"

        ranks = start(tmp_path, output, 100_000, "train.zero_stage=1", "train.checkpoint_every=20")
        wait_until(lambda: len(losses(output)) > 2, timeout_s=300)
        with filled_but_for(7_500_000):
            for error in errors_of(ranks):
                assert f"{output}/checkpoints/step-00000020 could not be written" in error
                assert "step-00000002 stays current. Free some space" in error
        assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000002"]

        assert wait_for(start(tmp_path, output, 4, "train.zero_stage=1")) == [0, 0]
        assert checkpoints(output) == [2, 4]
        assert len(losses(output)) == 4


def test_outputs_apart_are_refused_without_storage(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "unused", write_shards(tmp_path / "shards"))
    file = write_config(config, tmp_path / "run.yaml")
    for error in errors_of(start_ranks(2, APART, str(tmp_path), "--config", str(file))):
        assert "checkpoints is not the same folder for all ranks" in error
