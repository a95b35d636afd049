"""Nothing that the program reads is unpickled or built from YAML tags: either could run code."""

import ast

import pytest

from tests.unit.test_structure import ROOT, source_files

# Reads pickles with an unpickler that knows numpy's array types only (test_unpickle.py).
RESTRICTED = "shards/files/unpickle.py"
PICKLING = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
SAFE_LOADERS = ("yaml.BaseLoader", "yaml.SafeLoader")


def offences(code: str) -> list[str]:
    """What in a file's code may unpickle or construct what the file that it reads asks for."""
    tree = ast.parse(code)
    loaders = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        if [ast.unparse(base) for base in node.bases] in [[loader] for loader in SAFE_LOADERS]
    ]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += _of_call(node, [*loaders, *SAFE_LOADERS])
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in PICKLING:
            found += [ast.unparse(node)] if node.attr != "UnpicklingError" else []
        elif isinstance(node, ast.ImportFrom) and node.module in PICKLING:
            found.append(f"from {node.module} import")
    return found


def _of_call(call: ast.Call, safe_loaders: list[str]) -> list[str]:
    name = ast.unparse(call.func)
    named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name == "yaml.load":
        loader = named.get("Loader", *[ast.unparse(each) for each in call.args[1:2]])
        return [] if loader in safe_loaders else [name]
    unsafe = (
        (name == "torch.load" and named.get("weights_only") != "True")
        or named.get("allow_pickle", "False") != "False"
        or (name.startswith("yaml.") and "load" in name and name != "yaml.safe_load")
        or name.endswith((".read_pickle", "_object", "_object_list"))
        or name in ("eval", "exec")
    )
    return [name] if unsafe else []


def test_nothing_is_unpickled() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): offences(path.read_text(encoding="utf-8"))
        for path in source_files()
    }
    assert found.pop(RESTRICTED), "the exception is where it was"
    assert {place: found for place, found in found.items() if found} == {}


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(file)",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "joblib.load(path)",
        "pandas.read_pickle(path)",
        "yaml.load(text)",
        "yaml.load(text, yaml.UnsafeLoader)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "dist.broadcast_object_list(values)",
        "eval(text)",
    ],
)
def test_what_the_test_above_finds(code: str) -> None:
    assert offences(code)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "class Loader(yaml.BaseLoader): pass\nyaml.load(text, Loader)",
        "model.eval()",
    ],
)
def test_what_it_leaves(code: str) -> None:
    assert offences(code) == []
