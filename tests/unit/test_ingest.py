import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primus_scale.data.index import read_index
from primus_scale.data.shard_set import ShardSet
from shards.ingest import ingest as ingest_module
from shards.ingest.ingest import check_uids, ingest
from shards.ingest.recording_maker import (
    IngestJob,
    RecordingMaker,
    RecordingRequest,
    RecordingResult,
)
from shards.report import RecordingReport
from shards.tasks import progress
from shards.tasks.local import Failed
from shards.write.verify import verify
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


def test_shards_hold_the_recordings_one_after_the_other(job: IngestJob) -> None:
    small = replace(job, settings=replace(job.settings, shard_bytes=20_000))
    run(small)
    assert len(read_index(small.out).shards) > 3
    shards = ShardSet.open(small.out)
    metas = [shards.read_window(number).meta for number in range(len(shards))]
    order = [(meta.recording, meta.start_s) for meta in metas]
    assert order == sorted(order)
    assert len({meta.recording for meta in metas}) == 4


def test_small_shards_hold_all_windows(job: IngestJob) -> None:
    run(replace(job, settings=replace(job.settings, shard_bytes=20_000)))
    assert len(read_index(job.out).shards) > 3
    assert verify(job.out).ok


def test_small_data_need_no_cluster(job: IngestJob, tmp_path: Path) -> None:
    """Without a number of workers; forks, as many as cores, write what one process does."""
    run(job)
    forked = replace(job, out=str(tmp_path / "forked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "shards.tasks.ray_workers", None)  # importing it is an error
        run(forked, workers=None)
        assert shard(forked) == shard(job)
        patch.setattr(ingest_module, "_SMALL_BYTES", 0)
        with pytest.raises(ImportError):
            run(forked, workers=None, overwrite=True)


def interrupted(job: IngestJob, recordings: int = 2) -> None:
    """A run that is stopped when so many recordings are done."""

    def stop(line: str) -> None:
        if line.startswith("ingest"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "REPORT_S", 0.0)  # a line for each recording
        for _ in range(recordings):
            with pytest.raises(KeyboardInterrupt):
                ingest(job, report=stop)


def kept(job: IngestJob) -> list[Path]:
    return sorted((Path(job.out) / ".work").glob("recording-*.tar"))


def test_a_stopped_run_goes_on_where_it_was(job: IngestJob, tmp_path: Path) -> None:
    interrupted(job)
    before = {path: path.stat().st_mtime_ns for path in kept(job)}
    assert before
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        ingest(job, report=lambda line: told.append(line) or _stop_at_writing(line))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run(job)
    fresh = replace(job, out=str(tmp_path / "fresh"))
    run(fresh)
    assert shard(job) == shard(fresh)


def _stop_at_writing(line: str) -> None:
    if line.startswith("write"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("what", ["settings", "description", "samples"])
def test_what_changes_after_a_stop_is_made_anew(job: IngestJob, tmp_path: Path, what: str) -> None:
    interrupted(job)
    source = Path(job.source)
    if what == "settings":
        job = replace(job, settings=replace(job.settings, window_s=4.0, hop_s=4.0))
    elif what == "description":  # of the same length
        file = source / "recording.yaml"
        text = file.read_text().replace("acc_x: 1, acc_y: 2", "acc_x: 2, acc_y: 1")
        file.write_text(text)
    else:
        file = source / "person 0/walk 000/imu.npy"
        table = np.load(file)
        table[:, 1] += 0.5
        np.save(file, table)
    run(job)
    fresh = replace(job, out=str(tmp_path / "fresh"))
    run(fresh)
    assert shard(job) == shard(fresh)


def test_another_size_of_shards_after_a_stop_reads_nothing_again(job: IngestJob) -> None:
    interrupted(job)
    before = {path: path.stat().st_mtime_ns for path in kept(job)}
    other = replace(job, settings=replace(job.settings, shard_bytes=20_000))
    with pytest.raises(KeyboardInterrupt):
        ingest(other, report=_stop_at_writing)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_shards_that_are_lost_after_a_stop_are_written_again(job: IngestJob) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest(job, report=_stop_at_writing)
    for path in Path(job.out).glob("*.tar"):
        path.unlink()
    run(job)
    assert verify(job.out).ok


def shard(job: IngestJob) -> bytes:
    return (Path(job.out) / "shard-000000.tar").read_bytes()


def test_overwriting_leaves_no_shard_of_before(job: IngestJob) -> None:
    run(replace(job, settings=replace(job.settings, shard_bytes=20_000)))
    run(job, overwrite=True)
    assert [p.name for p in Path(job.out).glob("*.tar")] == ["shard-000000.tar"]
    assert verify(job.out).ok


def test_overwriting_from_a_wrong_source_leaves_the_output_as_it_was(
    job: IngestJob, tmp_path: Path
) -> None:
    run(job)
    before = read_index(job.out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no recording\.yaml"):
        run(replace(job, source=str(tmp_path / "empty")), overwrite=True)
    assert read_index(job.out) == before
    assert verify(job.out).ok


def test_windows_that_two_recordings_share_are_refused() -> None:
    made = [
        RecordingResult(RecordingReport("walks", name, windows=1), uids=(7,))
        for name in ("one", "other")
    ]
    with pytest.raises(ValueError, match="window 7 was made of one and of other"):
        check_uids(made)


def orders(job: IngestJob) -> list[RecordingRequest]:
    source = job.create_reader().source
    return [
        RecordingRequest(f"order-{number}", ref, {path: source.version(path) for path in ref.files})
        for number, ref in enumerate(job.create_reader().recordings())
    ]


def test_a_source_that_disappears_ends_the_run_and_keeps_what_is_done(
    job: IngestJob, tmp_path: Path
) -> None:
    source, away = Path(job.source), tmp_path / "away"

    def tell(line: str) -> None:
        if line.startswith("ingest  1 "):
            source.rename(away)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileNotFoundError, match="--src"):
        patch.setattr(progress, "REPORT_S", 0.0)
        ingest(job, report=tell)
    assert not (Path(job.out) / "index.json").exists()
    assert len(kept(job)) == 1
    away.rename(source)
    run(job)
    assert verify(job.out).ok


def test_storage_that_is_not_mounted_is_no_broken_recording(job: IngestJob, tmp_path: Path) -> None:
    """Its mount point is still there, and empty."""
    first, second, *_ = orders(job)
    maker = RecordingMaker(job, str(tmp_path))
    assert maker(first)["report"]["windows"] > 0  # type: ignore[index]
    Path(job.source).rename(tmp_path / "away")
    Path(job.source).mkdir()
    with pytest.raises(FileNotFoundError, match=r"imu\.npy|recording\.yaml"):
        maker(second)


def test_a_file_that_changes_while_it_is_read_ends_the_run(job: IngestJob, tmp_path: Path) -> None:
    first, *_ = orders(job)
    (Path(job.source) / "person 0/walk 000/imu.npy").write_bytes(b"half")
    with pytest.raises(OSError, match="not there any more as it was listed"):
        RecordingMaker(job, str(tmp_path))(first)


def test_a_bug_in_one_recording_is_logged_with_its_traceback(
    job: IngestJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_ = orders(job)

    def no_reader(_ref: object) -> object:
        raise TypeError("a bug of ours")

    maker = RecordingMaker(job, str(tmp_path))
    maker._reader.open = no_reader  # type: ignore[assignment, method-assign]
    failed = maker(first)
    assert failed == Failed("TypeError: a bug of ours")
    assert caplog.records
    assert caplog.records[0].exc_info is not None


def test_a_name_that_is_no_utf8_is_a_failed_recording(job: IngestJob) -> None:
    folder = Path(job.source) / "person 9" / os.fsdecode(b"J\xf6rg")
    folder.mkdir(parents=True)
    shutil.copy(Path(job.source) / "person 0/walk 000/imu.npy", folder / "imu.npy")
    run(job)
    report = json.loads((Path(job.out) / "ingest.json").read_text())["recordings"]
    (failed,) = (r for r in report if r["error"])
    assert failed["error"] == "its name is no UTF-8; rename it"
    assert len([r for r in report if r["windows"]]) == 4


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
    before = {path: path.stat().st_mtime_ns for path in kept(job)}
    assert len(before) == 3, "kept, so that only the mended one is read"
    with pytest.raises(KeyboardInterrupt):
        ingest(job, overwrite=True, report=_stop_at_writing)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    run(job, overwrite=True)
    assert not kept(job)
    whole_again = replace(job, out=str(tmp_path / "fresh"))
    run(whole_again)
    assert shard(job) == shard(whole_again)


def test_where_no_window_is_made_the_report_says_why(job: IngestJob) -> None:
    for file in Path(job.source).glob("*/*/imu.npy"):
        table = np.load(file)
        table[:, 1:4] /= 9.8
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
    with bound_by_permissions(), pytest.raises(OSError, match=f"cannot write {out}"):
        ingest(job, report=told.append)
    assert told == []
