"""Files that belong to no recording: named if they may be misnamed, not if the set has them."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from primus_scale.cli import main
from shards.card.attention import attention
from shards.card.page import write_card
from shards.card.stats import collect_statistics
from shards.readers import READERS, create_reader
from shards.readers.unread import describe_unread
from tests import ego4d_factory, egoexo4d_factory
from tests.folder_factory import build, describe, described, motion, text_table
from tests.moving_sources import MOVING
from tests.reader_sources import SOURCES
from tests.recordings import recording_path

PEOPLE_KEEP = ("README.txt", "LICENSE", "doc.pdf", ".DS_Store", "__MACOSX/x/._subject101.dat")
NYMERIA = "20230607_s0_james_johnson_act1_e72nhq"
TAKE = f"takes/{egoexo4d_factory.TAKE}"
UCI = "UCI HAR Dataset"
HAPT = "HAPT Data Set"
OTHER = ego4d_factory.OTHER

# What each data set has next to what is read of it, after its documentation.
BESIDE: dict[str, tuple[str, ...]] = {
    "egoexo4d": (
        *("captures.json", "participants.json", "physical_setting.json", "visual_objects.json"),
        *("annotations/splits.json", "annotations/expert_commentary_train.json"),
        *("annotations/keystep_train.json", "annotations/ego_pose/train/hand/annotation/a.json"),
        *("annotations/proficiency_demonstrator_val.json", "annotations/relations_train.json"),
        *("captures/other/timesync.csv", "captures/other/post_surveys.csv"),
        *(f"{TAKE}/aria02.vrs", f"{TAKE}/trajectory/closed_loop_trajectory.csv"),
        *(f"{TAKE}/eye_gaze/general_eye_gaze.csv", f"{TAKE}/trajectory/gopro_calibs.csv"),
        *(f"{TAKE}/frame_aligned_videos/cam01.mp4", f"{TAKE}/frame_aligned_videos/gp02.mp4"),
        f"{TAKE}/frame_aligned_videos/aria02_1201-1.mp4",
        f"{TAKE}/frame_aligned_videos/downscaled/448/cam01.mp4",
        f"{TAKE}/frame_aligned_videos/downscaled/448/aria02_211-1.mp4",
        "features/omnivore_video/a.pt",
    ),
    "ego4d": (
        *("v2/manifest.csv", "v2/annotations/manifest.ver", f"v2/full_scale/{OTHER}.mp4"),
        *("v2/annotations/moments_train.json", "v2/annotations/fho_lta_taxonomy.json"),
        *("v2/annotations/all_narrations_redacted.json", "v2/annotations/nlq_val.json"),
        *("v2/annotations/narration_noun_taxonomy.csv", f"v2/clips/{OTHER}.mp4"),
        *("v2/annotations/goalstep_train.json", f"v2/slowfast8x8_r101_k400/{OTHER}.pt"),
    ),
    "aria": ("walk.vrs.json", "mps_walk_vrs/slam/closed_loop_trajectory.csv"),
    "nymeria": (
        *(f"{NYMERIA}/metadata.json", f"{NYMERIA}/LICENSE", f"{NYMERIA}/body/xdata.npz"),
        *(f"{NYMERIA}/body/xdata.healthcheck", f"{NYMERIA}/recording_head/data/et.vrs"),
        f"{NYMERIA}/recording_head/mps/slam/semidense_points.csv.gz",
        f"{NYMERIA}/recording_lwrist/data/data.vrs",
        f"{NYMERIA}/recording_observer/data/motion.vrs",
        "Nymeria_download_urls.json",
    ),
    "gopro": ("GX010001.LRV", "GX010001.THM", "GOPR0002.JPG", "MISC/version.txt", "a/GX01.WAV"),
    "folder": ("windows_of_the_house.md", "plot.py"),
    "pamap2": (
        "PAMAP2_Dataset/subjectInformation.pdf",
        "PAMAP2_Dataset/readme.pdf",
        "PAMAP2_Dataset.zip",
    ),
    "mhealth": ("MHEALTHDATASET/README.txt",),
    "realworld": (
        *(f"proband1/data/{kind}_walking_csv.zip" for kind in ("gps", "lig", "mag", "mic")),
        *("proband1/data/acc_walking_sqlite.zip", "proband1/images/chest.jpg"),
    ),
    "wisdm": (
        *("activity_key.txt", "WISDM-dataset-description.pdf"),
        "arff_files/phone/accel/data_1600_accel_phone.arff",
    ),
    "uci_har": (
        *(f"{UCI}/activity_labels.txt", f"{UCI}/features.txt", f"{UCI}/features_info.txt"),
        *(f"{UCI}/train/X_train.txt", f"{UCI}/test/X_test.txt"),
        *(f"{UCI}/train/Inertial Signals/body_acc_{axis}_train.txt" for axis in "xyz"),
    ),
    "hapt": (
        *(f"{HAPT}/activity_labels.txt", f"{HAPT}/features.txt", f"{HAPT}/features_info.txt"),
        *(f"{HAPT}/Train/X_train.txt", f"{HAPT}/Train/y_train.txt"),
        *(f"{HAPT}/Test/subject_id_test.txt", f"{HAPT}.zip"),
    ),
    "hhar": ("Still exp/Phones.csv", "Still exp.zip"),
    "motionsense": (
        *("data_subjects_info.csv", "A_DeviceMotion_data.zip", "codes/gender/a.npy"),
        "B_Accelerometer_data/B_Accelerometer_data/wlk_7/sub_1.csv",
        "C_Gyroscope_data.zip",
    ),
    "opportunity": (
        *("OpportunityUCIDataset/dataset/column_names.txt", "OpportunityUCIDataset/doc/body.jpg"),
        "OpportunityUCIDataset/dataset/label_legend.txt",
        "OpportunityUCIDataset/scripts/benchmark.m",
    ),
    "ninapro": (),
    "ppg_dalia": (
        *("S1_activity.csv", "S1_quest.csv", "S1_E4.zip", "S1_RespiBAN.h5"),
        *("S2_E4_Data.zip", "S2_E4_Data/ACC.csv", "S2_respiban.txt", "S2_readme.txt"),
    ),
}

# Files of data under names that the reader does not know, as people give them by mistake.
MISNAMED: dict[str, tuple[str, ...]] = {
    "egoexo4d": (
        f"{TAKE}/aira02.vrs",
        "takes/unc_music_99/aria01.vrs",
        f"captures/{egoexo4d_factory.CAPTURE}/timesnyc.csv",
        "annotations/atomic_descriptions_tran.json",
        f"{TAKE}/frame_aligned_videos/aria02-214-1.mp4",
    ),
    "ego4d": (
        f"v2/imu/{OTHER}.CSV",
        f"v2/imu/{OTHER[1:]}.csv",
        "v2/annotations/narrations.json",
        f"v2/video_540ss/{OTHER[1:]}.mp4",
    ),
    "aria": ("run.VRS", "wlak.csv"),
    "nymeria": (
        f"{NYMERIA}/recording_head/data/moton.vrs",
        f"{NYMERIA}/narration/atomic_actions.csv",
        f"{NYMERIA}/recording_lwirst/data/motion.vrs",
    ),
    "gopro": ("GX010002.mov", "GX010003.mp4.part", "words.srt"),
    "folder": ("Wrist2.csv", "ben/wrist.csv"),
    "pamap2": (
        "PAMAP2_Dataset/Protocol/subjct107.dat",
        "PAMAP2_Dataset/Protocol/subject108.txt",
        "PAMAP2_Dataset/Optional/subject-109.dat",
    ),
    "mhealth": ("MHEALTHDATASET/mhealth_subject3.log", "MHEALTHDATASET/mHealth_subject4.csv"),
    "realworld": (
        "proband2/data/acc_running.zip",
        "proband2/data/accel_running_csv.zip",
        "prob3/data/acc_running_csv.zip",
        "proband4/data/acc_running_csv/acc_running_chest.csv",
    ),
    "wisdm": (
        "raw/phone/accel/data_1601_acel_phone.txt",
        "raw/phone/accel/data_1602_accel_phone.arff",
        "raw/watch/gyro/data_1603_gyro.txt",
    ),
    "uci_har": (
        f"{UCI}/train/subjects_train.txt",
        f"{UCI}/train/Inertial Signals/total_acc_x_tran.txt",
    ),
    "hapt": (
        f"{HAPT}/RawData/acc_exp61_usr01.txt",
        f"{HAPT}/RawData/gyro_exp62_user01.txt",
        f"{HAPT}/RawData/acc_exp63_user01.csv",
        f"{HAPT}/RawData/label.txt",
    ),
    "hhar": ("Phone_accelerometer.csv", "Watch_gyroscope.txt"),
    "motionsense": (
        "A_DeviceMotion_data/A_DeviceMotion_data/wlk7/sub_2.csv",
        "A_DeviceMotion_data/A_DeviceMotion_data/wlk_7/sub3.csv",
        "A_DeviceMotion_data/A_DeviceMotion_data/wlk_7/sub_4.txt",
    ),
    "opportunity": (
        "OpportunityUCIDataset/dataset/S2-ADL6.dat",
        "OpportunityUCIDataset/dataset/S3_Drill.dat",
    ),
    "ninapro": ("S4_E1.mat", "s5/S5_E1_A1.MAT", "S6.zip"),
    "ppg_dalia": ("S3.pickle", "S4/Subject4.pkl", "S5.zip"),
}


def touch(root: Path, paths: tuple[str, ...]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def unread(name: str, root: Path) -> list[str]:
    reader = create_reader(name, str(root))
    return reader.unread(reader.recordings())


@pytest.mark.parametrize("name", READERS)
def test_what_a_data_set_has_beside_its_data_is_no_fault(name: str, tmp_path: Path) -> None:
    SOURCES[name](tmp_path)
    touch(tmp_path, BESIDE[name])
    touch(tmp_path, PEOPLE_KEEP)
    assert unread(name, tmp_path) == []


@pytest.mark.parametrize(("name", "path"), [(n, p) for n in READERS for p in MISNAMED[n]])
def test_a_misnamed_file_is_named(name: str, path: str, tmp_path: Path) -> None:
    SOURCES[name](tmp_path)
    touch(tmp_path, BESIDE[name])
    touch(tmp_path, (path,))
    lines = unread(name, tmp_path)
    folder, _, file = path.rpartition("/")
    if path.startswith("takes/unc_music_99"):
        assert lines == ["takes/unc_music_99: no take of takes.json is in it"]
    else:
        told = "which no recording.yaml names" if name == "folder" else "not part of any recording"
        assert lines == [f"{folder or '.'}: {file}, {told}"]


def test_files_of_a_dropped_take_are_no_fault(tmp_path: Path) -> None:
    SOURCES["egoexo4d"](tmp_path)
    egoexo4d_factory.write_takes(
        tmp_path,
        egoexo4d_factory.take_entry(),
        egoexo4d_factory.take_entry("dropped_1", is_dropped=True),
    )
    touch(tmp_path, ("takes/dropped_1/aria01.vrs", "takes/dropped_1/aria01_noimagestreams.vrs"))
    assert unread("egoexo4d", tmp_path) == []


def test_files_are_counted_by_folder_and_archives_are_known_where_they_were_unpacked() -> None:
    files = [*(f"a/{n}.dat" for n in range(7)), "a/used.dat", "s1.zip", "s2.zip", "b/X.TXT"]
    assert list(describe_unread(files, {"a/used.dat", "s1/x.mat"}, ("x.txt",), "alas")) == [
        ".: s2.zip, alas",
        "a: 0.dat, 1.dat, 2.dat and 4 more, alas",
    ]


def test_the_summary_and_the_card_name_what_was_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "rides", tmp_path / "out"
    source.mkdir()
    shutil.copy(recording_path("gopro_max_hero.mp4"), source)
    (source / "ben.mov").write_bytes(b"<ben>")
    (source / "anna.mp4").symlink_to("nowhere")
    os.mkfifo(source / "carl.mp4")
    command = ["shards", "build", "gopro", "--src", str(source), "--out", str(out)]
    assert main([*command, "--workers", "1", "--frames", "0"]) == 0
    told = [
        "anna.mp4 is a link to nothing, or cannot be read (No such file or directory)",
        "carl.mp4 is a pipe, a socket or a device, no regular file",
        ".: ben.mov, not part of any recording",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "not read" in line] == [f"  not read {x}" for x in told]
    assert json.loads((out / "ingest.json").read_text())["unread"] == told
    assert any("in 3 places of the source was not read" in line for line in card(out))
    page = (out / "card.html").read_text(encoding="utf-8")
    assert "What was not read" in page and "ben.mov, not part of any recording" in page


def test_a_misnamed_file_within_a_zip_is_named_by_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the shards are written below the source, twice: they are no data of it."""
    source = tmp_path / "src"
    MOVING["realworld"](source)
    path = source / "proband1/data/gyr_walking_csv.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readMe.txt", "SensorManager")
        archive.writestr("Gyroscope_walking_wasit.csv", "id,attr_time,attr_x,attr_y,attr_z\n")
    command = ["shards", "build", "realworld", "--src", str(source), "--out", str(source / "made")]
    for again in ([], ["--overwrite"]):
        assert main([*command, "--workers", "1", *again]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "not read" in line]
        assert lines == [
            "  not read proband1/data/gyr_walking_csv.zip: Gyroscope_walking_wasit.csv, not part "
            "of any recording"
        ]
        assert attention(collect_statistics([str(source / "made")], report=lambda _line: None)[0])


def card(out: Path) -> list[str]:
    """Sentences of the card that deserve a second look."""
    figures: dict[str, Any] = write_card([str(out)], report=lambda _line: None)
    return attention(figures)


def test_a_card_is_calm_where_all_was_read(tmp_path: Path) -> None:
    source, out = tmp_path / "src", tmp_path / "out"
    time_s, values = motion(20)
    describe(source, described(time={"column": "t", "unit": "s"}))
    (source / "w.csv").write_text(text_table([f"{t:.2f}" for t in time_s], values))
    assert build(source, out) == 0
    assert not any("not read" in line for line in card(out))
    assert "What was not read" not in (out / "card.html").read_text(encoding="utf-8")
