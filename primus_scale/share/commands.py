"""Commands by which encoders leave the program and come into it."""

from __future__ import annotations

import argparse
from typing import Any

from primus_scale.stopping import loading

ENCODER_HELP = (
    "folder of an exported encoder or of a run; hf://OWNER/NAME[@REVISION], one on the Hub; or "
    "demo, the one in this package"
)


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
        from primus_scale.encoders.export import check_same_origin
        from primus_scale.encoders.published import SOURCE, import_published
        from primus_scale.storage.urls import parse_local

    out = parse_local(args.out)
    check_same_origin(out, {"source": SOURCE})
    print(f"encoder  {import_published(args.checkpoint, out)}")
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
