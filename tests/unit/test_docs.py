"""Every command and snippet of the documents runs or is parsed; what they cite is there."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from primus_scale.cli import COMMAND_GROUP
from primus_scale.config import Config
from primus_scale.config_file import parse_config
from shards.files.source import Source
from shards.readers.recording_yaml import RecordingFile, WindowsFile, load_yaml
from tests.doc_commands import OURS, extras, fault, flags, parser_of, setting_names
from tests.documents import (
    CONFIGS,
    LAUNCH_FILES,
    PAGES,
    PROGRAMS,
    ROOT,
    Command,
    Place,
    anchors,
    blocks,
    comment_commands,
    docstring_commands,
    links,
    page_commands,
    spans,
)

README = ROOT / "README.md"
SOURCES = tuple(sorted(p for part in OURS[:-1] for p in (ROOT / part).rglob("*.py")))
CITING = (*PAGES, *CONFIGS, *LAUNCH_FILES, ROOT / "Makefile", ROOT / "pyproject.toml", *SOURCES)
PATH = re.compile(
    r"(?<![\w./-])((?:tests|docs|configs|launch|primus_scale|shards|benchmarks)/[\w/.-]*"
    r"\.(?:py|md|ya?ml|json|html|svg|sbatch))\b"
)
TEST_FILE = re.compile(r"(?<![\w/])test_\w+\.py\b")
DOTTED = re.compile(r"`+((?:primus_scale|shards|launch|benchmarks|tests)(?:\.\w+)+)`+")
SETTING = re.compile(r"([a-z]+(?:\.(?!py\b)[a-z_]+)+)(?:$|[=:])")
PROGRAM_MODULES = (
    "primus_scale.cli",
    *(f"launch.{name}" for name in ("ray_train", "deepspeed_train", "preflight")),
    *(
        f"benchmarks.{name}"
        for name in ("step", "ingest", "reading", "recall", "support", "few_shot")
    ),
)
# Flags of other programs that the documents tell of.
FOREIGN_FLAGS = {
    "deepspeed": {"--num_gpus"},
    "ray": {"--working-dir", "--dashboard-host", "--node-ip-address"},
    "sbatch": {
        "--cpus-per-task",
        "--gpus-per-node",
        "--nodes",
        "--ntasks-per-node",
        "--signal",
        "--time",
    },
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def faults(commands: list[Command]) -> list[str]:
    found = [(command, fault(command)) for command in commands]
    return [f"{one.place}: {' '.join(one.words)}: {said}" for one, said in found if said]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_are_parsed(page: Path) -> None:
    assert faults(page_commands(page)) == []


def test_commands_of_configurations_and_launch_files_are_parsed() -> None:
    for config in CONFIGS:
        commands = comment_commands(config)
        assert commands, f"{config}: its header names no command"
        assert faults(commands) == []
    assert faults([command for file in LAUNCH_FILES for command in comment_commands(file)]) == []


def test_commands_of_programs_docstrings_are_parsed() -> None:
    commands = [command for file in PROGRAMS for command in docstring_commands(file)]
    assert {command.place.file.name for command in commands} >= {"ray_train.py", "ingest.py"}
    assert faults(commands) == []


def test_snippets_of_python_compile_and_import_what_is_there() -> None:
    snippets = [block for page in PAGES for block in blocks(page, "python")]
    assert snippets
    for block in snippets:
        tree = ast.parse(block.text, filename=str(block.place))
        imports = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)]
        for one in imports:
            lines = ast.unparse(one)
            exec(lines, {})  # ImportError or AttributeError where it is not there


def test_snippets_of_yaml_are_read(tmp_path: Path) -> None:
    snippets = [block for page in PAGES for block in blocks(page, "yaml")]
    assert snippets
    for block in snippets:
        tree = yaml.safe_load(block.text)
        fits = [
            model
            for model in (Config, WindowsFile, RecordingFile)
            if set(tree) <= {*model.model_fields, *(["base"] if model is Config else [])}
        ]
        assert fits, f"{block.place}: no file has the keys {sorted(tree)}"
        if fits[0] is Config:
            least = {"name": "a", "output": "b", "data": {"train": ["c"]}}
            tree.pop("base", None)
            parse_config(Config, least | tree, source=str(block.place))
            continue
        text = block.text
        if fits[0] is RecordingFile and "devices" not in tree:  # a part of one
            sensor = "{file: a.csv, columns: {acc_x: x}, unit: g, rate_hz: 50}"
            device = f"{{name: a, placement: waist, sensors: [{sensor}]}}"
            text = f"person: anna\ndevices: [{device}]\n{text}"
        (tmp_path / "described.yaml").write_text(text)
        load_yaml(fits[0], Source(str(tmp_path)), "described.yaml")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for path, anchor, place in links(page):
        target = page.parent / path if path else page
        if not target.exists():
            broken.append(f"{place}: no {path}")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{place}: {path} has no heading #{anchor}")
    assert broken == []


def test_files_that_are_cited_exist() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    absent = []
    for file in CITING:
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"(github\.com/\S+, )docs/", r"\1____/", text)  # another repository's
        cited = [(m, (ROOT / m[1]).is_file()) for m in PATH.finditer(text)]
        cited += [(m, m[0] in tests) for m in TEST_FILE.finditer(text)]
        absent += [
            f"{Place(file, text.count(chr(10), 0, m.start()) + 1)}: {m[0]}"
            for m, there in cited
            if not there
        ]
    assert absent == []


def test_the_map_of_the_code_names_what_is_there() -> None:
    (code_map,) = re.findall(r"## Map of the code\n(.*?)\n\n(?!\|)", README.read_text(), re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", code_map, re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        first, *others = re.findall(r"`(.*?)`", row)
        package = ROOT / first.split("/")[0]
        for path in (ROOT / first, *(package / other for other in others)):
            assert path.exists(), f"{row}: no {path}"
    top = {row.strip("`").split("/")[0] for row in rows}
    assert top == {"primus_scale", "shards", "launch", "benchmarks", "configs"}


def test_modules_and_settings_that_are_cited_exist() -> None:
    known = {*setting_names(Config), COMMAND_GROUP}
    unknown = []
    for page in PAGES:
        for span, place in spans(page):
            for word in span.split():
                name = match[1] if (match := SETTING.match(word)) else ""
                of_ours = name.split(".")[0] in Config.model_fields
                if of_ours and name not in known and not is_ours(name):
                    unknown.append(f"{place}: {word}")
    for file in (*PAGES, *SOURCES):
        for name in DOTTED.findall(file.read_text(encoding="utf-8")):
            if name not in known and not is_ours(name):
                unknown.append(f"{named(file)}: {name}")
    assert unknown == []


def is_ours(name: str) -> bool:
    """Whether a dotted name is of a module of ours, or of something in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_flags_that_are_cited_exist() -> None:
    known = set().union(*FOREIGN_FLAGS.values(), *(flags(parser_of(m)) for m in PROGRAM_MODULES))
    unknown = []
    for page in PAGES:
        for span, place in spans(page):
            if span.startswith("--"):
                cited = re.findall(r"(?:^| )(--[\w-]+)", span)
                unknown += [f"{place}: {flag}" for flag in cited if flag not in known]
    assert unknown == []


def test_extras_that_are_cited_exist() -> None:
    for file in CITING:
        text = file.read_text(encoding="utf-8")
        for names in re.findall(r"(?:primus-scale|'\.)\[([\w,-]+)\]", text):
            assert set(names.split(",")) <= extras(), f"{named(file)}: [{names}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("primus-scale shards buld demo --out x", "invalid choice: 'buld'"),
        ("primus-scale shards build demo --outt x", "no flags {'--outt'}"),
        ("primus-scale shards build demo", "required: --out"),
        ("primus-scale shards embed --src A --out B --workers many", "invalid int value: 'many'"),
        ("primus-scale evaluate --run DIR --data URL k=[0.5]", "k"),
        ("primus-scale evaluate --run DIR --data URL drawz=1", "no settings {'drawz'}"),
        ("python -m launch.raytrain --config FILE", "launch.raytrain"),
        ("python -m launch.ancestry", "build_parser"),
        ("python -m launch.ray_train --config configs/none.yaml", "no configuration file"),
        ("python -m launch.ray_train --config configs/demo.yaml train.stepz=1", "train.stepz"),
        ("ray job submit -- python -m launch.ray_train --config configs/demo.yaml a=1", "{'a'}"),
        ("deepspeed --num_gpus 2 launch/deepspeed_trein.py --config FILE", "no file launch/deep"),
        ("srun -n 2 python launch/preflight.py --config configs/demo.yaml --jsn F", "--jsn"),
        ("sbatch --nodes=2 launch/slurm/pretrain.sbatch --konfig F", "--konfig"),
        ("make pretrian", "no target pretrian"),
        ("pip install -e '.[gpuu]'", "gpuu"),
        ("python -m pytestt", "no module pytestt"),
    ],
)
def test_wrong_commands_are_found(tmp_path: Path, text: str, said: str) -> None:
    """So that the tests above can fail."""
    page = tmp_path / "page.md"
    page.write_text(f"```sh\nexport A=1\n{text}   # with a comment\n```\n")
    (command,) = page_commands(page)
    assert said in fault(command)


@pytest.mark.parametrize(
    "text",
    [
        "primus-scale shards build NAME --help",
        "primus-scale shards build $reader --src $file --out ${file%.*}",
        "for file in *.csv; do primus-scale export --run $file --out ${file%.*}; done",
        "primus-scale shards embed --src <URL> --out <URL> --workers N",
        "primus-scale pretrain --config FILE [key=value ...]",
        "RAY_ADDRESS=auto python -m launch.ray_train --config ...",
        "python -m launch.ray_train ...",
        "python -m launch.ray_train --config configs/demo.yaml train.steps=N output=...",
        "make test && .venv/bin/python -m benchmarks.recall --index KIND | tail -1",
    ],
)
def test_placeholders_are_understood(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{text}\n```\nAlso `{text}`, and `primus-scale shards build`.\n")
    commands = page_commands(page)
    assert len(commands) >= 2
    assert [fault(command) for command in commands] == [""] * len(commands)
