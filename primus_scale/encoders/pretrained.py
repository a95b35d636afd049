"""An exported encoder as its users see it: windows, or arrays of any rate, to features.

    encoder = load_encoder("runs/demo/encoder")
    encoder(imu).features                                  # imu (B, C, T), as the card says
    encoder.encode(array, rate_hz=100, units=("g", "deg/s")).features

``encode`` brings an array to the encoder's rate, units, channels and windows in the way in which
``shards build`` makes windows of recordings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import ArrayLike

from primus_scale.encoders import build_encoder
from primus_scale.encoders.array_input import (
    channel_columns,
    channel_units,
    sensor_of,
    unit_factors,
)
from primus_scale.encoders.base import Embeddings, ImuEncoder
from primus_scale.encoders.calibration import FeatureCalibration
from primus_scale.encoders.card import (
    CARD_FILE,
    CalibrationCard,
    EncoderCard,
    existing_file,
    read_card,
)
from primus_scale.encoders.export import WEIGHTS_FILE, save_encoder
from primus_scale.encoders.sources import find_export, how_to_repair
from primus_scale.signal.array_windows import GOOD, ArrayWindows, cut_windows, resample_windows
from primus_scale.signal.plausible import explain_implausible, explain_unlikely_rate
from primus_scale.storage.foreign import decoding

BATCH = 256
AXES = 3
SENSORS = ("acc", "gyr")


class EncodedWindows(NamedTuple):
    """Features of m windows.

    features ``(m, D)`` float32; start_s ``(m,)`` seconds from the array's first sample (NaN where
    windows were given); quality ``(m,)``: ``"good"``, or why a window has no features: ``"gap"``,
    ``"constant channel"``, ``"equal channels"``. Its row of ``features`` is NaN then.
    """

    features: np.ndarray
    start_s: np.ndarray
    quality: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """Which windows have features, bool ``(m,)``."""
        return np.asarray(self.quality == GOOD)


class PretrainedEncoder(ImuEncoder):
    """An ``ImuEncoder`` with its card; ``load_encoder`` makes it.

    ``rate_hz``, ``channels``, ``units`` and ``window_samples`` describe the windows that it takes.
    """

    def __init__(self, encoder: ImuEncoder, card: EncoderCard) -> None:
        super().__init__(encoder.backbone, encoder.spec)
        self.heads = encoder.heads
        self.calibration = encoder.calibration
        self.card = card

    @property
    def rate_hz(self) -> float:
        """Samples a second of a window."""
        return self.card.rate_hz

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of a window's channels, in their order."""
        return self.card.channels

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each channel."""
        return self.card.units

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.card.window_samples

    def forward(self, imu: torch.Tensor | ArrayLike) -> Embeddings:
        """Embed windows ``(B, C, T)`` in the card's units, a tensor or anything numpy can take.

        Raises ValueError where C or T is not the encoder's, or a sample is not finite.
        """
        if not isinstance(imu, torch.Tensor):
            device = next(self.parameters()).device
            values = np.ascontiguousarray(_unmasked(imu), dtype=np.float32)
            imu = torch.from_numpy(values).to(device)
        swapped = (self.window_samples, len(self.channels))
        if imu.ndim == 3 and tuple(imu.shape[1:]) == swapped:
            raise ValueError(
                f"imu has shape {tuple(imu.shape)}, which looks like (B, T, C), but this encoder "
                "takes (B, C, T): give imu.swapaxes(1, 2)"
            )
        unknown = torch.compiler.is_compiling() or torch.jit.is_tracing() or imu.is_meta
        if not (self.training or unknown):  # in training such a step is skipped and counted
            if imu.ndim == 3 and not len(imu):
                raise ValueError("imu holds no window; leave the call out where there is none")
            _check_finite(imu, self.channels)
        return super().forward(imu)

    def encode(
        self,
        array: Any,
        rate_hz: float,
        units: str | Sequence[str] | Mapping[str, str] | None = None,
        channels: Sequence[str] | None = None,
        hop_s: float | None = None,
        *,
        check_units: bool = True,
    ) -> EncodedWindows:
        """Features of an array at ``rate_hz``: numpy, a tensor, or a DataFrame.

        array: ``(samples, channels)``, one recording, of which a window is taken every ``hop_s``
        (by default a window's length), to the nearest of the encoder's samples; or
        ``(windows, channels, samples)``, windows that last as long as the encoder's. units: of
        accelerometer and gyroscope, such as ``("g", "deg/s")`` or
        ``{"acc": "g", "gyr": "deg/s"}``, or of each column; by default SI. channels: names of the
        columns; by default the encoder's, or, in a DataFrame, those that its columns name; others
        need not be numbers. check_units: refuse signals whose gravity or rotation says that units,
        sensors or order cannot be right.

        Raises ValueError with the remedy where the array does not fit, a unit is unknown or cannot
        be right, the array is shorter than a window, or its rate too low for the encoder's windows.
        """
        values, named = _as_array(array, self.channels, channels)
        if problem := explain_unlikely_rate(rate_hz, self.rate_hz):
            raise ValueError(f"rate_hz={rate_hz:g} {problem}")
        if channels is None and named is None:
            _check_layout(values, len(self.channels))
        width = values.shape[1]
        columns = channel_columns(self.channels, channels, named, width)
        given = channel_units(units, self.channels, self.units, columns, width)
        signal = values[:, columns] if values.ndim == 3 else values[:, columns].T[None]
        signal = signal * unit_factors(given)[:, None]  # (windows, or 1; C; samples)
        if check_units:
            self._check_units(signal, rate_hz, given)
        windows = self._windows(signal, rate_hz, hop_s, continuous=values.ndim == 2)
        features = self._features(windows)
        return EncodedWindows(features, windows.start_s, windows.quality)

    def save(self, directory: str | Path) -> None:
        """Write the encoder and its card into a folder (``save_encoder``)."""
        save_encoder(self, directory, self.card)

    def _windows(
        self, signal: np.ndarray, rate_hz: float, hop_s: float | None, *, continuous: bool
    ) -> ArrayWindows:
        seconds, window_s = signal.shape[2] / rate_hz, self.window_samples / self.rate_hz
        if not continuous:
            if abs(seconds - window_s) > 1.0 / rate_hz + 1e-9:
                raise ValueError(
                    f"each window has {signal.shape[2]} samples, {seconds:g} s at {rate_hz:g} Hz, "
                    f"but the encoder's last {window_s:g} s; cut windows of that length, give "
                    "the recordings as (samples, channels), or correct rate_hz"
                )
            return resample_windows(
                signal, rate_hz, grid_hz=self.rate_hz, samples=self.window_samples
            )
        if seconds + 1e-9 < window_s:
            raise ValueError(
                f"the array has {signal.shape[2]} samples, {seconds:g} s at {rate_hz:g} Hz, less "
                f"than a window of the encoder, {window_s:g} s; give a longer recording as "
                "(samples, channels), or correct rate_hz"
            )
        hop = self.window_samples
        if hop_s is not None:
            if not (math.isfinite(hop_s) and hop_s * self.rate_hz > 0.5):
                raise ValueError(f"hop_s must be at least {1 / self.rate_hz:g}, got {hop_s}")
            hop = round(hop_s * self.rate_hz)
        return cut_windows(
            signal[0].T, rate_hz, grid_hz=self.rate_hz, samples=self.window_samples, hop=hop
        )

    def _check_units(self, signal: np.ndarray, rate_hz: float, units: tuple[str, ...]) -> None:
        """ValueError where accelerometer or gyroscope of ``(w, C, n)`` cannot be in these units."""
        whole = signal[np.isfinite(signal).all(axis=(1, 2))]
        # A window with gaps tells nothing beside whole ones; one recording is read around its gaps.
        rows = (whole if len(whole) else signal).transpose(0, 2, 1).reshape(-1, signal.shape[1])
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            raise ValueError("the array holds no row without NaN; check its columns")
        sensors = [sensor_of(name) for name in self.channels]
        places = {name: [n for n, own in enumerate(sensors) if own == name] for name in SENSORS}
        acc, gyr = (rows[:, found] if len(found) == AXES else None for found in places.values())
        units_of = [units[found[0]] if found else "" for found in places.values()]
        named = (units_of[0], units_of[1])
        if problem := explain_implausible(acc, gyr, rate_hz, named, signal.shape[2]):
            raise ValueError(f"{problem} (check_units=False encodes it as it is)")

    def _features(self, windows: ArrayWindows) -> np.ndarray:
        good = np.flatnonzero(windows.quality == GOOD)
        training = self.training
        self.eval()
        with torch.inference_mode():
            parts = [self(windows.imu[rows]).features.float().cpu() for rows in _batches(good)]
            if not parts:  # for their width
                shape = (1, len(self.channels), self.window_samples)
                parts = [self(np.zeros(shape)).features.float().cpu()[:0]]
        self.train(training)
        encoded = torch.cat(parts).numpy()
        features = np.full((len(windows.imu), encoded.shape[1]), np.nan, np.float32)
        features[good] = encoded
        return features


def load_encoder(source: str | Path, *, calibrated: bool = True) -> PretrainedEncoder:
    """The exported encoder that ``source`` names.

    source: its folder; the folder of a run; ``"demo"``, the encoder in this package; or
    ``"hf://OWNER/NAME@REVISION"``, one on the Hub. More in ``sources.find_export``.
    The encoder is on the CPU, float32, in evaluation mode. ``encoder(imu)`` takes imu ``(B, C, T)``
    float32 in the units of its card and gives ``Embeddings``; ``encoder.encode`` takes arrays of
    other rates and units. In evaluation mode it raises ValueError where a sample is not finite.
    calibrated: ``features`` take the calibration that the export holds, if any. False gives the
    features that the heads read; the outputs of the heads are the same in both cases.

    Raises FileNotFoundError where a file is missing, ValueError naming the file where it is
    damaged or does not fit its card, and as ``find_export``.
    """
    directory = find_export(source)
    card = read_card(directory)
    weights = read_weights(directory, card, source)
    with decoding(
        f"{directory / WEIGHTS_FILE} does not fit encoder {card.encoder.name!r} of {CARD_FILE}",
        advice=how_to_repair(source),
        in_memory=True,
    ):
        encoder = _empty_encoder(card)
        tensors = safetensors.torch.load(weights)
        in_float32 = {name: tensor.float() for name, tensor in tensors.items()}
        encoder.load_state_dict(in_float32, assign=True)
    if not calibrated:
        encoder.calibration = None
        encoder.card = card.model_copy(update={"calibration": CalibrationCard()})
    return encoder.eval()


def read_weights(directory: Path, card: EncoderCard, source: str | Path) -> bytes:
    """The file of weights of an export in ``directory``, which ``source`` names.

    FileNotFoundError where it is missing, ValueError where it is not the file that the card is of.
    """
    path = existing_file(directory, WEIGHTS_FILE)
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise ValueError(
            f"{path} is damaged or of another export (its sha256 is not weights_sha256 of "
            f"{CARD_FILE}); {how_to_repair(source)}"
        )
    return weights


def build_encoder_of(card: EncoderCard) -> ImuEncoder:
    """An encoder of the card's architecture with fresh weights, for standardised channels."""
    return build_encoder(
        card.encoder,
        channels=len(card.channels),
        samples=card.window_samples,
        rate_hz=card.rate_hz,
        teacher_dims={modality: teacher.dim for modality, teacher in card.teachers.items()},
        shared=card.shared_head,
        near=card.near_head,
        mean=(0.0,) * len(card.channels),
        std=(1.0,) * len(card.channels),
    )


def _empty_encoder(card: EncoderCard) -> PretrainedEncoder:
    """The card's encoder without memory for its weights; mean and std are among the weights."""
    with torch.device("meta"):
        encoder = build_encoder_of(card)
        made = card.calibration
        if made.kind != "none":
            encoder.calibration = FeatureCalibration(made.features, made.kind)
        return PretrainedEncoder(encoder, card)


def _check_finite(imu: torch.Tensor, channels: Sequence[str]) -> None:
    """ValueError naming the first sample of ``(B, C, T)`` that is not finite: it would give NaN."""
    bad = ~imu.isfinite()
    if bad.ndim == 3 and imu.shape[1] == len(channels) and bad.any():
        window, channel, sample = bad.nonzero()[0].tolist()
        raise ValueError(
            f"imu holds {imu[window, channel, sample].item()} in window {window}, channel "
            f"{channels[channel]}, sample {sample} ({int(bad.sum())} of {bad.numel()} "
            "samples are not finite); leave such windows out, or fill the gaps before the cut"
        )


def _batches(rows: np.ndarray) -> Iterable[np.ndarray]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _unmasked(array: Any) -> Any:
    """The array with NaN, a missing sample, where numpy masks a value: ``np.asarray`` shows it."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    return np.where(np.ma.getmaskarray(array), np.nan, array.data)


def _check_layout(values: np.ndarray, channels: int) -> None:
    """ValueError where the array has its axes in another order than ``encode`` takes them."""
    if values.shape[1] == channels or values.shape[0 if values.ndim == 2 else 2] != channels:
        return
    wanted, remedy = (
        ("(samples, channels)", "array.T")
        if values.ndim == 2
        else ("(windows, channels, samples)", "array.swapaxes(1, 2)")
    )
    raise ValueError(
        f"the array has shape {values.shape}, but encode takes {wanted}: give {remedy}"
    )


def _as_array(
    array: Any, wanted: Sequence[str], channels: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Float64 values, and the names of the columns where a DataFrame has them.

    Columns whose names, ``channels`` or the DataFrame's, are not ``wanted`` need not be numbers.
    """
    named = None
    if hasattr(array, "columns") and hasattr(array, "to_numpy"):
        named = tuple(str(name) for name in array.columns)
        missing = array.isna().to_numpy() if hasattr(array, "isna") else False
        array = np.where(missing, np.nan, array.to_numpy())  # pandas.NA and None are no numbers
    array = _unmasked(array)
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    if np.iscomplexobj(array):
        raise ValueError("the array holds complex numbers; give the samples as real ones")
    names = tuple(channels or named or ())
    try:
        if np.ndim(array) == 2 and np.shape(array)[1] == len(names) and set(wanted) & set(names):
            used = [name in wanted for name in names]
            values = np.full(np.shape(array), np.nan)
            values[:, used] = np.asarray(array)[:, used].astype(np.float64)
        else:
            values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the array holds something that is no number: {error}") from error
    if not values.size:
        raise ValueError(f"the array has shape {values.shape} and holds no sample")
    if values.ndim not in (2, 3):
        raise ValueError(
            f"the array has shape {values.shape}; give (samples, channels), or windows as "
            "(windows, channels, samples)"
        )
    return values, named
