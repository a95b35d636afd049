"""``primus-scale shards init|build|embed|split|verify|stats``: raw data to shards to train on."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.cli import GOES_ON
from primus_scale.command_parser import Parser
from primus_scale.stopping import loading


def add_commands(commands: Any) -> None:
    """Add ``shards`` and its subcommands to the ``primus-scale`` parser's ``commands``."""
    commands.add_parser(
        "shards",
        help="build, embed, split, verify and describe shard folders",
        description="From raw data to shards: init drafts a description of your own files, build "
        "writes window shards, embed runs the frozen teachers over them and writes packed shards, "
        "split divides a folder by people for an evaluation, "
        "verify reads a folder again against its index, stats draws its data card. Folders are "
        "local paths or any URL that fsspec knows (s3://, gs://, ...).",
        fill=_fill_shards,
    )


def _fill_shards(parser: Parser) -> None:
    from shards.build_commands import add_build
    from shards.init_command import add_init
    from shards.split_command import add_split

    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    add_init(steps)
    add_build(steps)
    _add_embed(steps)
    add_split(steps)
    _add_verify(steps)
    _add_stats(steps)


def _add_embed(steps: Any) -> None:
    parser = steps.add_parser(
        "embed",
        help="run the teachers over window shards and write packed shards",
        description="Run frozen teachers over window shards and write packed shards with the "
        "embeddings in place of pictures and texts. A teacher of video or text is a packaged one "
        "(efficientnet-lite0 for video, minilm for text), a CLIP, SigLIP or X-CLIP model of the "
        "Hugging Face hub (owner/model), or a local folder of one. The teacher of the signal "
        "(handcrafted) needs neither pictures nor texts: fixed formulas turn the samples of a "
        "window into an embedding. The order of the windows is "
        "drawn from the seed: by sessions, so that a record has parts of sessions in order of "
        "time, and a batch can hold many windows of one session; or shuffled, window by window. A "
        "run that was stopped goes on where it was. Workers are those of the Ray cluster at "
        "RAY_ADDRESS, or of a local one; their number and that of threads do not change the bytes "
        "that are written.",
    )
    parser.add_argument("--src", required=True, metavar="URL", help="folder of window shards")
    parser.add_argument("--out", required=True, metavar="URL", help="folder to write to")
    parser.add_argument("--video", metavar="NAME", help="teacher of pictures")
    parser.add_argument("--text", metavar="NAME", help="teacher of narrations")
    parser.add_argument("--signal", choices=["handcrafted"], help="teacher of the signal itself")
    parser.add_argument(
        "--order", choices=["sessions", "shuffled"], default="sessions", help="of the windows"
    )
    parser.add_argument("--block", type=int, default=256, help="windows in one record, at most")
    parser.add_argument("--seed", type=int, default=0, help="of their order")
    parser.add_argument(
        "--batch", type=int, default=64, help="pictures, texts or windows in one forward pass"
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where teachers run"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=1,
        help="Ray workers; 1 is this process, unless RAY_ADDRESS names a cluster",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads of a worker, that decode pictures and run teachers (default: this machine's "
        "cores divided by --workers; 1 on the cluster of RAY_ADDRESS)",
    )
    parser.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        default=1.0,
        help="share of a GPU, with --device cuda; below 1 several workers keep one GPU busy",
    )
    _add_overwrite(parser)
    parser.set_defaults(run=_embed, interrupted=GOES_ON)


def _embed(args: argparse.Namespace) -> int:
    with loading():
        from shards.embed.embed import embed

    embed(
        args.src,
        args.out,
        video=args.video,
        text=args.text,
        signal=args.signal,
        order=args.order,
        block=args.block,
        seed=args.seed,
        device=args.device,
        batch=args.batch,
        workers=args.workers,
        threads=args.threads,
        gpus_per_worker=args.gpus_per_worker,
        overwrite=args.overwrite,
    )
    return 0


def _add_verify(steps: Any) -> None:
    parser = steps.add_parser(
        "verify",
        help="read a shard folder again against its index",
        description="Read every file of a shard folder again and compare it with index.json: "
        "sizes, checksums, records, shapes, values and identities. Prints counts by data set, "
        "placement, modality and label, and every fault; exit code 1 where there is one.",
    )
    parser.add_argument("url", metavar="URL", help="folder of window or packed shards")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    with loading():
        from shards.write.verify import verify

    report = verify(args.url)
    print(report)
    return 0 if report.ok else 1


def _add_stats(steps: Any) -> None:
    parser = steps.add_parser(
        "stats",
        help="draw the data card of shard folders",
        description="Write card.html, one page to look at, and card.json: hours by data set, "
        "placement, person and label, what was refused and why, rates, gravity, rotation, lags "
        "between picture and IMU, narrations, and a dozen windows.",
    )
    parser.add_argument(
        "urls", nargs="+", metavar="URL", help="folder of window or packed shards; several: as one"
    )
    parser.add_argument("--out", metavar="URL", help="folder to write to (default: the first)")
    parser.add_argument(
        "--most",
        type=int,
        default=50_000,
        metavar="N",
        help="windows to read, evenly drawn where there are more",
    )
    parser.set_defaults(run=_stats)


def _stats(args: argparse.Namespace) -> int:
    with loading():
        from shards.card.page import write_card

    write_card(args.urls, args.out, most=args.most)
    return 0


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace shards that already lie in the folder"
    )
