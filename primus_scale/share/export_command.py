"""``primus-scale export``: encoders as folders, and as files for devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from primus_scale.stopping import loading

if TYPE_CHECKING:  # imported after Ctrl-C is handled
    import numpy as np

    from primus_scale.encoders.pretrained import PretrainedEncoder


def add_export(commands: Any) -> None:
    """Add ``export`` to the ``primus-scale`` parser's ``commands``."""
    parser = commands.add_parser(
        "export",
        help="write an encoder as safetensors and a card, or as a file for devices",
        description="With --out, write the encoder of a run's newest good checkpoint as "
        "encoder.safetensors and card.json, free of DeepSpeed. A finished run has done so already. "
        "The features are calibrated on the run's training windows, which must be readable; "
        "calibration.kind=none needs no data. With --onnx or --executorch an exported encoder "
        "becomes a file for devices, held against torch before it is written.",
    )
    parser.add_argument(
        "--run",
        "--encoder",
        dest="source",
        required=True,
        metavar="ENCODER",
        help="folder of a run; with --onnx or --executorch also that of an exported encoder, "
        "hf://OWNER/NAME[@REVISION], one on the Hub, or demo, the one in this package",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR", help="folder of the encoder")
    where.add_argument("--onnx", metavar="FILE", help="ONNX file, for any number of windows")
    where.add_argument("--executorch", metavar="FILE.pte", help="ExecuTorch file, for one window")
    parser.add_argument("--int8", action="store_true", help="of the ONNX file: 8 bits, not 32")
    parser.add_argument(
        "--data",
        metavar="URL",
        help="shards with windows to measure the file on (default: the run's, and noise for an "
        "encoder without a run, but not with --int8)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings that replace the run's, e.g. calibration.kind=whitening data.train=[URL]",
    )
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    if args.onnx or args.executorch:
        return _export_file(args)
    if args.int8 or args.data:
        raise ValueError("--int8 and --data are of a file for devices; give --onnx FILE")
    with loading():
        from primus_scale.encoders.export import check_same_origin
        from primus_scale.share.run_settings import read_run
        from primus_scale.storage.urls import parse_local
        from primus_scale.train.export import export_run

    out = parse_local(args.out)
    instead = (
        f"--onnx and --executorch take it, and `load_encoder({args.source!r}).save({args.out!r})` "
        "in Python copies it"
    )
    run_dir, config = read_run(args.source, instead, args.overrides)
    check_same_origin(out, {"run": config.name})
    print(f"encoder  {export_run(run_dir, out, config)}")
    return 0


def _export_file(args: argparse.Namespace) -> int:
    if args.overrides:
        raise ValueError(
            f"{args.overrides[0]}: settings are of an export to a folder; give them "
            "with --out DIR, and then export that to a file"
        )
    if args.int8 and not args.onnx:
        raise ValueError("--int8 is of an ONNX file; give --onnx FILE, or leave it out")
    with loading():
        from primus_scale.encoders.device_file import check_device_file
        from primus_scale.encoders.executorch_export import export_executorch
        from primus_scale.encoders.onnx_export import export_onnx
        from primus_scale.encoders.pretrained import load_encoder
        from primus_scale.storage.urls import parse_local

    out = parse_local(args.onnx or args.executorch)
    if args.onnx:
        check_device_file(out, ".onnx", "an encoder as ONNX")
    else:
        check_device_file(out, ".pte", "an encoder for ExecuTorch")
    encoder = load_encoder(args.source)
    windows = _windows(args, encoder)
    if args.onnx:
        kind, about = "onnx    ", export_onnx(encoder, out, windows, int8=args.int8)
        what = about["precision"]
    else:
        kind, about = "pte     ", export_executorch(encoder, out, windows)
        what = f"{about['precision']}, {about['backend']}"
    print(
        f"{kind} {out}: {what}, {about['bytes'] / 1e6:.2f} MB, "
        f"{about['milliseconds_a_window']:g} ms a window on one core, off torch by "
        f"{about['difference']:.1e} of the largest feature"
    )
    return 0


def _windows(args: argparse.Namespace, encoder: PretrainedEncoder) -> np.ndarray:
    """Windows ``(n, C, T)`` to measure a file on: those of --data, of the run, or noise."""
    from primus_scale.data.reader import load_windows
    from primus_scale.encoders.device_file import MEASURED_WINDOWS, drawn_windows
    from primus_scale.share.run_settings import training_data_of

    data = [args.data] if args.data else training_data_of(args.source)
    if not data:
        if args.int8:
            raise ValueError(
                f"--int8 scales activations on windows, and no run with its data belongs to "
                f"{args.source}; give --data URL, a folder of shards such as the encoder takes"
            )
        return drawn_windows(encoder)
    try:
        loaded = load_windows(data, pictures=False, most=MEASURED_WINDOWS)
    except OSError as error:
        if args.data:
            raise
        raise OSError(
            f"the training windows of the run cannot be read ({error}); give others with --data URL"
        ) from error
    encoder.card.check_windows(loaded.shard_set.index.window_format, str(data[0]))
    return loaded.imu.numpy()
