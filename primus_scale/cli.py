"""The ``primus-scale`` command and its subcommands.

    primus-scale shards build|embed|verify     raw data to packed shards   (package ``shards``)
    primus-scale pretrain                      packed shards to an encoder
    primus-scale evaluate                      an encoder to a few-shot report
    primus-scale report                        reports anew, from their results
    primus-scale audit-split                   what labels and test have in common
    primus-scale export | import-weights       checkpoints to exported encoders, those to devices
    primus-scale push                          an exported encoder to the Hugging Face Hub
    primus-scale encode                        features of shards or recordings (package ``shards``)
    primus-scale study run|status              many runs and their tables       (package ``launch``)
    primus-scale completion                    what a shell needs to complete all of this

This package may not import ``shards``, which adds its commands by the entry-point group
``primus_scale.commands``. A command is a function ``run(args) -> exit code``. The modules of
``launch`` start runs on many processes, and have commands of their own.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from primus_scale.allocator import keep_freed_memory
from primus_scale.command_parser import Parser, add_config_arguments
from primus_scale.stopping import (
    INTERRUPTED,
    end_silently,
    end_while_loading,
    loading,
    restore_interrupts,
)

if TYPE_CHECKING:  # these and others are imported after Ctrl-C is handled
    from primus_scale.config import ConfigModel

COMMAND_GROUP = "primus_scale.commands"
GOES_ON = "what is done is kept, and the same command goes on"
# FloatingPointError: a loss that stays not finite comes from the configuration too.
# ModuleNotFoundError: a package of an extra is not installed.
USER_ERRORS = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)
_ERRNO = re.compile(r"^\[Errno \d+\] ")  # a number that only programs need
MOST_TOLD = 2000  # characters of an error: some quote what a file said


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's error is one line on stderr and exit code 1."""
    if argv is None:  # as a program, which is about to import much
        end_while_loading()
        keep_freed_memory()
    parser = _build_commands()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    return answer(f"{parser.prog} {args.command}", lambda: args.run(args), args.interrupted)


def answer(prog: str, action: Callable[[], int], interrupted: str) -> int:
    """The exit code of ``action()``, after one line where a user's error or Ctrl-C ended it.

    interrupted: what Ctrl-C has left, and how to continue, for the message. If the program called
    ``end_while_loading`` before, another Ctrl-C after ``action`` ends it without a message.
    """
    program = False
    try:
        program = restore_interrupts()
        return int(action())
    except KeyboardInterrupt:
        return _tell_interrupted(prog, interrupted)
    except Exception as error:
        if _is_of_interrupt(error):
            return _tell_interrupted(prog, interrupted)
        if not isinstance(error, USER_ERRORS):
            raise
        _say(f"{prog}: error: {explain(error)}{_origin_of_paths(error)}")
        return 1
    finally:
        if program:
            end_silently()


def _tell_interrupted(prog: str, interrupted: str) -> int:
    end_silently()  # once more, while Python ends
    _say(f"{prog}: interrupted; {interrupted}")
    return INTERRUPTED


def _origin_of_paths(error: BaseException) -> str:
    """Where the paths of an error begin, if something was not found and it names no whole path."""
    text = str(error)
    if not isinstance(error, FileNotFoundError) or text.startswith("/") or "://" in text:
        return ""
    if any(f"{mark}/" in text for mark in " \"'("):
        return ""
    return f" (paths begin at {Path.cwd()})"


def _say(line: str) -> None:
    """Print on stderr, on a line of its own also where one that shows progress is not ended."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


def _is_of_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error: an import may turn it into an error of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def explain(error: BaseException) -> str:
    """An error's message on one line, of a length that can be read."""
    text = _ERRNO.sub("", " ".join(str(error).split())) or type(error).__name__
    if len(text) <= MOST_TOLD:
        return text
    half = MOST_TOLD // 2
    return f"{text[:half]} ... ({len(text):,} characters) ... {text[-half:]}"


def build_parser() -> Parser:
    """The whole command with every argument of every subcommand, those of other packages too."""
    return _build_commands().filled_below()


def _build_commands() -> Parser:
    """The command with its subcommands, whose arguments are added when one of them is chosen."""
    from importlib.metadata import entry_points, version

    from primus_scale.share.commands import add_import_weights, add_push
    from primus_scale.share.export_command import add_export
    from primus_scale.splits.commands import add_audit_split
    from primus_scale.study.commands import add_report

    parser = Parser(prog="primus-scale", description="Pretrain IMU encoders with PRIMUS, at scale.")
    parser.set_defaults(interrupted="nothing was written; start it again")
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('primus-scale')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for entry in sorted(entry_points(group=COMMAND_GROUP), key=lambda e: e.name, reverse=True):
        entry.load()(commands)
    _add_pretrain(commands)
    _add_evaluate(commands)
    add_report(commands)
    add_audit_split(commands)
    add_export(commands)
    add_import_weights(commands)
    add_push(commands)
    _add_completion(commands)
    return parser


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser(
        "pretrain",
        help="pretrain an encoder in this process (launch/ holds the ways to start many)",
        description="Pretrain an encoder in one process. A run whose output folder holds a "
        "checkpoint continues from it. Many processes: python -m launch.ray_train, or "
        "deepspeed launch/deepspeed_train.py; both take the same arguments.",
    )
    add_config_arguments(parser)
    parser.set_defaults(run=_pretrain, interrupted=GOES_ON)


def _pretrain(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.config_file import load_config
        from primus_scale.train.trainer import pretrain

    return pretrain(load_config(args.config, args.overrides))


def _add_evaluate(commands: Any) -> None:
    commands.add_parser(
        "evaluate",
        help="few-shot evaluation of an exported encoder, with an HTML report",
        description="Few-shot evaluation: k labels a class, people disjoint between labels and "
        "test; the encoder next to baselines (arms), all under one budget. "
        "Writes few_shot.json and report.html.",
        fill=_fill_evaluate,
    )


def _fill_evaluate(parser: Parser) -> None:
    from primus_scale.config import FewShotConfig
    from primus_scale.share.commands import ENCODER_HELP
    from primus_scale.splits.commands import add_may_share

    parser.epilog = f"settings and their defaults:\n{_list_fields(FewShotConfig)}"
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--encoder", metavar="ENCODER", help=ENCODER_HELP)
    source.add_argument(
        "--run",
        dest="run_dir",
        metavar="DIR",
        help="output folder of a training run: evaluates its encoder and writes summary.json",
    )
    parser.add_argument("--data", metavar="URL", help="folder with label/ and test/, or task.data")
    parser.add_argument(
        "--test-people",
        type=float,
        metavar="SHARE",
        help="the folder of --data holds shards itself, and this share of its people is tested, "
        "e.g. 0.3: those that shards split draws",
    )
    parser.add_argument("--split-seed", type=int, metavar="N", help="of who is tested (default: 0)")
    add_may_share(
        parser,
        "labels and test may have in common; without it people, intervals (the same samples) and "
        "copies are refused, and the others reported",
    )
    parser.add_argument("--out", metavar="DIR", help="report folder; default: next to the encoder")
    parser.add_argument(
        "--finished",
        metavar="FILE",
        help="keeps what is finished, for evaluations that have work in common; default: one in "
        "the report folder, from which an interrupted evaluation goes on",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes at once (default: one a core; on a GPU 1)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings of the evaluation, listed below, e.g. draws=5 k=[5,50]",
    )
    parser.set_defaults(run=_evaluate, interrupted=GOES_ON)


def _list_fields(model: type[ConfigModel]) -> str:
    """A line ``name=default  description`` for each field."""
    import json

    lines = []
    for name, field in model.model_fields.items():
        default = field.get_default()
        plain = default.model_dump(exclude_defaults=True) if name == "task" else default
        setting = f"{name}={json.dumps(plain, separators=(',', ':'))}"
        lines.append(f"  {setting:<26}{field.description}")
    return "\n".join(lines)


def _evaluate(args: argparse.Namespace) -> int:
    with loading():
        from primus_scale.config import FewShotConfig
        from primus_scale.config_file import apply_overrides
        from primus_scale.evaluate import evaluate, evaluate_run
        from primus_scale.evaluate.run_folder import REPORT_FOLDER, report_folder
        from primus_scale.share.run_settings import read_run
        from primus_scale.storage.urls import parse_local

    finished = None if args.finished is None else parse_local(args.finished)
    choices = {"finished_file": finished, "jobs": args.jobs}
    if args.encoder:
        settings = _with_task(apply_overrides(FewShotConfig(), args.overrides), args)
        out = report_folder(args.encoder) if args.out is None else parse_local(args.out)
        evaluate(args.encoder, args.data, settings, out, **choices)
        return 0
    run_dir, config = read_run(args.run_dir, f"--encoder {args.run_dir} evaluates it")
    few_shot = _with_task(apply_overrides(config.few_shot, args.overrides), args)
    out = run_dir / REPORT_FOLDER if args.out is None else parse_local(args.out)
    config = config.model_copy(update={"few_shot": few_shot})
    evaluate_run(run_dir, args.data, config, out, **choices)
    return 0


def _with_task(settings: Any, args: argparse.Namespace) -> Any:
    """The few-shot settings with what the flags say of the task."""
    shared = tuple(args.may_share)
    flags = {"test": args.test_people, "seed": args.split_seed, "may_share": shared}
    changes = {name: value for name, value in flags.items() if value not in (None, ())}
    if "seed" in changes and not isinstance(changes.get("test", settings.task.test), float):
        raise ValueError("--split-seed is of --test-people, which is not given; give both")
    task = settings.task.model_copy(update=changes)
    return settings.model_copy(update={"task": task})


def _add_completion(commands: Any) -> None:
    parser = commands.add_parser(
        "completion",
        help="print what a shell needs to complete these commands and flags",
        description="Print a script that lets Tab complete commands, flags and paths. bash reads "
        "~/.local/share/bash-completion/completions/primus-scale.bash, zsh the file "
        "_primus-scale in a folder of $fpath: write it there.",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    parser.set_defaults(run=_completion)


def _completion(args: argparse.Namespace) -> int:
    from primus_scale.completion import completion

    print(completion(build_parser(), args.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
