"""``primus-scale encode``: an encoder's features of shards, or of raw recordings, as one table."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from primus_scale.command_parser import Parser
from primus_scale.counted import counted
from primus_scale.stopping import loading


def add_commands(commands: Any) -> None:
    """Add ``encode`` to the ``primus-scale`` parser's ``commands``."""
    commands.add_parser(
        "encode",
        help="write an encoder's features of shards or recordings as a Parquet file",
        description="Write the features of windows with person, recording, start and label beside "
        "them, a row a window. --src is a shard folder or, with --reader, raw recordings, whose "
        "windows are made and judged as `primus-scale shards build` does it; refused windows are "
        "counted by reason. Windows have the rate and length that the encoder takes.",
        fill=_fill_encode,
    )


def _fill_encode(parser: Parser) -> None:
    from primus_scale.share.commands import ENCODER_HELP
    from shards.readers import READERS

    parser.add_argument("--encoder", required=True, metavar="ENCODER", help=ENCODER_HELP)
    parser.add_argument(
        "--src", required=True, metavar="URL", help="shard folder; with --reader a folder or file"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="Parquet file to write")
    parser.add_argument("--reader", choices=READERS, help="what the raw recordings are")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the reader; may be given several times",
    )
    parser.add_argument(
        "--hop-s", type=float, metavar="S", help="of raw recordings (default: a window's length)"
    )
    parser.set_defaults(run=_encode)


def _encode(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("pyarrow") is None:
        raise ModuleNotFoundError(
            "Parquet files need pyarrow, which is not installed: "
            "pip install 'primus-scale[ingest]'",
            name="pyarrow",
        )
    with loading():
        from primus_scale.encoders.pretrained import load_encoder
        from primus_scale.storage.urls import parse_local
        from shards.features_table import check_table, encode_recordings, encode_shards
        from shards.readers.table_yaml import TABLES

    if args.reader is None and (args.option or args.hop_s is not None):
        raise ValueError("--option and --hop-s are of raw recordings; give --reader too")
    out = parse_local(args.out)
    check_table(out)
    if args.reader is None and args.src.lower().endswith(TABLES):
        raise ValueError(
            f"{args.src} is a file, and --src takes a folder of shards; for recordings of your own "
            "give their folder and --reader folder"
        )
    encoder = load_encoder(args.encoder)
    if args.reader is None:
        rows = encode_shards(encoder, args.src, out)
    else:
        rows = encode_recordings(
            encoder, args.reader, args.src, out, options=args.option, hop_s=args.hop_s
        )
    print(f"features {out}  ({counted(rows, 'window')})")
    return 0
