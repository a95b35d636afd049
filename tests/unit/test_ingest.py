import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primus_scale.data.index import read_index
from primus_scale.data.shard_set import ShardSet
from shards.ingest import ingest
from shards.parallel import Failed
from shards.recording_maker import IngestJob, RecordingMaker
from shards.verify import verify
from tests.full_disk import files_limited_to
from tests.permissions import bound_by_permissions
from tests.recording_factory import make_settings
from tests.recording_folder import write_recordings


@pytest.fixture
def job(tmp_path: Path) -> IngestJob:
    """Four recordings of 12 s."""
    source = tmp_path / "source"
    write_recordings(source, range(4))
    return IngestJob("folder", str(source), str(tmp_path / "out"), make_settings())


def run(job: IngestJob, **options: object) -> list[str]:
    """What it tells."""
    told: list[str] = []
    ingest(job, report=told.append, **options)  # type: ignore[arg-type]
    return told


def test_shards_index_and_report_tell_the_same(job: IngestJob) -> None:
    told = run(job)
    assert told[0] == f"4 recordings in {job.source}"
    assert verify(job.out).ok
    index = read_index(job.out)
    report = json.loads((Path(job.out) / "ingest.json").read_text())
    assert sum(r["windows"] for r in report["recordings"]) == index.windows > 12
    assert [r["name"] for r in report["recordings"]] == [
        f"person {number}-walk {number:03d}" for number in range(4)
    ]
    assert (index.rate_hz, index.window_s, index.kind) == (50.0, 2.0, "window")
    assert index.provenance["reader"] == "folder"
    assert report["settings"]["max_overlap"] == job.settings.max_overlap
    assert sorted(p.name for p in Path(job.out).iterdir()) == [
        "index.json",
        "ingest.json",
        "shard-000000.tar",
    ]


def test_one_shard_mixes_recordings_in_an_order_drawn_from_the_seed(
    job: IngestJob, tmp_path: Path
) -> None:
    orders = []
    for seed in (0, 0, 1):
        out = str(tmp_path / f"out-{len(orders)}")
        run(replace(job, out=out, settings=replace(job.settings, seed=seed)))
        shards = ShardSet.open(out)
        metas = [shards.read_window(number).meta for number in range(len(shards))]
        orders.append([meta.uid for meta in metas])
        names = [meta.recording for meta in metas]
        assert names != sorted(names)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_small_shards_hold_all_windows(job: IngestJob) -> None:
    run(replace(job, settings=replace(job.settings, shard_bytes=20_000)))
    assert len(read_index(job.out).shards) > 3
    assert verify(job.out).ok


def test_other_settings_use_nothing_of_an_unfinished_run(job: IngestJob, tmp_path: Path) -> None:
    reader = job.create_reader()
    maker = RecordingMaker(job, str(Path(job.out) / ".work"))
    (Path(job.out) / ".work").mkdir(parents=True)
    for number, ref in enumerate(reader.recordings()):
        assert not isinstance(maker((f"recording-{number}", ref)), Failed)
    other = replace(job, settings=replace(job.settings, window_s=4.0, hop_s=4.0))
    run(other)
    assert read_index(job.out).window_s == 4.0
    fresh = replace(other, out=str(tmp_path / "fresh"))
    run(fresh)
    assert shard(other) == shard(fresh)


def shard(job: IngestJob) -> bytes:
    return (Path(job.out) / "shard-000000.tar").read_bytes()


def test_overwriting_leaves_no_shard_of_before(job: IngestJob) -> None:
    run(replace(job, settings=replace(job.settings, shard_bytes=20_000)))
    run(job, overwrite=True)
    assert [p.name for p in Path(job.out).glob("*.tar")] == ["shard-000000.tar"]
    assert verify(job.out).ok


def test_recordings_of_one_name_are_refused(job: IngestJob) -> None:
    """The data set gives names below its own folders; another description may repeat one."""
    source = Path(job.source)
    shutil.copytree(source / "person 1", source / "again" / "person 1")
    text = (source / "recording.yaml").read_text()
    description = text.replace('"{person}/*"', '"person 1/*"')
    (source / "again/recording.yaml").write_text(description)
    run(job)
    names = [
        r["name"] for r in json.loads((Path(job.out) / "ingest.json").read_text())["recordings"]
    ]
    assert len(names) == len(set(names))


def test_a_source_that_disappears_ends_the_run_and_keeps_what_is_done(
    job: IngestJob, tmp_path: Path
) -> None:
    source, away = Path(job.source), tmp_path / "away"

    def tell(line: str) -> None:
        if line.startswith("4 recordings"):
            source.rename(away)

    with pytest.raises(FileNotFoundError, match="check --src"):
        ingest(job, report=tell)
    assert not (Path(job.out) / "index.json").exists()
    away.rename(source)
    run(job)
    assert verify(job.out).ok


def test_a_source_that_disappears_between_two_recordings_is_no_broken_recording(
    job: IngestJob, tmp_path: Path
) -> None:
    refs = job.create_reader().recordings()
    maker = RecordingMaker(job, str(tmp_path))
    assert maker(("first", refs[0]))["report"]["windows"] > 0  # type: ignore[index]
    Path(job.source).rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="check --src"):
        maker(("second", refs[1]))


def test_broken_recordings_are_listed_and_read_again_when_mended(
    job: IngestJob, tmp_path: Path
) -> None:
    file = Path(job.source) / "person 2/walk 002/imu.npy"
    whole = file.read_bytes()
    file.write_bytes(b"")
    run(job)
    errors = {
        r["name"]: r["error"]
        for r in json.loads((Path(job.out) / "ingest.json").read_text())["recordings"]
    }
    assert "imu.npy" in errors.pop("person 2-walk 002")
    assert set(errors.values()) == {None}
    file.write_bytes(whole)
    run(job, overwrite=True)
    whole_again = replace(job, out=str(tmp_path / "fresh"))
    run(whole_again)
    assert shard(job) == shard(whole_again)


def test_where_no_window_is_made_the_report_says_why(job: IngestJob) -> None:
    for file in Path(job.source).glob("*/*/imu.npy"):
        table = np.load(file)
        table[:, 1:4] = 0.0
        np.save(file, table)
    with pytest.raises(ValueError, match=r"no window came of 4 recordings .* implausible gravity"):
        run(job)
    assert not (Path(job.out) / "index.json").exists()
    report = json.loads((Path(job.out) / "ingest.json").read_text())
    refused = [d["refused"] for r in report["recordings"] for d in r["devices"]]
    assert all(set(reasons) == {"implausible gravity"} for reasons in refused)


def test_a_full_disk_ends_the_run_with_the_folder_named(job: IngestJob) -> None:
    with files_limited_to(10_000), pytest.raises(OSError, match=r"temporary folder .* TMPDIR"):
        run(job)
    dense = replace(job, settings=replace(job.settings, hop_s=0.5))
    with files_limited_to(60_000), pytest.raises(OSError, match=r"cannot write to .*out"):
        run(dense)
    assert not (Path(job.out) / "index.json").exists()
    run(dense)
    assert verify(job.out).ok


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    job: IngestJob,
) -> None:
    told: list[str] = []
    out = Path(job.out)
    out.mkdir()
    out.chmod(0o555)
    with bound_by_permissions(), pytest.raises(OSError, match="cannot write to"):
        ingest(job, report=told.append)
    assert told == []
