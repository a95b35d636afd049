import io
import multiprocessing
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from primus_scale.data.index import ShardIndex, read_index
from primus_scale.data.record import decode_window
from primus_scale.sample import Window
from primus_scale.splits.audit import audit
from primus_scale.splits.spans import read_spans
from shards.demo.build import FOLDERS, TRAINING_PER_VALIDATION, build_demo, plan_takes
from shards.demo.hapt import ACTIVITIES, people_split
from shards.demo.mocap import STILL_CLIPS, TRAIN_CLIPS, VALIDATION_CLIPS
from shards.demo.take import TakeRequest, perform_take
from tests.conftest import require

ORDER = TakeRequest(seed=1, number=3, clip="walk", moments=2, placements=3, frames=2, pixels=48)
MOMENTS = 3


@pytest.fixture(scope="module")
def take() -> list[Window]:
    pytest.importorskip("pybullet")
    return perform_take(ORDER)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    lines: list[str] = []
    try:
        counts = build_demo(
            folder.as_uri(),
            moments=MOMENTS,
            pixels=32,
            unlabelled_hop_s=100.0,
            workers=1,
            report=lines.append,
        )
    except (FileNotFoundError, ModuleNotFoundError) as error:
        require(False, str(error))
    assert counts == {name: read_index(str(folder / name)).windows for name in FOLDERS}
    assert len(lines) >= len(FOLDERS)
    return folder


def windows(folder: Path) -> list[Window]:
    """All windows of a folder, read member by member, without its index."""
    records: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                records.setdefault(key, {})[extension] = content.read()
    return [decode_window(record) for record in records.values()]


def same(one: Window, other: Window) -> bool:
    return (
        one.meta == other.meta and one.frames == other.frames and np.array_equal(one.imu, other.imu)
    )


def test_take_has_every_moment_at_every_placement(take: list[Window]) -> None:
    assert len(take) == 6
    assert len({window.meta.uid for window in take}) == 6
    assert {window.meta.start_s for window in take} == {0.0, 5.0}
    assert len({window.meta.placement for window in take}) == 3
    for window in take:
        assert window.imu.shape == (6, 250)
        assert window.imu.dtype == np.float32
        assert 8 < np.median(np.linalg.norm(window.imu[:3], axis=0)) < 14
        assert len(window.frames) == len(window.meta.frame_times_s) == 2
        for time_s in window.meta.frame_times_s:
            assert 0 <= time_s - window.meta.start_s < 5
        for frame in window.frames:
            picture = np.array(Image.open(io.BytesIO(frame)))
            assert picture.shape == (48, 48, 3)
            assert picture.std() > 10  # something is to be seen
        assert len(window.meta.texts) == 2


def test_windows_of_a_moment_share_pictures_and_words_but_no_samples(take: list[Window]) -> None:
    first, second = (window for window in take[:2])
    assert first.meta.start_s == second.meta.start_s
    assert first.frames == second.frames
    assert first.meta.texts == second.meta.texts
    assert not np.allclose(first.imu, second.imu, atol=1.0)


def test_take_is_the_same_in_any_process_and_after_any_other(take: list[Window]) -> None:
    perform_take(TakeRequest(1, 4, "run", 1, 1, 2, 48))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        elsewhere = pool.submit(perform_take, ORDER).result()
    for again in (perform_take(ORDER), elsewhere):
        assert all(same(one, other) for one, other in zip(take, again, strict=True))


def test_takes_differ_by_seed_and_number(take: list[Window]) -> None:
    for other in (TakeRequest(2, 3, "walk", 1, 3, 0, 48), TakeRequest(1, 4, "walk", 1, 3, 0, 48)):
        window = perform_take(other)[0]
        assert window.meta.uid != take[0].meta.uid
        assert not np.allclose(window.imu, take[0].imu, atol=1.0)
        assert window.frames == ()


def test_train_holds_triplets_and_unlabelled_windows_of_the_splits_people(built: Path) -> None:
    label_people, _ = people_split(0)
    content = windows(built / "windows/train")
    triplets = [window for window in content if window.meta.dataset == "demo-mocap"]
    real = [window for window in content if window.meta.dataset == "hapt"]
    assert len(triplets) == 2 * MOMENTS
    assert len(triplets) + len(real) == len(content)
    assert all(window.frames and window.meta.texts for window in triplets)
    assert not any(window.frames or window.meta.texts or window.meta.label for window in real)
    assert {window.meta.person for window in real} == {f"hapt-{p:02d}" for p in label_people}
    assert all(window.meta.session == window.meta.recording for window in content)


def test_validation_holds_unseen_takes_of_trained_and_of_other_clips(built: Path) -> None:
    assert not set(TRAIN_CLIPS) & set(VALIDATION_CLIPS)
    train, validation = (windows(built / "windows" / part) for part in ("train", "validation"))
    assert len(validation) == 2 * -(-MOMENTS // TRAINING_PER_VALIDATION)
    takes = {window.meta.recording for window in train}
    assert not takes & {window.meta.recording for window in validation}


def test_validation_of_the_whole_demo_has_every_clip_twice_in_takes_of_its_own() -> None:
    """At the default number of moments; takes are ordered, not performed."""
    train, validation = plan_takes(1200, {"seed": 0, "placements": 2, "frames": 2, "pixels": 128})
    trained = {take.clip for take in train}
    assert trained == {*TRAIN_CLIPS, *STILL_CLIPS}
    clips = Counter(take.clip for take in validation)
    assert clips == dict.fromkeys(trained | set(VALIDATION_CLIPS), 2)
    assert not {take.number for take in train} & {take.number for take in validation}
    assert sum(take.moments for take in validation) == 1200 // TRAINING_PER_VALIDATION


def test_few_shot_people_are_disjoint_and_every_class_is_there(built: Path) -> None:
    index: dict[str, ShardIndex] = {}
    for side, people in zip(("label", "test"), people_split(0), strict=True):
        content = windows(built / "few_shot" / side)
        index[side] = read_index(str(built / "few_shot" / side))
        assert {window.meta.person for window in content} == {f"hapt-{p:02d}" for p in people}
        assert {window.meta.label for window in content} == set(ACTIVITIES.values())
        assert index[side].labels == tuple(sorted(ACTIVITIES.values()))
        lying = [window.imu[0] for window in content if window.meta.label == "lying"]
        standing = [window.imu[0] for window in content if window.meta.label == "standing"]
        assert np.mean(standing) > 9 > 3 > np.mean(lying)
    assert "SYNTHETIC" in index["test"].provenance["datasets"]["demo-mocap"]


def test_people_named_for_the_test_take_part_in_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    few = {"moments": 1, "frames": 0, "pixels": 32, "unlabelled_hop_s": 100.0, "workers": 1}
    build_demo(str(tmp_path), split=101, test_people=[27, 3], **few)
    tested = {"hapt-03", "hapt-27"}
    assert {window.meta.person for window in windows(tmp_path / "few_shot/test")} == tested
    others = {f"hapt-{number:02d}" for number in range(1, 31)} - tested
    assert {window.meta.person for window in windows(tmp_path / "few_shot/label")} == others
    train = windows(tmp_path / "windows/train")
    assert {window.meta.person for window in train if window.meta.dataset == "hapt"} == others
    assert read_index(str(tmp_path / "few_shot/test")).provenance["split"] == 101


def test_existing_output_is_kept(built: Path) -> None:
    before = (built / "windows/train/index.json").read_bytes()
    with pytest.raises(FileExistsError, match="already holds shards"):
        build_demo(str(built), moments=1, workers=1)
    assert (built / "windows/train/index.json").read_bytes() == before


def test_index_of_the_last_folder_says_that_all_are_there(built: Path) -> None:
    times = [(built / folder / "index.json").stat().st_mtime_ns for folder in FOLDERS]
    assert times == sorted(times)


@pytest.mark.parametrize("folder", [FOLDERS[0], FOLDERS[-1]])
def test_a_folder_that_cannot_be_finished_leaves_no_index_in_any(
    built: Path, tmp_path: Path, folder: str
) -> None:
    def spoil(line: str) -> None:
        """Put a folder in the place of an index when all windows are written."""
        if line.startswith(FOLDERS[-1]):
            (tmp_path / folder / "index.json").mkdir()

    with pytest.raises(OSError, match=f"cannot write to {tmp_path / folder}"):
        build_demo(
            str(tmp_path), moments=1, pixels=32, unlabelled_hop_s=100.0, workers=1, report=spoil
        )
    assert [path for path in tmp_path.rglob("index.json") if path.is_file()] == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("moments", 0), ("placements", 10), ("frames", -1), ("pixels", 8), ("unlabelled_hop_s", 0.0)],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(ValueError, match=option):
        build_demo(str(tmp_path), **{option: value})
    assert list(tmp_path.iterdir()) == []


def test_label_and_test_share_nothing(built: Path) -> None:
    found = audit(*(read_spans(str(built / "few_shot" / side)) for side in ("label", "test")))
    assert found.kinds() == ()
    known = {one.kind for one in found.shared if one.number is not None}
    assert known == {"people", "recordings", "captures", "intervals", "copies"}
    train = read_spans(str(built / "windows/train"))
    assert set(audit(train, read_spans(str(built / "few_shot/test"))).kinds()) == set()
    assert audit(train, read_spans(str(built / "few_shot/label")))["people"].number == 21
