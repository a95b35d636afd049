"""The fences of the design: who may import what, and that every configuration field is read."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from primus_scale.config import Config

ROOT = Path(__file__).parents[2]
PACKAGES = ("primus_scale", "shards", "launch", "benchmarks")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60

# Module or package -> the places (path prefixes below the root) that may import it.
FENCES = {
    "ray": ("launch/", "shards/tasks/", "primus_scale/support/service", "benchmarks/support.py"),
    "deepspeed": ("primus_scale/engine/",),
    "faiss": ("primus_scale/support/",),
    "webdataset": ("primus_scale/data/", "benchmarks/data_readers.py"),
    "torch.distributed": ("primus_scale/distributed/",),
    "shards": ("shards/", "launch/", "benchmarks/"),
    "launch": ("launch/", "benchmarks/"),
    "benchmarks": ("benchmarks/",),
}

# Inside primus_scale a module imports from its own layer and the layers above it in this list.
LAYERS = (
    (
        "sample",
        "signal",
        "storage",
        "stopping",
        "processes",
        "counted",
        "allocator",
        "command_parser",
        "completion",
    ),
    ("config", "config_file"),
    ("distributed", "data", "teachers", "augment"),
    ("encoders", "support", "splits", "sklearn"),
    ("objective", "monitor"),
    ("engine", "evaluate"),
    ("checkpoint",),
    ("train",),
    ("study", "share"),
    ("cli",),
)


def source_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def imported_names(path: Path) -> frozenset[str]:
    """Dotted names of all modules that a file imports, at top level or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


@pytest.mark.parametrize("fenced", FENCES)
def test_fenced_module_is_imported_only_where_allowed(fenced: str) -> None:
    offenders = []
    for path in source_files():
        place = path.relative_to(ROOT).as_posix()
        uses = any(n == fenced or n.startswith(fenced + ".") for n in imported_names(path))
        if uses and not place.startswith(FENCES[fenced]):
            offenders.append(place)
    assert offenders == []


def test_imports_inside_the_library_run_one_way() -> None:
    depth = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    offenders = []
    for path in (ROOT / "primus_scale").rglob("*.py"):
        module = path.relative_to(ROOT / "primus_scale").parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        assert module in depth, f"primus_scale/{module} has no layer: place it in LAYERS"
        for name in imported_names(path):
            package, _, inner = name.partition(".")
            layer = depth.get(inner.split(".")[0], 0) if package == "primus_scale" else 0
            if layer > depth[module]:
                offenders.append(f"{module} imports {name}")
    assert offenders == []


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_each_other_in_no_circle(package: str) -> None:
    imports: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        folder = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if folder != "__init__":
            named = {name.split(".")[1] for name in imported_names(path) if f"{package}." in name}
            imports.setdefault(folder, set()).update(named - {folder})
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports in {package}: {' <- '.join(error.args[1])}")


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions count as well: they only hide a circle."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in source_files()
    }
    imports = {name: (imported_names(path) & names.keys()) - {name} for name, path in names.items()}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_importing_the_library_and_its_command_imports_no_heavy_framework() -> None:
    code = (
        "import sys, primus_scale, primus_scale.cli; "
        "primus_scale.cli.build_parser(); "
        "found = {'ray', 'deepspeed', 'faiss', 'torch'} & set(sys.modules); "
        "primus_scale.load_encoder; "
        "found |= {'ray', 'deepspeed', 'faiss'} & set(sys.modules); "
        "import primus_scale.train.trainer; "  # as each rank does, before it knows its run
        "found |= {'deepspeed', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def config_fields(model: type[BaseModel], seen: set[str]) -> set[str]:
    """Names of all fields of a configuration model and of the models inside it."""
    for name, field in model.model_fields.items():
        seen.add(name)
        pending = [field.annotation]
        while pending:
            annotation = pending.pop()
            pending += list(getattr(annotation, "__args__", ()))
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                config_fields(annotation, seen)
    return seen


def plain_methods(tree: ast.Module) -> list[ast.AST]:
    """All nodes inside the functions that have no decorator."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node for f in functions if not f.decorator_list for node in ast.walk(f)]


def test_every_configuration_field_has_a_reader() -> None:
    read: set[str] = set()
    product = [path for path in source_files() if "benchmarks" not in path.parts]
    for path in product:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # What only the configuration's own checks (decorated functions) read has no reader.
        nodes = plain_methods(tree) if path.parent.name == "config" else ast.walk(tree)
        for node in nodes:
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # the objective's weights are read by the name of their term
    assert config_fields(Config, set()) - read == set()


def test_no_function_is_too_long() -> None:
    long = {}
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}: {node.name}"] = lines
    assert long == {}


def test_no_file_is_too_long() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in source_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
