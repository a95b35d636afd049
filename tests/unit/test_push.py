"""What ``primus-scale push`` would send: weights as they are, a card, and a page made from it."""

import json
from pathlib import Path

import pytest
import yaml

from primus_scale.cli import main
from primus_scale.encoders.about import CardResult
from primus_scale.encoders.card import EncoderCard, read_card
from primus_scale.encoders.pretrained import load_encoder
from primus_scale.share.model_card import hub_metadata, render_model_card
from tests.encoder_factory import export_small_encoder
from tests.made_up import CLASSES, made_up

ROOT = Path(__file__).parents[2]


def dry_run(source: str, out: Path, *flags: str) -> tuple[dict, dict, str]:
    """Card, header and text of the page that ``source`` would have on the Hub."""
    command = ["push", source, "hf://me/my-imu", "--dry-run", str(out), *flags]
    assert main(command) == 0
    text = (out / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    return json.loads((out / "card.json").read_text()), yaml.safe_load(header), body


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An encoder in the folder of a run, trained on named people somewhere in a bucket.

    The shards were divided by ``shards split``, which keeps the provenance of what it divides.
    """
    folder = Path(export_small_encoder(tmp_path / "run/encoder"))
    whole = {"source": "/secret/clinic/rides", "people": {"own": ["anna", "ben", "carl"]}}
    provenance = {
        "people": {"own": ["anna", "ben"]},
        "sources": [{"url": "/secret/shards/all", "provenance": whole}],
    }
    train = [{"url": "s3://secret/shards/own", "windows": 7, "provenance": provenance}]
    edit(folder, data={"train": train, "windows": 7}, licence="CC0 1.0")
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def results(weights_sha256: str) -> dict:
    """Results of an evaluation of an encoder with these weights."""
    made = made_up({"pretrained": 6, "features": 5}, ("5",), data="own")
    made["runs"][0]["weights_sha256"] = weights_sha256
    return made


def test_the_packaged_encoder_has_a_whole_page(tmp_path: Path) -> None:
    card, header, body = dry_run("demo", tmp_path)
    assert header["license"] == "cc-by-4.0"
    assert header["library_name"] == "primus-scale"
    (model,) = header["model-index"]
    assert model["name"] == "my-imu"
    values = [row["metrics"][0]["value"] for row in model["results"]]
    assert values == [round(100 * row["value"], 1) for row in card["about"]["results"]]
    for text in (
        'load_encoder("hf://me/my-imu")',
        f"| 5 | pretrained, frozen + linear | {values[1]} [",
        "acc_x (m/s2)",
        "`hapt`: real: UCI HAPT",
        "Neurocomputing 171",
        "Not for medical use",
        card["weights_sha256"],
    ):
        assert text in body, text
    assert load_encoder(tmp_path).card.licence == "CC BY 4.0"
    assert "\n\n\n" not in body


def test_people_and_places_stay_at_home_unless_asked(exported: Path, tmp_path: Path) -> None:
    sent = []
    for flags in ((), ("--name-people",)):
        card, header, _ = dry_run(str(exported), tmp_path / "out", *flags)
        sent.append(card["data"]["train"][0])
        assert "secret" not in json.dumps(card)
        assert header["license"] == "cc0-1.0"
    counted, named = (one["provenance"] for one in sent)
    assert "carl" not in json.dumps(counted)
    assert counted["people_counted"] == {"own": 2}
    within = {"source": "rides", "people_counted": {"own": 3}}
    assert counted["sources"] == [{"url": "all", "provenance": within}]
    assert named["people"] == {"own": ["anna", "ben"]}
    assert sent[0]["url"] == "own"
    assert read_card(exported).data["train"][0]["url"] == "s3://secret/shards/own"


def test_results_beside_are_taken_if_they_are_of_these_weights(
    exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run/few_shot/few_shot.json"
    path.parent.mkdir()
    path.write_text(json.dumps(results(read_card(exported).weights_sha256)))
    card, _, body = dry_run(str(tmp_path / "run"), tmp_path / "out")
    (row,) = card["about"]["results"]
    own = results("")["few_shot"]["5"]
    assert (row["value"], row["baseline"]) == (
        round(own["pretrained"]["mean"], 4),
        "hand-crafted features",
    )
    assert row["task"] == f"own: {', '.join(CLASSES)}; 4 people never seen"
    assert f"| 4 | 2 | {100 * own['features']['mean']:.1f} (hand-crafted features) |" in body
    path.write_text(json.dumps(results("of other weights")))
    assert dry_run(str(tmp_path / "run"), tmp_path / "out")[0]["about"]["results"] == []


def test_a_card_of_odd_texts_makes_a_page(exported: Path) -> None:
    card = read_card(exported)
    row = CardResult(
        task="a | b\n---\n<script>",
        protocol="p|q",
        labels="1",
        value=0.5,
        low=0.4,
        high=0.6,
        people=2,
        draws=1,
    )
    about = card.about.model_copy(update={"results": (row,), "title": "x: [y\n# z"})
    odd = card.model_copy(update={"about": about, "licence": "own: terms", "data": {"train": 3}})
    text = render_model_card(odd, "me/imu")
    assert "<script>" not in text.split("---\n", 2)[2]
    assert "p\\|q" in text
    assert yaml.safe_load(text.split("\n---\n")[0])["license_name"] == "own-terms"
    assert metadata(card, "Apache 2.0")["license"] == "apache-2.0"


def metadata(card: EncoderCard, licence: str) -> dict:
    return hub_metadata(card.model_copy(update={"licence": licence}), "me/imu")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hf://me/imu@v1",), "sent to the branch main; leave @REVISION out"),
        (("me/imu",), "names no encoder on the Hub"),
        (("hf://me/imu", "--private"), "--private is of a repository"),
    ],
)
def test_what_cannot_be_sent(
    exported: Path, tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["push", str(exported), *words, "--dry-run", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_not_sent(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (exported / "encoder.safetensors").write_bytes(b"")
    command = ["push", str(exported), "hf://me/imu", "--dry-run", str(tmp_path / "out")]
    assert main(command) == 1
    assert "encoder.safetensors is damaged or of another export" in capsys.readouterr().err


def test_a_dry_run_leaves_files_of_others_as_they_are(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "project"
    own.mkdir()
    (own / "README.md").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder in (own, exported, exported.parent):
        assert main(["push", str(exported), "hf://me/imu", "--dry-run", str(folder)]) == 1
        assert "stay as they are; name a new folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    dry_run(str(exported), tmp_path / "out")
    dry_run(str(exported), tmp_path / "out", "--name-people")  # what it wrote itself is replaced
    sent = str(tmp_path / "out")
    assert main(["push", sent, "hf://me/imu", "--dry-run", sent]) == 1
