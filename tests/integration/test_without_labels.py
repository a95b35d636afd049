"""Zero-shot and retrieval, by the packaged text teacher; and who is refused, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from primus_scale.config import EncoderConfig, FewShotConfig
from primus_scale.encoders import build_encoder
from primus_scale.encoders.base import Embeddings
from primus_scale.encoders.card import EncoderCard, describe_encoder
from primus_scale.encoders.export import save_encoder
from primus_scale.evaluate import evaluate, pool
from primus_scale.evaluate.cross_modal import chance_of_median, measure_direction, run_retrieval
from primus_scale.evaluate.feature_map import feature_map
from primus_scale.evaluate.report import render_report
from primus_scale.evaluate.zero_shot import read_prompts, run_zero_shot
from primus_scale.monitor.measures import group_equal
from primus_scale.sample import Window, WindowMeta, window_uid
from primus_scale.teachers import Teacher, build_teacher
from shards.write.writer import WindowShardWriter
from tests.few_shot_files import write_side
from tests.few_shot_task import CLASSES, RATE_HZ, SAMPLES, few_penalties, make_side  # noqa: F401
from tests.shard_factory import make_blocks, make_windows, write_packed

pytestmark = pytest.mark.usefixtures("few_penalties")
PROMPTS = {
    "still": ("a person stands still", "someone waits without moving"),
    "slow": ("a person walks", "someone strolls along the road"),
    "fast": ("a person runs fast", "someone sprints", "a race"),
}
SAID = {"still": "a man stands and waits", "slow": "a woman is walking", "fast": "a boy is running"}
TEST = make_side(range(10, 12))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return build_teacher("text", "minilm", "cpu")


def card_of(encoder: nn.Module, teacher: Teacher, key: str = "") -> EncoderCard:
    described = {
        "dim": teacher.dim,
        "key": key or teacher.key,
        "space": teacher.space,
        "teacher": teacher.name,
    }
    return describe_encoder(
        encoder, teachers={"text": described}, data={}, objective={}, licence="none"
    )


def small_encoder(dims: dict[str, int]) -> nn.Module:
    return build_encoder(
        EncoderConfig(name="conv_stats", size="XS", ss_dim=8), channels=6, samples=SAMPLES,
        rate_hz=RATE_HZ, teacher_dims=dims, shared=False, mean=(0.0,) * 6, std=(1.0,) * 6,
    )  # fmt: skip


class Interpreter(nn.Module):
    """Tells the class by the energy of a window, and says it in other words than the prompts."""

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.said = nn.Parameter(teacher.encode([SAID[name] for name in CLASSES]))

    def forward(self, imu: torch.Tensor) -> Embeddings:
        change = imu[:, 0].diff(dim=1).std(dim=1)
        speed = (imu[:, 0].std(dim=1) > 0.4).long() + (change > 0.55).long()
        said = 3 * self.said[speed.clamp(max=2)]
        return Embeddings(said, said, {"text": said})


def test_windows_are_classified_by_what_the_wordings_mean(teacher: Teacher) -> None:
    card = card_of(small_encoder({"text": teacher.dim}), teacher)
    found = run_zero_shot(TEST, Interpreter(teacher), card, PROMPTS, split=3)
    (record,) = found["records"]
    assert found["accuracy"]["mean"] == record["accuracy"] > 0.8
    assert found["accuracy"]["people"] == 2
    assert found["chance"] == pytest.approx(1 / 3)
    assert np.trace(found["confusion"]) == round(record["accuracy"] * len(TEST))
    assert len(record["by_wording"]) == 2  # as many as every label has

    # the same by hand: cosines with normalised means of the wordings' embeddings
    prototypes = []
    for name in CLASSES:
        unit = teacher.encode(PROMPTS[name]).double()
        prototypes.append(sum(unit) / len(unit) / (sum(unit) / len(unit)).norm())
    with torch.no_grad():
        said = Interpreter(teacher)(TEST.imu).mm["text"].double()
    answers = torch.stack([said @ prototype for prototype in prototypes], dim=1).argmax(1).numpy()
    assert record["accuracy"] == np.mean(answers == TEST.label)


def test_labels_without_wording_and_encoders_without_text_are_refused(
    teacher: Teacher, tmp_path: Path
) -> None:
    encoder = small_encoder({"text": teacher.dim})
    card = card_of(encoder, teacher)
    few = {"still": ("a",), "fast": (" ",), "slwo": ("b",)}
    with pytest.raises(ValueError, match=r"no wording of the labels 'slow', 'fast'; .* 'slwo'"):
        run_zero_shot(TEST, encoder, card, few)
    mute = card.model_copy(update={"teachers": {}})
    with pytest.raises(ValueError, match="no head for text, so it cannot be asked by texts"):
        run_zero_shot(TEST, encoder, mute, PROMPTS)
    with pytest.raises(ValueError, match=r"head for text was trained with .*'minilm' of key other"):
        run_zero_shot(TEST, encoder, card_of(encoder, teacher, key="other"), PROMPTS)
    with pytest.raises(FileNotFoundError, match=r"no file .*prompts.yaml; write one"):
        read_prompts(str(tmp_path / "prompts.yaml"))
    for text, said in (("[a]", "no mapping of labels"), ("a: b", "to lists"), ("a: [", "YAML")):
        (tmp_path / "prompts.yaml").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_prompts(str(tmp_path / "prompts.yaml"))
    (tmp_path / "prompts.yaml").write_text("still: [a, b]\nslow: [c]")
    assert read_prompts(str(tmp_path / "prompts.yaml")) == {"still": ("a", "b"), "slow": ("c",)}


def test_retrieval_is_that_of_sorted_lists_and_chance_that_of_random_orders() -> None:
    draws = torch.Generator().manual_seed(0)
    keys = torch.randn(60, 8, generator=draws)
    keys[50:] = keys[:10]  # the same narration again
    queries = keys + torch.randn(60, 8, generator=draws)
    groups = group_equal(keys, torch.arange(60))
    people = np.repeat(["a", "b", "c"], 20)
    found = measure_direction(queries, keys, groups, people)
    ranks = []
    for query, group in zip(queries, groups, strict=True):
        order = torch.cosine_similarity(query[None], keys).argsort(descending=True)
        ranks.append(1 + (groups[order] == group).nonzero()[0, 0].item())
    assert found["median_rank"] == np.median(ranks)
    for at in (1, 5, 10):
        assert found["recall"][str(at)]["mean"] == pytest.approx(np.mean(np.array(ranks) <= at))
        assert found["recall"][str(at)]["people"] == 3
    rng = np.random.default_rng(0)
    orders = [rng.permutation(groups.numpy()) for _ in range(400)]
    at_random = [[np.argmax(order == group) + 1 for group in groups.tolist()] for order in orders]
    for at in (1, 5, 10):
        chance = np.mean(np.array(at_random) <= at)
        assert found["recall"][str(at)]["chance"] == pytest.approx(chance, abs=0.01)
    assert chance_of_median(groups) == pytest.approx(np.median(at_random), abs=1)
    assert chance_of_median(torch.arange(10)) == 5


def test_data_without_the_modality_or_of_another_teacher_is_refused(
    teacher: Teacher, tmp_path: Path
) -> None:
    encoder = small_encoder({"text": teacher.dim})
    card = card_of(encoder, teacher)
    write_side(tmp_path / "mute", range(2))
    with pytest.raises(ValueError, match=r"nothing to find: .* no head for video; .*mute has 0 wi"):
        run_retrieval(encoder, card, [str(tmp_path / "mute")])
    blocks = make_blocks(make_windows(20, samples=SAMPLES))
    write_packed(str(tmp_path / "packed"), blocks)
    with pytest.raises(
        ValueError, match=r"packed: text embeddings are of 'tiny-text' \(key text-k"
    ):
        run_retrieval(encoder, card, [str(tmp_path / "packed")])


def write_told(folder: Path) -> None:
    """Windows of two people with narrations, some of them the same."""
    with WindowShardWriter(str(folder), rate_hz=RATE_HZ) as writer:
        for number, imu in enumerate(TEST.imu.numpy()):
            person = str(TEST.person[number])
            said = SAID[CLASSES[TEST.label[number]]]
            meta = WindowMeta(
                uid=window_uid("told", person, "imu", number), dataset="told", recording=person,
                device="imu", placement="waist", person=person, session=person,
                start_s=float(number), texts=(said,) if number % 4 else (),
            )  # fmt: skip
            writer.write(Window(imu=imu.astype(np.float32), meta=meta))
        writer.close()


def test_a_map_has_the_first_principal_components() -> None:
    encoder = small_encoder({})
    found = feature_map(encoder, TEST)
    assert found is not None
    with torch.inference_mode():
        features = encoder.eval()(TEST.imu).features.double().numpy()
    scaled = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    for axis, number in (("x", 0), ("y", 1)):
        assert np.abs(np.corrcoef(left[:, number], found[axis])[0, 1]) == pytest.approx(1)
        assert found["explained"][number] == pytest.approx(
            values[number] ** 2 / (values**2).sum(), abs=1e-4
        )
    assert [found["people"][person] for person in found["person"]] == list(TEST.person)

    class Constant(nn.Linear):
        def forward(self, imu: torch.Tensor) -> Embeddings:
            return Embeddings(torch.ones(len(imu), 4), torch.ones(len(imu), 4), {})

    assert feature_map(Constant(1, 1), TEST) is None


def test_results_table_and_report_hold_both(
    teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = small_encoder({"text": teacher.dim})
    save_encoder(encoder, tmp_path / "encoder", card_of(encoder, teacher))
    write_side(tmp_path / "label", range(4))
    write_side(tmp_path / "test", range(10, 12))
    write_told(tmp_path / "told")
    config = FewShotConfig(
        k=(2,), draws=1, arms=("features",), prompts=PROMPTS, retrieval=(str(tmp_path / "told"),)
    )
    results = evaluate(tmp_path / "encoder", str(tmp_path), config, tmp_path / "out")
    assert json.loads((tmp_path / "out/few_shot.json").read_text(encoding="utf-8")) == results
    out = capsys.readouterr().out
    assert "zero-shot, by 2 to 3 wordings of each label: accuracy" in out
    assert "imu to text among 36 windows" in out
    assert "retrieval: the encoder has no head for video" in out
    (run,) = results["retrieval"]
    assert set(run["directions"]) == {"imu_to_text", "text_to_imu"}
    recall = run["directions"]["imu_to_text"]["recall"]["1"]
    assert recall["chance"] == pytest.approx(1 / 3, abs=0.01)  # three narrations
    examples = run["examples"]["text"]
    assert len(examples) == 4
    for one in examples:  # of three narrations all are shown, and the own one is at its place
        assert {found["text"] for found in one["found"]} == set(SAID.values())
        (right,) = [found for found in one["found"] if found["right"]]
        assert right["text"] == one["own"]["text"]
        assert (one["rank"] == 1) == one["found"][0]["right"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Examples, IMU to text" in page
    assert "someone strolls along the road" in page
    assert "IMU to text" in page and "recall@10" in page

    other = json.loads(json.dumps(results).replace('"split": 2', '"split": 4'))
    pooled = pool([results, other])
    assert [one["split"] for one in pooled["retrieval"]] == [2, 4]
    assert pooled["zero_shot"]["accuracy"]["people"] == 2
    assert np.sum(pooled["zero_shot"]["confusion"]) == 2 * np.sum(results["zero_shot"]["confusion"])
    assert "recall@10" in render_report({**pooled, "encoder": None})
