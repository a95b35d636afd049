"""Videos that are not in real time are refused, whatever shows it."""

import io
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.readers.gopro_track import read_track
from tests.gopro_factory import Block, even_blocks, klv, nest, text, write_gopro

KEYS = ("ACCL", "GYRO")


def notes_of(path: Path) -> tuple[str, ...]:
    telemetry = read_track(partial(path.open, "rb"), path.name)
    assert telemetry is not None
    return telemetry.notes


def write(path: Path, rate_hz: float, seconds: int = 20, **options: Any) -> None:
    """A file whose sensors have so many samples a second of video."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    counts = np.diff(np.rint(np.arange(seconds + 1) * rate_hz).astype(int)).tolist()
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks(counts), **options)


@pytest.mark.parametrize(
    ("rate_hz", "rate_fps", "told"),
    [
        (30, 30, r"ACCL has 30 samples a second of it, one for each picture \(600\)"),  # time lapse
        (60, 60, r"ACCL has 60 samples a second of it, one for each picture \(1200\)"),
        (25, 2, "ACCL has 25 samples a second of it, and a GoPro samples at 90 to 4000 Hz"),  # slow
        (50, 2, "ACCL has 50 samples a second of it, and a GoPro samples at 90 to 4000 Hz"),
        (
            6000,
            2,
            "ACCL has 6000 samples a second of it, and a GoPro samples",
        ),  # TimeWarp, 30 times
    ],
)
def test_the_number_of_samples_tells(
    rate_hz: float, rate_fps: float, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "lapse.mp4"
    write(path, rate_hz, seconds=20 if rate_hz < 1000 else 6, rate_fps=rate_fps)
    with pytest.raises(ValueError, match=rf"^lapse\.mp4: the video is not in real time: {told}"):
        notes_of(path)


@pytest.mark.parametrize("ratio", [0.125, 0.25, 0.5, 1, 2, 15])
def test_stamps_tell(ratio: float, tmp_path: Path) -> None:
    """The samples a second look right, or nearly; the camera's clock ran at another pace."""
    path = tmp_path / "warp.mp4"
    real_s = np.arange(4000) / 200 * ratio
    write_gopro(path, dict.fromkeys(KEYS, real_s), even_blocks([200] * 20), stamps=43.2)
    if ratio == 1:
        assert notes_of(path) == ()
        return
    told = rf"a second of it is {ratio:.3g} s by STMP of ACCL, where 10% is allowed"
    with pytest.raises(ValueError, match=rf"^warp\.mp4: the video is not in real time: {told}"):
        notes_of(path)


def tick(real_s: float) -> bytes:
    return klv("TICK", "L", 4, struct.pack(">L", round(7000 + real_s * 1000)))


def gpsu(real_s: float) -> bytes:
    """Satellites' time, which steps: it is of the last whole second and a bit."""
    seconds = 3600 * 14 + int(real_s) + 0.31
    return nest(
        "STRM",
        klv("GPSF", "L", 4, struct.pack(">L", 3)),
        text(
            "GPSU",
            f"240229{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:06.3f}",
        ),
    )


@pytest.mark.parametrize("clock", [tick, gpsu])
@pytest.mark.parametrize("ratio", [0.5, 1, 2, 15])
def test_other_clocks_tell(clock: Any, ratio: float, tmp_path: Path) -> None:
    path = tmp_path / "warp.mp4"
    blocks = [Block(k, dict.fromkeys(KEYS, 200), clocks=[clock(k * ratio)]) for k in range(20)]
    write_gopro(path, dict.fromkeys(KEYS, np.arange(4000) / 200), blocks)
    if ratio == 1:
        assert notes_of(path) == ()
        return
    with pytest.raises(ValueError, match=r"a second of it is ([\d.]+) s by (TICK|GPSU)") as told:
        notes_of(path)
    found = re.search(r"it is ([\d.]+) s", str(told.value))
    assert found and float(found[1]) == pytest.approx(ratio, rel=0.21)


@pytest.mark.parametrize("clock", [lambda s: tick(0), lambda s: klv("TICK", "L", 4, bytes(4))])
def test_clocks_that_stand_still_or_count_another_unit_say_nothing(
    clock: Any, tmp_path: Path
) -> None:
    path = tmp_path / "odd.mp4"
    blocks = [Block(k, dict.fromkeys(KEYS, 200), clocks=[clock(k)]) for k in range(20)]
    write_gopro(path, dict.fromkeys(KEYS, np.arange(4000) / 200), blocks)
    assert notes_of(path) == ()


def test_a_file_joined_from_several_is_in_real_time(tmp_path: Path) -> None:
    """Its stamps begin anew with each recording."""
    path = tmp_path / "joined.mp4"
    time_s = np.arange(6000) / 200
    blocks = [
        Block(k, dict.fromkeys(KEYS, 200), clocks=[tick(k % 10), gpsu(k % 10)]) for k in range(30)
    ]
    write_gopro(path, dict.fromkeys(KEYS, time_s % 10), blocks, restarts=(10, 20), stamps=1.0)
    assert all("counting starts again at 2 blocks" in note for note in notes_of(path))


@pytest.mark.parametrize("rate_hz", [100.0, 190.0, 197.0, 200.0, 205.0, 400.0])
def test_rates_of_real_time_are_read(rate_hz: float, tmp_path: Path) -> None:
    path = tmp_path / "real.mp4"
    write(path, rate_hz)
    notes = notes_of(path)
    told = {
        100: ["ACCL has 100 samples a second of video", "GYRO has 100 samples a second of video"],
        400: ["ACCL has 400 samples a second of video"],  # gyroscopes of HERO5 have 400
    }
    assert len(notes) == len(told.get(int(rate_hz), []))
    for note, beginning in zip(notes, told.get(int(rate_hz), []), strict=True):
        assert beginning in note
        assert "check that the video is in real time" in note


def test_high_frame_rates_in_real_time_are_read(tmp_path: Path) -> None:
    """200 pictures a second and as many samples: that is no time lapse."""
    path = tmp_path / "fast.mp4"
    write(path, 200.0, seconds=6, rate_fps=200)
    assert notes_of(path) == ()


def test_any_damaged_byte_gives_samples_or_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "whole.mp4"
    time_s = np.arange(1200) / 200
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks([200] * 6), stamps=1.0)
    data, rng = path.read_bytes(), np.random.default_rng(1)
    keys = (
        b"DEVC",
        b"TSMP",
        b"STMP",
        b"SCAL",
        b"ACCL",
        b"stts",
        b"stsz",
        b"mdhd",
        b"stsc",
        b"stco",
    )
    places = [data.find(key) + place for key in keys for place in range(-4, 24)]
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.choice(places)] = rng.integers(256)
        try:
            telemetry = read_track(partial(io.BytesIO, bytes(damaged)), "damaged.mp4")
            for sensor in telemetry.sensors.values() if telemetry else ():
                assert sum(len(chunk.time_s) for chunk in sensor.read()) == sensor.samples
        except ValueError as error:
            assert "damaged.mp4" in str(error)
