"""``primus-scale shards build|embed|verify``: raw data to shards that training reads."""

from __future__ import annotations

import argparse
import os
from typing import Any


def add_commands(commands: Any) -> None:
    """Add ``shards`` and its subcommands to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "shards",
        help="build, embed and verify shard folders",
        description="From raw data to shards: build writes window shards, embed runs the frozen "
        "teachers over them and writes packed shards, verify reads a folder again against its "
        "index. Folders are local paths or any URL that fsspec knows (s3://, gs://, ...).",
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_build(steps)
    _add_embed(steps)
    _add_verify(steps)


def _add_build(steps: Any) -> None:
    parser = steps.add_parser(
        "build",
        help="write the window shards of a data set",
        description="Write window shards. demo: the built-in data, made from installed packages: "
        "synthetic triplets of IMU, pictures and narrations from motion capture, and real IMU of "
        "30 people (UCI HAPT). It writes windows/train, windows/validation, few_shot/label and "
        "few_shot/test below --out.",
    )
    parser.add_argument("data", choices=["demo"], help="which data set")
    parser.add_argument("--out", required=True, metavar="URL", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument(
        "--split", type=int, default=0, help="which of the 30 people are for the few-shot test"
    )
    parser.add_argument(
        "--moments", type=int, default=1200, help="synthetic training moments of 5 s"
    )
    parser.add_argument(
        "--placements", type=int, default=2, help="places on the body that record each moment"
    )
    parser.add_argument("--frames", type=int, default=2, help="pictures of each moment")
    _add_workers(parser, "processes that render")
    _add_overwrite(parser)
    parser.set_defaults(run=_build)


def _build(args: argparse.Namespace) -> int:
    from shards.demo.build import build_demo

    build_demo(
        args.out,
        seed=args.seed,
        split=args.split,
        moments=args.moments,
        placements=args.placements,
        frames=args.frames,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    return 0


def _add_embed(steps: Any) -> None:
    parser = steps.add_parser(
        "embed",
        help="run the teachers over window shards and write packed shards",
        description="Run frozen teachers over window shards and write packed shards with the "
        "embeddings in place of pictures and texts, in an order drawn from the seed. A teacher is "
        "a packaged one (efficientnet-lite0 for video, minilm for text), a CLIP, SigLIP or X-CLIP "
        "model of the Hugging Face hub (owner/model), or a local folder of one.",
    )
    parser.add_argument("--src", required=True, metavar="URL", help="folder of window shards")
    parser.add_argument("--out", required=True, metavar="URL", help="folder to write to")
    parser.add_argument("--video", metavar="NAME", help="teacher of pictures")
    parser.add_argument("--text", metavar="NAME", help="teacher of narrations")
    parser.add_argument("--block", type=int, default=256, help="windows in one record")
    parser.add_argument("--seed", type=int, default=0, help="of the order of windows")
    parser.add_argument(
        "--batch", type=int, default=64, help="pictures or texts in one forward pass"
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where teachers run"
    )
    _add_workers(parser, "threads that decode pictures and run teachers")
    _add_overwrite(parser)
    parser.set_defaults(run=_embed)


def _embed(args: argparse.Namespace) -> int:
    from shards.embed import embed

    embed(
        args.src,
        args.out,
        video=args.video,
        text=args.text,
        block=args.block,
        seed=args.seed,
        device=args.device,
        batch=args.batch,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    return 0


def _add_verify(steps: Any) -> None:
    parser = steps.add_parser(
        "verify",
        help="read a shard folder again against its index",
        description="Read every file of a shard folder again and hold it against index.json: "
        "sizes, checksums, records, shapes, values and identities. Prints counts by data set, "
        "placement, modality and label, and every fault; exit code 1 where there is one.",
    )
    parser.add_argument("url", metavar="URL", help="folder of window or packed shards")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from shards.verify import verify

    report = verify(args.url)
    print(report)
    return 0 if report.ok else 1


def _add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--workers", type=int, metavar="N", default=os.cpu_count(), help=what)


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shards that already lie in the folder"
    )
