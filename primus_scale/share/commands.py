"""Commands by which encoders leave the program and come into it."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.stopping import loading

ENCODER_HELP = (
    "folder of an exported encoder or of a run; hf://OWNER/NAME[@REVISION], one on the Hub; or "
    "demo, the one in this package"
)


def add_export(commands: Any) -> None:
    """Add ``export`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "export",
        help="write the encoder of a training checkpoint as safetensors and a card",
        description="Write the encoder of a run's newest good checkpoint as encoder.safetensors "
        "and card.json, free of DeepSpeed. A finished run has done so already. The features are "
        "calibrated on the run's training windows, which must be readable; "
        "calibration.kind=none needs no data. With --onnx the encoder that the run has exported "
        "becomes an ONNX file for devices.",
    )
    parser.add_argument("--run", dest="run_dir", required=True, metavar="DIR", help="run folder")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR", help="folder of the encoder")
    where.add_argument("--onnx", metavar="FILE", help="ONNX file of the encoder's features")
    parser.add_argument("--int8", action="store_true", help="of the ONNX file: 8 bits, not 32")
    parser.add_argument(
        "--data", metavar="URL", help="windows to measure the ONNX file on (default: the run's)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings that replace the run's, e.g. calibration.kind=whitening data.train=[URL]",
    )
    parser.set_defaults(run=_export)


def _export_onnx(args: argparse.Namespace) -> int:
    if args.overrides:
        raise ValueError(
            f"{args.overrides[0]}: settings are of an export to a folder; give them "
            "with --out DIR, and then export that to --onnx"
        )
    with loading():
        from primus_scale.config_file import load_config
        from primus_scale.data.reader import load_windows
        from primus_scale.encoders.onnx_export import CALIBRATION_WINDOWS, export_onnx
        from primus_scale.encoders.pretrained import load_encoder
        from primus_scale.storage.urls import parse_local

    run_dir, out = parse_local(args.run_dir), parse_local(args.onnx)
    encoder = load_encoder(run_dir)
    data = [args.data] if args.data else load_config(run_dir / "config.yaml").data.train
    loaded = load_windows(data, pictures=False, most=CALIBRATION_WINDOWS)
    encoder.card.check_windows(loaded.shard_set.index.window_format, str(data[0]))
    about = export_onnx(encoder, out, loaded.imu.numpy(), int8=args.int8)
    print(
        f"onnx     {out}: {about['precision']}, {about['bytes'] / 1e6:.2f} MB, "
        f"{about['milliseconds_a_window']:g} ms a window on one core, off torch by "
        f"{about['difference']:.1e} of the largest feature"
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    if args.onnx:
        return _export_onnx(args)
    if args.int8 or args.data:
        raise ValueError("--int8 and --data are of an ONNX file; give --onnx FILE")
    with loading():
        from primus_scale.config_file import load_config
        from primus_scale.storage.urls import parse_local
        from primus_scale.train.export import export_run

    run_dir, out = parse_local(args.run_dir), parse_local(args.out)
    config = load_config(run_dir / "config.yaml", args.overrides)
    print(f"encoder  {export_run(run_dir, out, config)}")
    return 0


def add_import_weights(commands: Any) -> None:
    """Add ``import-weights`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "import-weights",
        help="turn the published PRIMUS checkpoint into an exported encoder",
        description="Read the checkpoint published with the paper (Zenodo record 15147513, "
        "best_model.ckpt) with safe loading and write its encoder for evaluate and load_encoder.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="best_model.ckpt")
    parser.add_argument("out", metavar="OUT", help="folder of the encoder")
    parser.set_defaults(run=_import_weights)


def _import_weights(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.encoders.published import import_published
        from primus_scale.storage.urls import parse_local

    print(f"encoder  {import_published(args.checkpoint, parse_local(args.out))}")
    return 0


def add_push(commands: Any) -> None:
    """Add ``push`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "push",
        help="send an exported encoder to the Hugging Face Hub",
        description="Send an exported encoder to the Hugging Face Hub, where "
        "load_encoder('hf://OWNER/NAME') finds it: weights, card.json, and a page made from the "
        "card, with the results of the evaluation beside the encoder. The repository is made if it "
        "is not there. The token is that of `hf auth login`, or HF_TOKEN.",
    )
    parser.add_argument("encoder", metavar="ENCODER", help=ENCODER_HELP)
    parser.add_argument("place", metavar="hf://OWNER/NAME", help="repository to send it to")
    parser.add_argument("--private", action="store_true", help="only for you and your organisation")
    parser.add_argument(
        "--name-people",
        action="store_true",
        help="keep the names of the people of the training data in the card; without it, only "
        "their numbers are sent",
    )
    parser.add_argument(
        "--dry-run", metavar="DIR", help="write what would be sent into DIR, and send nothing"
    )
    parser.set_defaults(run=_push, interrupted="start it again")


def _push(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.share.push import push, write_published
        from primus_scale.storage.urls import parse_local

    people = {"name_people": args.name_people}
    if args.dry_run and args.private:
        raise ValueError("--private is of a repository, and --dry-run makes none; leave one out")
    if args.dry_run:
        out = parse_local(args.dry_run)
        for path in write_published(args.encoder, args.place, out, **people):
            print(f"file     {path}")
    else:
        print(f"commit   {push(args.encoder, args.place, private=args.private, **people)}")
    return 0
