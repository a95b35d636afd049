"""The small few-shot task of ``few_shot_task`` as shard folders, and an exported encoder for it."""

from pathlib import Path

import numpy as np

from primus_scale.config import EncoderConfig
from primus_scale.encoders import build_encoder
from primus_scale.encoders.card import describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.sample import Window, WindowMeta, window_uid
from shards.write.writer import WindowShardWriter
from tests.few_shot_task import CLASSES, RATE_HZ, SAMPLES, make_side

NOTE = "SYNTHETIC: sines"


def export(folder: Path, samples: int = SAMPLES, run: str = "none") -> Path:
    encoder = build_encoder(
        EncoderConfig(name="conv_stats", size="XS", ss_dim=8),
        channels=6,
        samples=samples,
        rate_hz=RATE_HZ,
        teacher_dims={},
        shared=False,
        mean=(0.0, 0.0, 9.8, 0.0, 0.0, 0.0),
        std=(1.5,) * 6,
    )
    data = {"run": run, "train": [{"provenance": {"datasets": {"sines": NOTE}}}]}
    card = describe_encoder(encoder, teachers={}, data=data, objective={}, licence="none")
    save_encoder(encoder, folder, card)
    return folder


def write_side(
    folder: Path, people: range, classes: tuple[str, ...] = CLASSES, split: int | None = 2
) -> None:
    side = make_side(people, windows_each=3)
    provenance = {"datasets": {"sines": NOTE}, **({} if split is None else {"split": split})}
    with WindowShardWriter(str(folder), rate_hz=RATE_HZ, provenance=provenance) as writer:
        for number, imu in enumerate(side.imu.numpy()):
            label = classes[side.label[number]] if number % 9 != 8 else None
            meta = WindowMeta(
                uid=window_uid("sines", str(side.person[number]), "imu", number),
                dataset="sines",
                recording="0",
                device="imu",
                placement="waist",
                person=str(side.person[number]),
                session=str(side.person[number]),
                start_s=float(number),
                label=label,
            )
            writer.write(Window(imu=imu.astype(np.float32), meta=meta))
        writer.close()
