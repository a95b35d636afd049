"""Pictures that the devices of a moment share, from raw recordings to packed shards."""

import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primus_scale.data.reader import load_windows
from primus_scale.data.shard_set import ShardSet
from primus_scale.teachers import build_teacher, embed_windows
from primus_scale.teachers.hub import FrameTower
from shards.embed import embed as stage
from shards.embed.embed import embed
from shards.ingest.frame_reader import FrameReader
from shards.ingest.ingest import ingest
from shards.ingest.recording_maker import IngestJob
from tests.recording_factory import acceleration, make_settings, rotation, sample_times
from tests.shard_factory import make_windows, write_windows
from tests.teacher_models import save_model
from tests.video_factory import numbered_picture, write_video

SECONDS, MOMENTS, FRAMES = 8.0, 4, 2
RECORDINGS = ("anna", "ben")
SENSORS = """
      - file: {name}.npy
        columns: {{acc_x: 1, acc_y: 2, acc_z: 3}}
        unit: m/s2
        time: {{column: 0, unit: s}}
      - file: {name}.npy
        columns: {{gyr_x: 4, gyr_y: 5, gyr_z: 6}}
        unit: rad/s
        time: {{column: 0, unit: s}}
"""


def write_rides(root: Path, devices: int) -> None:
    """Two recordings with video, of several devices."""
    lines = ['recordings: "{person}"', "video: {file: ride.mp4}", "devices:"]
    for device in range(devices):
        lines += [f"  - name: imu {device}", "    placement: chest", "    sensors:"]
        lines += [SENSORS.format(name=f"imu-{device}").strip("\n")]
    for number, person in enumerate(RECORDINGS):
        folder = root / person
        folder.mkdir(parents=True)
        pictures = (numbered_picture(100 * number + frame) for frame in range(80))
        write_video(folder / "ride.mp4", pictures, rate_fps=10)
        for device in range(devices):
            time_s = sample_times(100.0, SECONDS + 0.5)
            noise = np.random.default_rng([number, device]).normal(0, 0.01, (len(time_s), 6))
            imu = np.concatenate([acceleration(time_s), rotation(time_s)], axis=1) + noise
            np.save(folder / f"imu-{device}.npy", np.concatenate([time_s[:, None], imu], axis=1))
    (root / "recording.yaml").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("clip"), "clip"))


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


@pytest.mark.parametrize("devices", [2, 3])
def test_a_picture_is_compressed_and_embedded_once_however_many_devices_share_it(
    devices: int, tmp_path: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed: list[bytes] = []
    embedded: list[bytes] = []
    compress, forward = FrameReader._jpeg, FrameTower.forward

    def counting_jpeg(video: FrameReader, picture: np.ndarray) -> bytes:
        compressed.append(compress(video, picture))
        return compressed[-1]

    def counting_forward(tower: FrameTower, units: list[bytes]) -> object:
        embedded.extend(units)
        return forward(tower, units)

    monkeypatch.setattr(FrameReader, "_jpeg", counting_jpeg)
    monkeypatch.setattr(FrameTower, "forward", counting_forward)
    monkeypatch.setattr(stage, "GROUP_WINDOWS", 5)  # no whole number of moments
    write_rides(tmp_path / "rides", devices)
    windows, packed = str(tmp_path / "windows"), str(tmp_path / "packed")
    settings = make_settings(frames=FRAMES, require=("video",))
    ingest(IngestJob("folder", str(tmp_path / "rides"), windows, settings), report=quiet)

    source = ShardSet.open(windows)
    stored = [source.read_window(number) for number in range(len(source))]
    moments = [(w.meta.recording, w.meta.start_s) for w in stored]
    assert moments == sorted(moments), "devices of a moment stand side by side"
    assert len(stored) == devices * MOMENTS * len(RECORDINGS)
    assert len(compressed) == len(set(compressed)) == FRAMES * MOMENTS * len(RECORDINGS)

    embed(windows, packed, video=clip, block=4, threads=1, report=quiet)
    assert sorted(embedded) == sorted(compressed)

    loaded = load_windows(packed)
    frames = {w.meta.uid: w.frames for w in stored}
    expected, _ = embed_windows(
        build_teacher("video", clip, "cpu"), [frames[uid] for uid in loaded.batch.uid.tolist()]
    )
    np.testing.assert_allclose(loaded.batch.embeddings["video"], expected, atol=5e-4)
    order = [(meta.recording, meta.start_s) for meta in loaded.metas]
    assert order != sorted(order), "shuffled when they are packed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files left open
def test_documented_streaming_by_webdataset_mixes_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippet of docs/ingest.md, on window shards in the order of their recordings."""
    write_windows(str(tmp_path / "shards/rides"), make_windows(60), shard_bytes=30_000)
    page = (Path(__file__).parents[2] / "docs/ingest.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert len(names["urls"]) > 3
    metas = [json.loads(sample["meta.json"]) for sample in names["windows"]]
    gc.collect()  # of the files that WebDataset leaves open
    assert len({meta["uid"] for meta in metas}) == len(metas) == 60
    first = {meta["recording"] for meta in metas[:12]}
    assert len(first) >= 4, "a dozen of six recordings of ten"
