"""An encoder of arrays: any rate, unit and layout, and what cannot be right is refused."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.signal import resample_poly

from primus_scale.encoders.pretrained import PretrainedEncoder, load_encoder
from primus_scale.sample import CHANNELS, UNITS
from primus_scale.signal.units import DEGREE, GRAVITY
from shards.recording import ACCELEROMETER, GYROSCOPE, Device
from shards.signal.condition import condition
from shards.signal.gates import check_window
from tests.encoder_factory import export_small_encoder, motion
from tests.recording_factory import make_sensor
from tests.recordings import hapt_recordings

SECONDS = 40.0
EXCHANGED = ("gyr_x", "gyr_y", "gyr_z", "acc_x", "acc_y", "acc_z")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return export_small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def encoder(folder: str) -> PretrainedEncoder:
    return load_encoder(folder)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """The least cosine of features ``(m, D)``, each feature relative to all of them."""
    both = np.concatenate([left, right])
    left, right = ((one - both.mean(0)) / (both.std(0) + 1e-9) for one in (left, right))
    sizes = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(1) / sizes).min())


def shard_windows(array: np.ndarray, rate_hz: float, starts: range) -> np.ndarray:
    """Windows ``(m, 6, 250)`` at 50 Hz as ``shards build`` makes them of samples in SI units."""
    time_s = np.arange(len(array)) / rate_hz
    sensors = (
        make_sensor(ACCELEROMETER, "m/s2", time_s, array[:, :3]),
        make_sensor(GYROSCOPE, "rad/s", time_s, array[:, 3:]),
    )
    signal = condition(
        Device("imu", "wrist", sensors), channels=CHANNELS, units=UNITS, rate_hz=50.0
    )
    windows = [check_window(signal, start, 250) for start in starts]
    return np.stack([one for one in windows if not isinstance(one, str)])


def resampled_hapt() -> np.ndarray:
    """A real recording of a phone at the waist, 50 Hz, taken to 100 Hz by SciPy."""
    return resample_poly(hapt_recordings()[0].imu.T.astype(np.float64), 2, 1, padtype="line")


@pytest.mark.parametrize(
    ("rate_hz", "make"),
    [
        *((rate_hz, partial(motion, rate_hz, SECONDS)) for rate_hz in (50.0, 100.0, 203.0)),
        (100.0, resampled_hapt),
    ],
    ids=["50 Hz", "100 Hz", "203 Hz", "HAPT at 100 Hz"],
)
def test_features_are_those_of_the_shard_path(
    encoder: PretrainedEncoder, rate_hz: float, make: Callable[[], np.ndarray]
) -> None:
    array = make()
    starts = range(0, int(len(array) / rate_hz * 50) - 249, 125)
    windows = shard_windows(array, rate_hz, starts)
    assert len(windows) == len(starts)
    expected = encoder(windows).features.detach().numpy()
    scale = np.array([1 / GRAVITY] * 3 + [1 / DEGREE] * 3)
    found = encoder.encode(array * scale, rate_hz, ("g", "deg/s"), hop_s=2.5)
    assert found.start_s.tolist() == [start / 50 for start in starts]
    assert found.good.all()
    assert cosine(found.features, expected) > 0.999


def test_layouts_are_equal(encoder: PretrainedEncoder) -> None:
    array = motion(50.0, SECONDS)
    expected = encoder.encode(array, 50.0)
    names = [*CHANNELS]
    frame = pd.DataFrame(array, columns=names)[["gyr_y", *names[:4], "gyr_z"]]
    frame.insert(0, "subject", 3.0)
    order = [3, 4, 5, 0, 1, 2]
    for found in (
        encoder.encode(torch.from_numpy(array).float(), 50.0),
        encoder.encode(frame, 50.0),
        encoder.encode(array[:, order], 50.0, channels=EXCHANGED),
        encoder.encode(frame.assign(activity="walk", note=None), 50.0),
        *(
            encoder.encode(array[:, order] / ([DEGREE] * 3 + [1] * 3), 50.0, units, EXCHANGED)
            for units in (["deg/s"] * 3 + ["m/s2"] * 3, {"acc": "m/s2", "gyr": "deg/s"})
        ),
    ):
        np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-4)
    assert encoder.encode(array, 50.0, hop_s=1.0).start_s.tolist() == list(range(36))


def test_windows_of_another_rate_give_the_same_features(encoder: PretrainedEncoder) -> None:
    """Also of a lower one; the ends of each window are less exact."""
    windows = {
        rate: motion(rate, SECONDS).T.reshape(6, 8, -1).transpose(1, 0, 2)
        for rate in (25.0, 50.0, 100.0)
    }
    expected = encoder(windows[50.0].astype(np.float32)).features.detach().numpy()
    same = encoder.encode(windows[50.0], 50.0)
    np.testing.assert_allclose(same.features, expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(same.start_s).all()
    for rate in (25.0, 100.0):
        assert cosine(encoder.encode(windows[rate], rate).features, expected) > 0.95


def test_gaps_and_dead_channels_are_told(encoder: PretrainedEncoder) -> None:
    array = motion(50.0, SECONDS)
    array[300] = np.nan  # one sample is filled in
    array[600:610] = np.nan
    array[920:1330, 4] = 0.25
    array[1420:1830, 3] = array[1420:1830, 5]
    found = encoder.encode(array, 50.0)
    assert found.quality.tolist() == [
        *("good", "good", "gap", "good", "constant channel", "good", "equal channels", "good")
    ]
    assert np.isnan(found.features).all(axis=1).tolist() == (~found.good).tolist()
    whole = encoder.encode(motion(50.0, SECONDS), 50.0)
    assert cosine(found.features[:2], whole.features[:2]) > 0.999
    array[:, 4] = 0.25
    assert encoder.encode(array, 50.0).features.shape == whole.features.shape


MISTAKES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[str, str], str]] = {
    "g": (lambda a: a / ([GRAVITY] * 3 + [1] * 3), ("m/s2", "rad/s"), "are in g, not in m/s2"),
    "mg": (lambda a: a / ([GRAVITY / 1e3] * 3 + [1] * 3), ("g", "rad/s"), "are in mg, not in g"),
    "m/s2": (lambda a: a, ("g", "rad/s"), "are in m/s2, not in g"),
    "deg/s": (lambda a: a / ([1] * 3 + [DEGREE] * 3), ("m/s2", "rad/s"), "in deg/s"),
    "rad/s": (lambda a: a, ("m/s2", "deg/s"), "in rad/s, not in deg/s"),
    "exchanged": (lambda a: a[:, [3, 4, 5, 0, 1, 2]], ("m/s2", "rad/s"), "sensors are exchanged"),
    "exchanged, g": (
        lambda a: (a / ([GRAVITY] * 3 + [DEGREE] * 3))[:, [3, 4, 5, 0, 1, 2]],
        ("g", "deg/s"),
        "sensors are exchanged",
    ),
    "no gravity": (
        lambda a: np.concatenate([a[:, [1, 1, 1]] * (1, 0.5, 0.3), a[:, 3:]], 1),
        ("m/s2", "rad/s"),
        "linear acceleration",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("turns", [1.0, 0.4])
def test_mistakes_are_refused(encoder: PretrainedEncoder, mistake: str, turns: float) -> None:
    change, units, told = MISTAKES[mistake]
    array = change(motion(100.0, SECONDS, turns=turns))
    with pytest.raises(ValueError, match=told):
        encoder.encode(array, 100.0, units)
    assert encoder.encode(array, 100.0, units, check_units=False).good.any()
    encoder.encode(motion(100.0, SECONDS, turns=turns), 100.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"array": motion(50.0, 4.0)}, "200 samples, 4 s at 50 Hz, less than a window"),
        ({"array": np.zeros((9, 6, 200))}, "200 samples, 4 s at 50 Hz, but the encoder's last 5 s"),
        ({"array": motion(50.0, SECONDS)[:, :3]}, "3 columns, but the encoder takes 6: acc_x"),
        ({"array": motion(50.0, SECONDS)[0]}, r"shape \(6,\)"),
        ({"array": np.full((500, 6), np.nan)}, "no row without NaN"),
        ({"array": np.full((500, 6), "a")}, "something that is no number"),
        ({"array": np.zeros((0, 6))}, r"shape \(0, 6\) and holds no sample"),
        ({"array": motion(50.0, SECONDS).T}, r"takes \(samples, channels\): give array\.T"),
        ({"array": np.zeros((9, 250, 6))}, r"channels, samples\): give array\.swapaxes\(1, 2\)"),
        ({"array": motion(50.0, SECONDS), "rate_hz": 0.0}, "rate_hz=0 must be positive"),
        ({"array": motion(50.0, SECONDS), "rate_hz": np.inf}, "rate_hz=inf must be .* finite"),
        ({"array": motion(50.0, SECONDS), "rate_hz": 0.02}, "too slow for windows of 50 Hz"),
        ({"array": motion(50.0, SECONDS), "rate_hz": 17.4}, r"=17\.4 is too slow .* 17\.5 Hz"),
        ({"array": motion(50.0, SECONDS), "rate_hz": 50e3}, "more than IMUs have"),
        ({"array": motion(50.0, SECONDS), "hop_s": 0.0}, "hop_s must be at least 0.02"),
        ({"array": motion(50.0, SECONDS), "hop_s": np.nan}, "hop_s must be at least 0.02"),
        ({"array": motion(50.0, SECONDS), "units": {"acc": "g"}}, "names acc; .* each of acc, gyr"),
        ({"array": motion(50.0, SECONDS), "units": ("G", "rad/s")}, "unknown unit 'G'"),
        ({"array": motion(50.0, SECONDS), "units": ("rad/s", "g")}, "rad/s is no unit of acc_x"),
        ({"array": motion(50.0, SECONDS), "units": ("g",) * 3}, "one for each sensor .acc, gyr."),
        ({"array": motion(50.0, SECONDS), "channels": ("a",) * 6}, "no column acc_x"),
        ({"array": motion(50.0, SECONDS), "channels": CHANNELS[:3]}, "names 3 columns"),
    ],
)
def test_bad_arrays_are_refused(
    encoder: PretrainedEncoder, given: dict[str, object], told: str
) -> None:
    arguments = {"rate_hz": 50.0, "check_units": "NaN" in told, **given}
    with pytest.raises(ValueError, match=told):
        encoder.encode(**arguments)  # type: ignore[arg-type]


def test_call_takes_numpy_and_advises_on_the_layout(encoder: PretrainedEncoder) -> None:
    imu = np.random.default_rng(0).normal(size=(2, 6, 250))
    same = encoder(torch.from_numpy(imu).float()).features
    assert torch.equal(encoder(imu).features, same)
    with pytest.raises(ValueError, match=r"looks like \(B, T, C\).*swapaxes"):
        encoder(imu.swapaxes(1, 2))
    with pytest.raises(ValueError, match="imu holds no window"):
        encoder(imu[:0])
    imu[1, 4, 7] = np.nan
    with pytest.raises(ValueError, match="window 1, channel gyr_y, sample 7"):
        encoder(imu)


def test_it_knows_its_input_and_is_saved_again(
    encoder: PretrainedEncoder, tmp_path: pytest.TempPathFactory
) -> None:
    described = (encoder.rate_hz, encoder.channels, encoder.units, encoder.window_samples)
    assert described == (50.0, CHANNELS, UNITS, 250)
    encoder.save(f"{tmp_path}/encoder")
    again = load_encoder(str(tmp_path))  # as below a run
    imu = torch.randn(2, 6, 250)
    assert torch.equal(again(imu).features, encoder(imu).features)
    assert again.card == encoder.card


def test_masked_samples_are_missing_ones(encoder: PretrainedEncoder) -> None:
    array = motion(50.0, SECONDS)
    masked = np.ma.masked_array(array + 0.0, mask=np.zeros(array.shape, bool))
    masked[600:610] = np.ma.masked
    array[600:610] = np.nan
    expected, found = encoder.encode(array, 50.0), encoder.encode(masked, 50.0)
    assert found.quality.tolist() == expected.quality.tolist()
    assert "gap" in found.quality
    np.testing.assert_array_equal(found.features, expected.features)
    with pytest.raises(ValueError, match="not finite"):
        encoder(masked[:750].T.reshape(6, 3, 250).swapaxes(0, 1))


def test_missing_values_of_pandas_are_missing_samples(encoder: PretrainedEncoder) -> None:
    """pandas.NA of nullable columns, and None of others, beside columns that are no numbers."""
    array = motion(50.0, SECONDS)
    array[600:610] = np.nan
    expected = encoder.encode(array, 50.0)
    frame = pd.DataFrame(array, columns=[*CHANNELS])
    nullable = frame.astype("Float64")
    assert nullable["acc_x"][600] is pd.NA
    others = nullable.assign(note=pd.array(["walk", pd.NA] * (len(frame) // 2), dtype="string"))
    nones = frame.astype(object).where(frame.notna(), None)
    for found in (encoder.encode(one, 50.0) for one in (nullable, others, nones)):
        assert found.quality.tolist() == expected.quality.tolist()
        np.testing.assert_array_equal(found.features, expected.features)
    with pytest.raises(ValueError, match="something that is no number"):
        encoder.encode(frame.assign(acc_x="fast"), 50.0)


def test_a_frame_of_other_names_is_not_read_by_place(encoder: PretrainedEncoder) -> None:
    names = ["az", "ay", "ax", "gx", "gy", "gz"]
    frame = pd.DataFrame(motion(50.0, SECONDS), columns=names)
    with pytest.raises(ValueError, match=r"no column of the DataFrame .* are az, ay.*channels="):
        encoder.encode(frame, 50.0)
    expected = encoder.encode(frame.to_numpy(), 50.0)
    for found in (
        encoder.encode(frame, 50.0, channels=CHANNELS),
        encoder.encode(frame.set_axis(range(6), axis=1), 50.0),
    ):
        np.testing.assert_array_equal(found.features, expected.features)
