"""The arms that a comparison names, built for the windows of a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arms import Arm, TaskWindows
from primus_scale.evaluate.baseline_arms import ForestArm, RidgeArm
from primus_scale.evaluate.classifiers import encode_features
from primus_scale.evaluate.feature_sets import (
    catch22_features,
    package_version,
    tsfel_features,
)
from primus_scale.evaluate.hydra import multirocket_hydra_features, multirocket_hydra_scaler
from primus_scale.evaluate.minirocket import minirocket_features
from primus_scale.evaluate.nearest_arms import NeighboursArm, PrototypesArm
from primus_scale.evaluate.own_encoders import own_features
from primus_scale.evaluate.probe_arm import ProbeArm
from primus_scale.evaluate.trained_arm import EncoderFactory, TrainedArm
from primus_scale.signal.features import hand_features

# From windows to fit on, and all windows, to features of these.
RocketFeatures = Callable[[np.ndarray, np.ndarray], np.ndarray]


def build_arms(
    windows: TaskWindows,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
    seed: int,
    report: Callable[[str], None] = print,
    jobs: int = 1,
) -> dict[str, Arm]:
    """The arms of ``config.arms`` and ``config.own`` by name, in that order.

    seed: of the random weights. The features of an arm are computed when they are first needed.
    report: called with lines of progress. jobs: forked processes for features that take long.
    Raises ValueError where an arm's package is absent.
    """
    for need in (*config.arms, *(["mixed_model"] if config.mixed_model else [])):
        package_version(need)
    imu = cache(lambda: windows.imu.cpu().numpy())
    crafted = cache(lambda: hand_features(imu(), windows.rate_hz))
    learned = cache(lambda: encode_features(pretrained, windows.imu))

    def unlearned() -> np.ndarray:
        return encode_features(fresh(seed).to(windows.imu.device), windows.imu)

    def by_rocket(features: RocketFeatures) -> Callable[[], np.ndarray]:
        return cache(lambda: features(imu()[: windows.label_windows], imu()))

    probe = partial(ProbeArm, windows=windows)
    on_crafted = partial(probe, features=crafted)
    trained = partial(TrainedArm, windows, fresh, augment, config)
    build: dict[str, Callable[[], Arm]] = {
        "pretrained": lambda: probe("pretrained", features=learned),
        "pretrained_finetuned": lambda: trained(
            (pretrained, probe("pretrained_finetuned", features=learned))
        ),
        "lora": lambda: trained((pretrained, probe("lora", features=learned)), adapters=True),
        "knn": lambda: NeighboursArm("knn", windows, learned),
        "prototypes": lambda: PrototypesArm("prototypes", windows, learned),
        "scratch": trained,
        "random": lambda: probe("random", features=unlearned),
        "features": lambda: on_crafted("features"),
        "features_scaled": lambda: on_crafted("features_scaled", scalings=("unlabelled",)),
        "features_whitened": lambda: on_crafted("features_whitened", scalings=("whitened",)),
        "forest": lambda: ForestArm(windows, crafted),
        "catch22": lambda: probe("catch22", features=lambda: catch22_features(imu())),
        "tsfel": lambda: probe(
            "tsfel", features=lambda: tsfel_features(imu(), windows.rate_hz, report, jobs)
        ),
        "minirocket": lambda: RidgeArm(windows, by_rocket(minirocket_features)),
        "multirocket_hydra": lambda: RidgeArm(
            windows, by_rocket(multirocket_hydra_features), multirocket_hydra_scaler
        ),
    }
    own = {
        name: probe(name, features=partial(own_features, name, source, windows, config.calibrated))
        for name, source in config.own.items()
    }
    return {**{name: build[name]() for name in config.arms}, **own}
