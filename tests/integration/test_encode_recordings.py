"""Arrays of real recordings give the features that their shards give."""

from pathlib import Path

import numpy as np
import pytest

from primus_scale.encoders.pretrained import load_encoder
from primus_scale.sample import CHANNELS, UNITS
from primus_scale.signal.units import DEGREE, GRAVITY
from shards.readers import create_reader
from shards.signal.condition import condition
from shards.signal.gates import check_window
from tests.encoder_factory import export_small_encoder
from tests.recordings import recording_path

FILES = {
    "gopro_max_hero.mp4": ("gopro", 50),
    "aria_gen1.vrs": ("aria", 10),
    "aria_gen2.vrs": ("aria", 10),
}
ARRAY_HZ = 200


@pytest.mark.parametrize("name", FILES)
def test_features_of_arrays_are_those_of_shards(name: str, tmp_path: Path) -> None:
    reader_name, samples = FILES[name]
    encoder = load_encoder(export_small_encoder(tmp_path, samples=samples))
    reader = create_reader(reader_name, str(recording_path(name)))
    compared = 0
    with reader.open(reader.recordings()[0]) as recording:
        for device in recording.devices:
            fine, coarse = (
                condition(device, channels=CHANNELS, units=UNITS, rate_hz=rate)
                for rate in (float(ARRAY_HZ), 50.0)
            )
            segment = fine.segments[0]
            first = -(-segment.start // 4)  # on both grids
            array = segment.values[:, first * 4 - segment.start :].T.copy()
            array /= [GRAVITY] * 3 + [DEGREE] * 3
            found = encoder.encode(array, ARRAY_HZ, ("g", "deg/s"))
            assert found.good.all()
            starts = first + np.arange(len(found.features)) * samples
            windows = [check_window(coarse, int(start), samples) for start in starts]
            inside = [n for n, one in enumerate(windows) if not isinstance(one, str)]
            expected = encoder(np.stack([windows[n] for n in inside])).features.detach().numpy()
            features = found.features[inside]
            sizes = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
            assert ((features * expected).sum(axis=1) / sizes).min() > 0.999
            compared += len(inside)
    assert compared >= 2
