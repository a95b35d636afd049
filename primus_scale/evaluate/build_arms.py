"""The arms that a comparison names, built for one pool of windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from torch import nn

from primus_scale.augment import Augment
from primus_scale.config import FewShotConfig
from primus_scale.evaluate.arms import Arm, Pool
from primus_scale.evaluate.baseline_arms import ForestArm, RidgeArm
from primus_scale.evaluate.finetune import encode_features
from primus_scale.evaluate.minirocket import MiniRocket
from primus_scale.evaluate.probe_arm import ProbeArm
from primus_scale.evaluate.trained_arm import EncoderFactory, TrainedArm
from primus_scale.signal.features import hand_features


def build_arms(
    pool: Pool,
    pretrained: nn.Module,
    fresh: EncoderFactory,
    augment: Augment,
    config: FewShotConfig,
    seed: int,
) -> dict[str, Arm]:
    """The arms of ``config.arms`` by name, in that order.

    seed: of the random weights. The features of an arm are computed when they are first needed.
    """
    imu = cache(lambda: pool.imu.cpu().numpy())
    crafted = cache(lambda: hand_features(imu(), pool.rate_hz))
    learned = cache(lambda: encode_features(pretrained, pool.imu))

    def unlearned() -> np.ndarray:
        return encode_features(fresh(seed).to(pool.imu.device), pool.imu)

    def convolved() -> np.ndarray:
        return MiniRocket(imu()[: pool.label_windows]).features(imu())

    probe = partial(ProbeArm, pool=pool)
    trained = partial(TrainedArm, pool, fresh, augment, config)
    build: dict[str, Callable[[], Arm]] = {
        "pretrained": lambda: probe("pretrained", features=learned),
        "pretrained_finetuned": lambda: trained(
            (pretrained, probe("pretrained_finetuned", features=learned))
        ),
        "scratch": trained,
        "random": lambda: probe("random", features=unlearned),
        "features": lambda: probe("features", features=crafted),
        "features_scaled": lambda: probe(
            "features_scaled", features=crafted, scalings=("unlabelled",)
        ),
        "features_whitened": lambda: probe(
            "features_whitened", features=crafted, scalings=("whitened",)
        ),
        "forest": lambda: ForestArm(pool, crafted),
        "minirocket": lambda: RidgeArm(pool, convolved),
    }
    return {name: build[name]() for name in config.arms}
