"""Sample times of GoPro files against when the samples were really taken."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shards.readers.gopro_clock import SensorBlocks, read_clock
from shards.readers.gopro_track import Telemetry, read_track
from tests.gopro_factory import Block, even_blocks, write_gopro

KEYS = ("ACCL", "GYRO")


def track(path: Path) -> Telemetry:
    telemetry = read_track(partial(path.open, "rb"), path.name)
    assert telemetry is not None
    return telemetry


def times_of(telemetry: Telemetry, key: str = "ACCL") -> np.ndarray:
    return np.concatenate([chunk.time_s for chunk in telemetry.sensors[key].read()])


def flushed(
    rate_hz: float, seconds: float, spill: int, seed: int, *, block_s: float = 1.0
) -> tuple[np.ndarray, list[int]]:
    """When samples were taken, and how many of them each block got: some early, or some late."""
    time_s = np.arange(int(np.ceil(rate_hz * seconds - 1e-9))) / rate_hz
    ends_s = np.arange(1, int(np.ceil(seconds / block_s - 1e-9)) + 1) * block_s
    moved = np.random.default_rng(seed).integers(-spill, spill + 1, len(ends_s))
    there = np.searchsorted(time_s, ends_s - 1e-9) + moved
    there[-1] = len(time_s)
    return time_s, np.diff(np.maximum.accumulate(there), prepend=0).tolist()


@pytest.mark.parametrize("rate_hz", [100.0, 197.0, 200.0, 400.0])
@pytest.mark.parametrize("spill", [0, 1, 3, 5, 12])
def test_samples_that_spill_over_blocks_have_their_own_times(
    rate_hz: float, spill: int, tmp_path: Path
) -> None:
    for seed, seconds in enumerate((6, 20, 61)):
        time_s, counts = flushed(rate_hz, seconds, spill, seed)
        path = tmp_path / f"{seed}.mp4"
        write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks(counts), video_s=seconds)
        telemetry = track(path)
        for key in KEYS:
            assert telemetry.sensors[key].rate_hz() == pytest.approx(rate_hz, rel=2e-4)
            np.testing.assert_allclose(times_of(telemetry, key), time_s, atol=3e-4)


def test_counts_are_rounded_where_a_block_is_no_whole_number_of_samples(tmp_path: Path) -> None:
    """The most that counts can tell then is the time to a sample."""
    for seed, rate_hz in enumerate((197.33, 198.6, 201.92, 403.85)):
        time_s, counts = flushed(rate_hz, 30.03, 0, seed, block_s=1.001)
        path = tmp_path / f"{seed}.mp4"
        blocks = even_blocks(counts, block_s=1.001)
        write_gopro(path, dict.fromkeys(KEYS, time_s), blocks, last_s=1.001)
        np.testing.assert_allclose(times_of(track(path)), time_s, atol=0.25 / rate_hz)


@pytest.mark.parametrize("spill", [0, 4])
def test_the_last_block_has_the_rate_of_the_others(spill: int, tmp_path: Path) -> None:
    """Its duration is stated as a second, whatever it holds; the video tells where it ends."""
    time_s, counts = flushed(200.0, 19.37, spill, 3)
    path = tmp_path / "short.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks(counts), video_s=19.37, rate_fps=100)
    np.testing.assert_allclose(times_of(track(path)), time_s, atol=3e-4)
    if not spill:
        write_gopro(
            path, dict.fromkeys(KEYS, time_s), even_blocks(counts)
        )  # the video tells nothing
        np.testing.assert_allclose(times_of(track(path)), time_s, atol=3e-4)


def test_samples_from_before_the_video_lie_before_it(tmp_path: Path) -> None:
    time_s = (np.arange(4010) - 10) / 200
    path = tmp_path / "early.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks([210] + [200] * 19))
    np.testing.assert_allclose(times_of(track(path)), time_s, atol=3e-4)


@pytest.mark.parametrize("totals", [True, False])
def test_a_block_without_new_samples(totals: bool, tmp_path: Path) -> None:
    """EMPT, or a block that lacks the sensor: the next one holds both seconds' samples."""
    time_s = np.arange(4000) / 200
    for number, first in enumerate(({"ACCL": 0, "GYRO": 200}, {"GYRO": 200})):
        blocks = even_blocks([200] * 20)
        blocks[7] = blocks[7]._replace(samples=first)
        blocks[8] = blocks[8]._replace(samples={"ACCL": 400, "GYRO": 200})
        path = tmp_path / f"{number}.mp4"
        write_gopro(path, dict.fromkeys(KEYS, time_s), blocks, totals=totals)
        telemetry = track(path)
        assert telemetry.notes == (
            "ACCL: no samples in 1 of 20 telemetry blocks; they came with another block, or are a "
            "gap",
        )
        for key in KEYS:
            np.testing.assert_allclose(times_of(telemetry, key), time_s, atol=1e-4)


def test_samples_that_come_late(tmp_path: Path) -> None:
    time_s = np.arange(6000) / 200
    counts = [200] * 30
    for late in (4, 5, 17):  # two blocks in a row, and one
        counts[late] -= 150
        counts[late + 1] += 150
    path = tmp_path / "late.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks(counts))
    np.testing.assert_allclose(times_of(track(path)), time_s, atol=1e-4)


@pytest.mark.parametrize("spill", [0, 3])
def test_lost_samples_are_a_gap(spill: int, tmp_path: Path) -> None:
    """TSMP counts them."""
    time_s, counts = flushed(200.0, 20, spill, 5)
    blocks = even_blocks(counts)
    lost, del_block = blocks[5].samples["ACCL"], 5
    blocks[6] = blocks[6]._replace(lost={"ACCL": lost})
    blocks[del_block] = blocks[del_block]._replace(samples={"GYRO": lost})
    path = tmp_path / "lost.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), blocks)
    telemetry = track(path)
    first = sum(counts[:5])
    there = np.delete(time_s, np.arange(first, first + lost))
    np.testing.assert_allclose(times_of(telemetry), there, atol=3e-4)
    np.testing.assert_allclose(times_of(telemetry, "GYRO"), time_s, atol=3e-4)
    assert f"ACCL: {lost:,} samples lost in 1 place, by TSMP" in telemetry.notes


def taken_with(pause_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of 20 s of samples with a pause of the video after 10 s, and of its blocks."""
    time_s = np.arange(4000) / 200
    starts_s = np.arange(20.0)
    return time_s + pause_s * (time_s >= 10), starts_s + pause_s * (starts_s >= 10)


@pytest.mark.parametrize("pause_s", [-0.5, 0.1, 0.5, 2.0, 7.0])
def test_a_pause_stays_a_break(pause_s: float, tmp_path: Path) -> None:
    """Nothing is averaged over it; where in a block it lies nobody knows, so that one is left."""
    time_s, starts_s = taken_with(pause_s)
    path = tmp_path / "pause.mp4"
    blocks = [Block(start_s, dict.fromkeys(KEYS, 200)) for start_s in starts_s.tolist()]
    write_gopro(path, dict.fromkeys(KEYS, time_s), blocks)
    telemetry = track(path)
    found_s = times_of(telemetry)
    known = np.isfinite(found_s)
    assert (~known).sum() <= 200
    np.testing.assert_allclose(found_s[known], time_s[known], atol=1e-4)
    known_s = found_s[known]
    assert abs(np.diff(known_s)[np.abs(np.diff(known_s)) > 0.05] - 1 - pause_s).max() < 0.01
    assert any("samples left out, at pauses or steps" in note for note in telemetry.notes)


@pytest.mark.parametrize("totals", [True, False])
def test_the_samples_after_a_pause_between_blocks_are_kept(totals: bool) -> None:
    """The next block's own beginning tells where they lie."""
    time_s, starts_s = taken_with(5.0)
    first = np.arange(20) * 200
    blocks = SensorBlocks(starts_s, starts_s + 1, first, np.full(20, 200), np.full(20, np.nan))
    clock = read_clock(blocks)
    assert clock.untimed == 0 and len(clock.lines) == 2
    np.testing.assert_allclose(clock.times(np.arange(4000)), time_s, atol=1e-4)


def test_no_window_spans_two_recordings_of_a_joined_file(tmp_path: Path) -> None:
    time_s = np.arange(4000) / 200
    path = tmp_path / "joined.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks([200] * 20), restarts=(8,))
    telemetry = track(path)
    found_s = times_of(telemetry)
    left = np.arange(1600, 1650)
    assert np.isnan(found_s[left]).all()
    np.testing.assert_allclose(np.delete(found_s, left), np.delete(time_s, left), atol=1e-4)
    assert any(
        note.startswith("ACCL: counting starts again at 1 block") for note in telemetry.notes
    )


def test_a_count_that_does_not_count_these_samples_is_not_believed(tmp_path: Path) -> None:
    """HERO11 was seen to count fewer than it stores; and one number may be damaged."""
    time_s = np.arange(4000) / 200
    path = tmp_path / "odd.mp4"
    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks([200] * 20), restarts=range(20))
    telemetry = track(path)
    np.testing.assert_allclose(times_of(telemetry), time_s, atol=1e-4)
    assert "ACCL: TSMP does not count its samples; they were counted" in telemetry.notes

    write_gopro(path, dict.fromkeys(KEYS, time_s), even_blocks([200] * 20))
    data = path.read_bytes()
    place = data.index(b"TSMP", data.index(b"ACCL", len(data) // 2)) + 8
    path.write_bytes(data[:place] + b"\x00\xff\xff\xff" + data[place + 4 :])
    telemetry = track(path)
    np.testing.assert_allclose(times_of(telemetry), time_s, atol=1e-4)
    np.testing.assert_allclose(times_of(telemetry, "GYRO"), time_s, atol=1e-4)


def test_stamps_tell_the_rate_best(tmp_path: Path) -> None:
    """Blocks are flushed anyhow and hold no whole number of samples; their stamps are exact."""
    time_s, counts = flushed(197.4548, 20.02, 9, 2, block_s=1.001)
    path = tmp_path / "stamps.mp4"
    blocks = even_blocks(counts, block_s=1.001)
    write_gopro(path, dict.fromkeys(KEYS, time_s), blocks, last_s=1.001, stamps=43.2)
    np.testing.assert_allclose(times_of(track(path)), time_s, atol=1e-5)


@pytest.mark.parametrize(("spill", "atol"), [(0, 0.004), (4, 0.012)])
def test_a_clock_that_drifts_is_followed(spill: int, atol: float) -> None:
    """Half an hour in which the sensor comes to lag by 0.3 s; no straight line is that near."""
    true_s = np.arange(360_000) / 200
    true_s += 1e-7 * true_s**2
    ends_s = np.arange(1.0, 1801.0)
    there = np.searchsorted(true_s, ends_s)
    there += np.random.default_rng(0).integers(-spill, spill + 1, len(there))
    first = np.concatenate([[0], there[:-1]])
    blocks = SensorBlocks(
        ends_s - 1, ends_s, first, np.diff(there, prepend=0), np.full(1800, np.nan)
    )
    found_s = read_clock(blocks, ends_s=(1800.0,)).times(np.arange(int(there[-1])))
    np.testing.assert_allclose(found_s, true_s[: len(found_s)], atol=atol)
    straight = np.polyval(np.polyfit(np.arange(len(found_s)), true_s[: len(found_s)], 1), 0)
    assert abs(straight) > 0.03, "what a straight line would miss by"


def test_few_blocks_and_one(tmp_path: Path) -> None:
    path = tmp_path / "few.mp4"
    for counts, video_s in (([200, 200, 130], 2.65), ([200, 200], 2.0), ([130], 0.65)):
        time_s = np.arange(sum(counts)) / 200
        write_gopro(
            path, dict.fromkeys(KEYS, time_s), even_blocks(counts), video_s=video_s, rate_fps=20
        )
        np.testing.assert_allclose(times_of(track(path)), time_s, atol=1e-3)


def test_blocks_without_duration_tell_no_times() -> None:
    one = SensorBlocks(*(np.array([x]) for x in (0.5, 0.5, 0, 3, np.nan)))
    assert read_clock(one).lines == () and read_clock(one).untimed == 3
    assert np.isnan(read_clock(one).times(np.arange(3))).all() and read_clock(one).rate_hz == 0
    still = np.full(6, 0.5)
    several = SensorBlocks(still, still, np.arange(6) * 10, np.full(6, 10), np.full(6, np.nan))
    assert np.isnan(read_clock(several).times(np.arange(60))).all()
