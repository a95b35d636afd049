"""Store the encoder of the built-in run in the package, where ``load_encoder("demo")`` finds it.

    make packaged                                           # or, after make pretrain:
    python -m benchmarks.package_encoder --run runs/demo

Its weights are stored in half precision, and its card gets what the run does not know: purpose,
limits, citations, the results of the run's evaluation, and what the data were built of. A test
compares a run of ``make pretrain`` with the stored encoder (tests/unit/test_packaged.py). Training
on another processor rounds otherwise, so the two are alike, and not equal.
"""

from __future__ import annotations

from primus_scale.stopping import end_while_loading

if __name__ == "__main__":
    end_while_loading()  # first: the imports below take seconds

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from primus_scale.cli import answer
from primus_scale.command_parser import Parser
from primus_scale.config import Config
from primus_scale.config_file import load_config
from primus_scale.encoders.about import AboutCard
from primus_scale.encoders.card import EncoderCard
from primus_scale.encoders.export import save_encoder
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.encoders.sources import PACKAGED_FOLDER
from primus_scale.monitor.provenance import ENVIRONMENT_FILE, describe_hardware
from primus_scale.share.results import card_results
from shards.demo import hapt
from shards.demo.build import build_demo

LICENCE = "CC BY 4.0"
TASK = (
    "UCI HAPT, six activities, windows of 5 s of a phone at the waist; nine people never seen "
    "(split 0 of the built-in data)"
)
SUMMARY = (
    "A small encoder of accelerometer and gyroscope windows, pretrained without labels by the "
    "built-in run of primus-scale (make pretrain), mostly by contrast between windows that are "
    "near and far in time. Hand-crafted features stand beside the learned ones."
)
INTENDED_USE = (
    "Trying primus-scale without data and without training; examples, tests and teaching; a "
    "starting point and a baseline for the recognition of daily activities from a phone or a "
    "sensor worn at the waist, with few labels."
)
LIMITS = (
    "Trained on 21 people of one study, who wore one model of phone at the waist, and on synthetic "
    "motion of a model body. Other placements, other devices, children, old or ill people, and "
    "activities that are not of daily life are not tested. Sensors must be calibrated and in SI "
    "units; encode() checks gravity. Not for medical use, and not for the recognition of persons; "
    "features may tell people apart, so treat them as personal data."
)
CITATIONS = (
    "J.-L. Reyes-Ortiz, L. Oneto, A. Sama, X. Parra, D. Anguita: Transition-Aware Human Activity "
    "Recognition Using Smartphones. Neurocomputing 171 (2016) 754-767. Data: Smartphone-Based "
    "Recognition of Human Activities and Postural Transitions, UCI Machine Learning Repository, "
    "CC BY 4.0; changed: cut into windows, in SI units.",
    "PRIMUS: arXiv 2411.15127 (the objective).",
)
# Of a run's configuration: what decides on its weights.
DECISIVE: dict[str, Any] = {
    **dict.fromkeys(("seed", "encoder", "augment", "objective", "optimizer", "calibration"), True),
    "data": {"fraction", "fraction_by", "shuffle_blocks", "session_windows"},
    "support": {"capacity", "minimum_fill"},
    "train": {"batch", "accumulation", "steps", "precision"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Store the run's encoder; a user's error is one line and exit code 1."""
    parser = build_parser()
    args = parser.parse_args(argv)
    return answer(parser.prog, lambda: _package(args), "start it again")


def build_parser() -> Parser:
    """The arguments of the command."""
    parser = Parser(prog="python -m benchmarks.package_encoder", description=__doc__)
    parser.add_argument("--run", dest="run_dir", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--out", default=str(PACKAGED_FOLDER / "demo"), metavar="DIR")
    return parser


def training_settings(config: Config) -> dict[str, Any]:
    """The settings that decide on the weights of a run."""
    tree: dict[str, Any] = config.model_dump(mode="json", include=DECISIVE)
    return tree


def builder_constants() -> dict[str, Any]:
    """What the built-in data are made of: the file of HAPT, and the builder's settings."""
    parameters = inspect.signature(build_demo).parameters.values()
    numbers = {one.name: one.default for one in parameters if isinstance(one.default, int | float)}
    return {
        "hapt_sha256": hapt.SHA256,
        "build": {name: value for name, value in numbers.items() if name != "overwrite"},
    }


def describe(card: EncoderCard, run_dir: Path) -> EncoderCard:
    """The card of the packaged encoder, from that of the run in ``run_dir``."""
    results = json.loads((run_dir / "few_shot/few_shot.json").read_text(encoding="utf-8"))
    environment = json.loads((run_dir / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    config = load_config(run_dir / "config.yaml")
    hardware = describe_hardware()
    about = AboutCard(
        title="primus-scale demo encoder",
        summary=SUMMARY,
        intended_use=INTENDED_USE,
        limits=LIMITS,
        citations=CITATIONS,
        results=card_results(results, TASK),
        measured=f"make pretrain, commit {environment['commit'][:7]}, on {hardware['cores']} cores "
        f"of {hardware['processor']}; weights of this run in half precision",
    )
    data = {
        **card.data,
        "made_of": builder_constants(),
        "settings": training_settings(config),
        "environment": environment,
    }
    return card.model_copy(update={"data": data, "licence": LICENCE, "about": about})


def _package(args: argparse.Namespace) -> int:
    run_dir = Path(args.run_dir)
    encoder = load_encoder(run_dir)
    save_encoder(encoder, args.out, describe(encoder.card, run_dir), half=True)
    size = sum(path.stat().st_size for path in Path(args.out).iterdir())
    print(f"encoder  {args.out}  ({size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
