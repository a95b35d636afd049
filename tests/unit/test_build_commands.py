import json
from pathlib import Path

import pytest

from primus_scale.cli import build_parser, main
from primus_scale.data.index import read_index
from shards.ingest.summary import summary
from shards.readers import READERS
from shards.report import IngestReport, LagReport, RecordingReport
from tests.reading import windows_of
from tests.recording_folder import write_recordings


def build(source: Path, out: Path, *flags: str, reader: str = "folder") -> int:
    command = ("shards", "build", reader, "--src", str(source), "--out", str(out))
    return main([*command, "--workers", "1", *flags])


def settings(out: Path) -> dict:
    return json.loads((out / "ingest.json").read_text())["settings"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_recordings(tmp_path / "source", range(3), seconds=20.0)
    return tmp_path / "source"


def test_settings_are_the_readers_unless_the_user_says_otherwise(
    source: Path, tmp_path: Path
) -> None:
    assert build(source, tmp_path / "default") == 0
    assert settings(tmp_path / "default")["hop_s"] == settings(tmp_path / "default")["window_s"]
    assert read_index(str(tmp_path / "default")).window_s == 5.0

    flags = ("--window-s", "2", "--rate-hz", "25", "--max-overlap", "0.25", "--gap-s", "0.1")
    assert build(source, tmp_path / "other", *flags, "--acc-range", "7", "13", "--frames", "0") == 0
    said = settings(tmp_path / "other")
    assert (said["window_s"], said["hop_s"], said["rate_hz"]) == (2.0, 2.0, 25.0)
    assert (said["max_overlap"], said["gap_s"], said["acc_range"]) == (0.25, 0.1, [7.0, 13.0])
    index = read_index(str(tmp_path / "other"))
    assert (index.rate_hz, index.window_samples) == (25.0, 50)


def test_sessions_are_the_persons_where_asked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    found = []
    for flags in ((), ("--session-by", "person"), ("--session-by", "recording")):
        assert build(source, out, *flags, "--overwrite") == 0
        found.append({(one.meta.recording, one.meta.session) for one in windows_of(out)})
        assert settings(out)["session_by"] == (flags[1] if flags else "auto")
    assert found[0] == found[2] == {(name, name) for name, _ in found[0]}
    assert {session for _, session in found[1]} == {one.meta.person for one in windows_of(out)}
    with pytest.raises(SystemExit):
        build(source, out, "--session-by", "day")
    assert "'day'" in capsys.readouterr().err


def test_require_is_the_data_sets_unless_the_user_names_others() -> None:
    parser = build_parser()
    command = ["shards", "build", "ego4d", "--src", "a", "--out", "b"]
    assert parser.parse_args(command).require is None
    assert parser.parse_args([*command, "--require"]).require == []
    assert parser.parse_args([*command, "--require", "video", "text"]).require == ["video", "text"]


def test_every_reader_has_a_command() -> None:
    for name in READERS:
        assert (
            build_parser().parse_args(["shards", "build", name, "--src", "a", "--out", "b"]).data
            == name
        )


def test_an_output_that_exists_is_refused_and_replaced_if_asked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert build(source, out) == 0
    before = read_index(str(out))
    capsys.readouterr()
    assert build(source, out, "--window-s", "2") == 1
    assert "already holds shards" in capsys.readouterr().err
    assert read_index(str(out)) == before
    assert build(source, out, "--window-s", "2", "--overwrite") == 0
    assert read_index(str(out)).window_s == 2.0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--option", "colour"), "write it as KEY=VALUE"),
        (("--option", "colour=red"), "reader folder has no option colour"),
        (("--max-overlap", "1.5"), "max_overlap must lie in 0..1"),
        (("--window-s", "0"), "window_s must be positive"),
        (("--frames", "-1"), "frames must not be negative"),
        (("--window-s", "60"), "it has 20.0 s, too little for one"),
        (("--acc-range", "20", "30"), "windows refused: implausible gravity"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_1(
    source: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert build(source, tmp_path / "out", *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("reader", READERS)
def test_a_source_without_recordings_of_the_kind_is_refused(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/notes.txt").write_text("nothing to see")
    assert build(tmp_path / "source", tmp_path / "out", reader=reader) == 1
    assert str(tmp_path / "source") in capsys.readouterr().err
    assert build(tmp_path / "nowhere", tmp_path / "out", reader=reader) == 1
    assert "check --src" in capsys.readouterr().err


def test_the_summary_names_lags_and_failures_flagged_ones_first() -> None:
    def recording(name: str, lag_s: float, confidence: float, flagged: bool) -> RecordingReport:
        lag = LagReport("imu", lag_s, 0.9, confidence, 60.0, flagged)
        return RecordingReport("rides", name, windows=2, lag=lag)

    found = IngestReport(
        "gopro",
        "rides",
        {},
        (
            recording("good", 0.01, 0.99, False),
            recording("late", 0.7, 0.99, True),
            recording("still", -1.2, 0.1, False),
            RecordingReport("rides", "cut.mp4", error="cut.mp4 ends early; copy it again"),
        ),
    )
    lines = summary(found)
    assert lines[0] == "ingest  4 recordings: 6 windows, 0 refused, 1 recording failed"
    assert "late: picture +0.700 s behind imu" in lines[1] and "FLAGGED" in lines[1]
    assert "good: picture +0.010 s" in lines[2]
    assert "still: uncertain, at best picture -1.200 s" in lines[3]
    assert lines[4].endswith("cut.mp4: cut.mp4 ends early; copy it again")
