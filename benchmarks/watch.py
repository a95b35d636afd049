"""The second real set of the few-shot benchmark: shoulder exercises, a watch on the wrist.

    pip download --no-deps seglearn==1.2.5
    python -m benchmarks.watch --archive seglearn-1.2.5-py3-none-any.whl --out runs/watch
    python -m benchmarks.few_shot --study configs/studies/watch.yaml --out runs/watch

Ten people, seven exercises, both sides, 50 Hz, 81 minutes; the data lie in the package seglearn
(BSD licence). Source: Burns et al., Physiological Measurement 2018, arXiv 1802.01489. Each split
tests on people of its own: 4, 3 and 3. The study of docs/results.md did not choose any setting on
these data.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from launch.study.data import run_command
from primus_scale.cli import GOES_ON, answer
from primus_scale.command_parser import Parser
from primus_scale.storage.files import check_writable
from shards.files.unpickle import NumpyUnpickler

MEMBER = "seglearn/data/watch_dataset.npy"
RATE_HZ = 50.0
SIDES = ("left", "right")  # by the file's number
SPLITS = (1, 2, 3)
PRETRAINING_HOP_S, LABELLED_HOP_S = 1.24, 2.5  # as in the built-in data
# In quick exercises the watch never rests, so gravity is not seen alone and the gate would refuse
# them.
ACC_RANGE = ("--acc-range", "6", "20")
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data; a user's error is one line and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _write_all(Path(args.archive), Path(args.out)), GOES_ON)


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks.watch", description=__doc__)
    parser.add_argument("--archive", required=True, metavar="FILE", help="wheel of seglearn 1.2.5")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of data and results")
    return parser


def _write_all(archive: Path, out: Path) -> int:
    data = _load(archive)
    check_writable(out)
    people = sorted({int(number) for number in data["subject"]})
    order = np.random.default_rng(0).permutation(people)
    for split in SPLITS:
        folder = out / f"split{split}"
        if not (folder / "data/packed/train/index.json").exists():  # which is written last
            _write_split(data, set(order[split - 1 :: len(SPLITS)].tolist()), folder)
    return 0


def _load(archive: Path) -> Any:
    """The recordings: a mapping of lists, pickled in an npy file in a wheel."""
    if not archive.is_file():
        raise FileNotFoundError(
            f"no file {archive}; get it with: pip download --no-deps seglearn==1.2.5"
        )
    with zipfile.ZipFile(archive) as wheel:
        stream = io.BytesIO(wheel.read(MEMBER))
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return NumpyUnpickler(stream).load().item()


def _write_split(data: Any, test_people: set[int], folder: Path) -> None:
    for number, samples in enumerate(data["X"]):
        person = int(data["subject"][number])
        side = "test" if person in test_people else "label"
        _write_recording(data, number, samples, folder / "raw" / side / f"r{number:03d}")
    log = folder / "data.log"
    for target, side, hop_s in (
        ("few_shot/label", "label", LABELLED_HOP_S),
        ("few_shot/test", "test", LABELLED_HOP_S),
        ("windows/train", "label", PRETRAINING_HOP_S),
    ):
        place = ("--src", str(folder / "raw" / side), "--out", str(folder / "data" / target))
        options = ("--hop-s", str(hop_s), *ACC_RANGE, "--overwrite")  # of a run that was killed
        run_command(log, "shards", "build", "folder", *place, *options)
    place = (
        "--src",
        str(folder / "data/windows/train"),
        "--out",
        str(folder / "data/packed/train"),
    )
    run_command(log, "shards", "embed", *place, "--signal", "handcrafted", "--overwrite")


def _write_recording(data: Any, number: int, samples: np.ndarray, folder: Path) -> None:
    """One recording as the reader ``folder`` takes it. A session is a person's one side."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "watch.npy", np.asarray(samples, dtype=np.float32))
    side = SIDES[int(data["side"][number])]
    sensors = [
        {
            "file": "watch.npy",
            "columns": {name: str(column) for column, name in columns},
            "unit": unit,
            "rate_hz": RATE_HZ,
        }
        for unit, columns in (
            ("g", list(enumerate(CHANNELS))[:3]),
            ("rad/s", list(enumerate(CHANNELS))[3:]),
        )
    ]
    described = {
        "dataset": "watch",
        "person": f"p{int(data['subject'][number]):02d}",
        "session": side,
        "devices": [{"name": "watch", "placement": f"{side} wrist", "sensors": sensors}],
        "label": str(data["y_labels"][int(data["y"][number])]),
    }
    text = yaml.safe_dump(described, sort_keys=False)
    (folder / "recording.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
