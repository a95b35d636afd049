import io
import pickle
import struct
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import fsspec
import numpy as np
import pytest

from shards.files.source import Source
from shards.files.video import Video
from tests.video_factory import (
    HEIGHT,
    WIDTH,
    numbered_picture,
    numbered_pictures,
    read_number,
    write_video,
)


def video_of(path: Path, **options: Any) -> Video:
    return Video(partial(path.open, "rb"), str(path), **options)


def numbers_of(video: Video, numbers: Any, **options: Any) -> list[int]:
    return [read_number(picture) for picture in video.pictures(numbers, **options)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_the_asked_frames_come(tmp_path: Path, codec: str, b_frames: int, container: str) -> None:
    path = tmp_path / "ride.video"
    write_video(path, numbered_pictures(60), codec=codec, b_frames=b_frames, container=container)
    video = video_of(path)
    times_s = video.times_s()
    assert times_s.shape == (60,) and times_s.dtype == np.float64
    np.testing.assert_allclose(np.diff(times_s), 1 / 30, atol=1.1e-3)  # Matroska counts ms
    for numbers in (range(60), [59], [0, 1, 11, 12, 13, 40], [5, 5, 30, 59], []):
        assert numbers_of(video, numbers) == list(numbers)


def test_a_sought_frame_equals_one_decoded_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (40, HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_video(path, noise, b_frames=3, key_every=10)
    video = video_of(path)
    whole = list(video.pictures(range(40)))
    for number in (39, 20, 19, 10, 9, 1, 0):
        (picture,) = video.pictures([number])
        np.testing.assert_array_equal(picture, whole[number])
    assert picture.dtype == np.uint8 and picture.shape == (HEIGHT, WIDTH, 3)


def test_times_are_those_of_the_container(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    spacings_s = np.random.default_rng(1).uniform(0.01, 0.5, 50)
    uneven_s = 0.7 + np.cumsum(spacings_s)  # the first frame is late: an empty edit
    write_video(path, numbered_pictures(50), times_s=list(uneven_s), b_frames=2)
    times_s = video_of(path).times_s()
    np.testing.assert_allclose(np.diff(times_s), np.diff(uneven_s), atol=2e-4)
    np.testing.assert_allclose(times_s, uneven_s, atol=1.1e-3)  # MP4's edits count ms
    np.testing.assert_array_equal(video_of(path, start_s=-5).times_s(), times_s - 5)
    assert numbers_of(video_of(path), [3, 17, 49]) == [3, 17, 49]


def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    times_s = (np.arange(50) - 20) / 30  # those below 0 are cut, in the middle of a key interval
    write_video(path, numbered_pictures(50), times_s=list(times_s), b_frames=2)
    video = video_of(path)
    np.testing.assert_allclose(video.times_s(), np.arange(30) / 30, atol=1e-4)
    assert numbers_of(video, [0, 1, 10, 29]) == [20, 21, 30, 49]


def test_given_times_name_the_usable_frames(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    write_video(path, numbered_pictures(20))
    times_s = 100 + np.arange(15) * 0.1  # none for the last five frames
    times_s[[0, 4]] = np.nan
    video = video_of(path, times_s=times_s)
    np.testing.assert_array_equal(video.times_s(), np.delete(times_s, [0, 4]))
    assert numbers_of(video, range(13)) == [1, 2, 3, *range(5, 15)]
    with pytest.raises(IndexError):
        next(video.pictures([13]))
    assert len(video_of(path, times_s=np.arange(30.0)).times_s()) == 20
    with pytest.raises(ValueError, match=r"ride\.mp4: the times given for its frames do not asc"):
        video_of(path, times_s=np.array([0.0, 0.2, 0.1])).times_s()


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_pictures_are_upright(tmp_path: Path, rotation: int, hflip: bool) -> None:
    """What the camera stored is undone by the file's matrix, computed here by numpy alone."""
    path = tmp_path / "turned.mp4"
    upright = list(numbered_pictures(14))
    mirrored = [picture[:, ::-1] if hflip else picture for picture in upright]
    stored = [np.rot90(picture, -rotation // 90) for picture in mirrored]
    write_video(path, stored, rotation=rotation, hflip=hflip)
    assert numbers_of(video_of(path), [0, 5, 13]) == [0, 5, 13]
    assert numbers_of(video_of(path), [11], short_side=HEIGHT // 2) == [11]


def test_quarter_turns_go_anticlockwise(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    stored = [np.rot90(picture, -1) for picture in numbered_pictures(8)]
    write_video(path, stored)
    assert numbers_of(video_of(path, quarter_turns=1), [2, 7]) == [2, 7]
    # Besides the rotation of the file.
    write_video(path, stored, rotation=180)
    assert numbers_of(video_of(path, quarter_turns=3), [2, 7]) == [2, 7]


def test_oblique_rotation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "oblique.mp4"
    write_video(path, numbered_pictures(3), rotation=30)
    with pytest.raises(ValueError, match=r"oblique\.mp4: its pictures are turned by no multiple"):
        list(video_of(path).pictures([0]))


def test_pictures_are_scaled_by_means(tmp_path: Path) -> None:
    """A fine pattern becomes its mean, a ramp stays a ramp, colours stay what they are."""
    path = tmp_path / "patterns.mp4"
    chequered = np.indices((128, 256)).sum(axis=0) % 2 * 255
    ramp = np.broadcast_to(np.arange(256), (128, 256))
    grey = [np.repeat(one[..., None], 3, axis=2).astype(np.uint8) for one in (chequered, ramp)]
    colours = np.zeros((128, 256, 3), np.uint8)
    patches = np.array([[200, 40, 60], [30, 160, 70], [50, 60, 190], [128, 128, 128]])
    for place, colour in enumerate(patches):
        colours[:, place * 64 : (place + 1) * 64] = colour
    write_video(path, [*grey, colours], key_every=1)
    chequered, ramp, colours = video_of(path).pictures([0, 1, 2], short_side=32)
    assert chequered.shape == ramp.shape == (32, 64, 3)
    assert np.abs(chequered[4:-4, 4:-4].astype(int) - 127.5).max() < 8
    expected = np.arange(256).reshape(64, 4).mean(axis=1)
    assert np.abs(ramp[:, 2:-2] - expected[2:-2, None]).max() < 6
    assert np.abs(colours[16, 8::16].astype(int) - patches).max() < 8
    (portrait,) = video_of(path, quarter_turns=1).pictures([0], short_side=32)
    assert portrait.shape == (64, 32, 3)


class CountingFile(io.FileIO):
    """A file that tells how much was read of it."""

    bytes_read = 0

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.bytes_read += count or 0
        return count

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_only_what_is_needed_is_read_and_no_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    write_video(path, noise, key_every=10)
    opened: list[CountingFile] = []

    def opener() -> BinaryIO:
        opened.append(CountingFile(path, "rb"))
        return opened[-1]  # type: ignore[return-value]

    video = Video(opener, str(path))
    assert len(video.times_s()) == 60 and len(opened) == 1
    assert len(list(video.pictures([2, 52]))) == 2
    assert opened[-1].bytes_read < path.stat().st_size * 0.5
    next(pictures := video.pictures([0, 1]))
    pictures.close()
    assert len(opened) == 3 and all(file.closed for file in opened)


def test_remote_files_and_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    write_video(path, numbered_pictures(30), b_frames=2)
    fsspec.filesystem("memory").pipe("/rides/träume 1.mp4", path.read_bytes())
    source = Source("memory://rides")
    video = Video(partial(source.open, "träume 1.mp4"), source.locate("träume 1.mp4"))
    assert len(video.times_s()) == 30
    sent = pickle.loads(pickle.dumps(video))  # noqa: S301 - what the line itself pickled
    assert numbers_of(sent, [3, 29]) == [3, 29]


def write_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        file.mux(stream.encode(silence))
        file.mux(stream.encode(None))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / "ride.mp4"
    fast = {"movflags": "faststart"}
    write_video(whole, numbered_pictures(30), b_frames=2, container_options=fast)
    data = whole.read_bytes()
    middle = (data.index(b"mdat") + len(data)) // 2
    write_sound(tmp_path / "sound.mp4")
    write_video(tmp_path / "raw.h264", numbered_pictures(5), container="h264")
    for content, message in (
        (b"", r"is empty; download it again"),
        (data[:24], r"is truncated: its index \(moov\) is missing or damaged"),
        (data[: data.index(b"mdat") // 2], r"is truncated: its index \(moov\) is missing"),
        (data[:middle], r"is truncated or damaged: \d\d of its frames are not whole; download"),
        (data[:-3], r"is truncated or damaged: 1 of its frames are not whole; download"),
        (b"time,x,y\n0,1,2\n" * 500, r"is no video that FFmpeg reads \(.*\); download it again"),
        ((tmp_path / "sound.mp4").read_bytes(), r"has no video stream that FFmpeg decodes; take"),
        ((tmp_path / "raw.h264").read_bytes(), r": 5 of its frames have no time; write it anew"),
    ):
        path.write_bytes(content)
        video = video_of(path)
        for use in (video.times_s, lambda video=video: next(video.pictures([0]))):
            with pytest.raises(ValueError, match=rf"ride\.mp4 ?{message}"):
                use()
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
        video_of(tmp_path / "missing.mp4").times_s()


def test_errors_of_the_storage_are_not_the_files(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError("the storage went away")

    with pytest.raises(ConnectionResetError, match="the storage went away"):
        Video(Broken, "s3://bucket/ride.mp4").times_s()


def test_no_other_frame_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "ride.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (36, 64, 96, 3), dtype=np.uint8)
    write_video(path, noise, key_every=12)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        hurt = packets[15]
        start, stop = hurt.pos, hurt.pos + hurt.size
    data = bytearray(path.read_bytes())
    whole = list(video_of(path).pictures(range(36)))
    data[start:stop] = bytes(stop - start)  # as of a block that was never written
    path.write_bytes(data)
    video = video_of(path)
    assert len(video.times_s()) == 36
    good = [*range(15), *range(24, 36)]
    for number, picture in zip(good, video.pictures(good), strict=True):
        np.testing.assert_array_equal(picture, whole[number])
    for number in (15, 16, 23):  # the frame itself, and those that are made from it
        message = rf"ride\.mp4: the frame at {number / 30:.3f} s (is damaged|cannot be decoded)"
        with pytest.raises(ValueError, match=message):
            list(video.pictures([number]))


def test_times_that_do_not_tell_frames_apart_are_refused(tmp_path: Path) -> None:
    # AVI holds no presentation times: those of reordered frames are guesses.
    path = tmp_path / "old.avi"
    write_video(path, numbered_pictures(60), b_frames=2, container="avi")
    with pytest.raises(ValueError, match=r"old\.avi: the frame at .* does not come out"):
        assert numbers_of(video_of(path), range(60)) == list(range(60))


def test_numbers_are_read_back() -> None:
    assert [read_number(numbered_picture(number)) for number in range(256)] == list(range(256))
    for wrong in (np.rot90(numbered_picture(3), 2), np.rot90(numbered_picture(3))):
        with pytest.raises(AssertionError):
            read_number(wrong)


@pytest.mark.parametrize(
    ("taken", "real"),
    [("240", False), ("2.0", False), ("30.1", True), ("29", True), ("0", True), ("odd", True)],
)
def test_videos_that_say_they_are_not_in_real_time(taken: str, real: bool, tmp_path: Path) -> None:
    """Android stores how many pictures a second it took of slow motion and time lapse."""
    path = tmp_path / "video.mp4"
    write_video(
        path,
        numbered_pictures(30),
        metadata={"com.android.capture.fps": taken},
        container_options={"movflags": "use_metadata_tags"},
    )
    video = Video(lambda: path.open("rb"), "video.mp4")
    if real:
        assert len(video.times_s()) == 30
        return
    told = (
        rf"video\.mp4: the video is not in real time: {float(taken):g} pictures a second were taken"
    )
    with pytest.raises(ValueError, match=told):
        video.times_s()
    given = Video(lambda: path.open("rb"), "video.mp4", times_s=np.arange(30) / 240)
    assert len(given.times_s()) == 30, "whose times came from elsewhere"


def with_sony_text(path: Path, attributes: str) -> None:
    """Add the piece of XML that Sony's cameras write behind ``moov`` (ISO/IEC 14496-12, 8.11)."""
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<NonRealTimeMeta xmlns="urn:schemas-professionalDisc:nonRealTimeMeta:ver.2.00" lastUpdate="x">
  <Duration value="30"/>
  <VideoFormat>
    <VideoFrame videoCodec="AVC_1920_1080_HP@L51" {attributes}/>
  </VideoFormat>
</NonRealTimeMeta>"""
    handler = struct.pack(">IIII4s12sB", 33, 0, 0, 0, b"nrtm", b"", 0)
    handler = handler[:4] + b"hdlr" + handler[8:]
    xml = struct.pack(">I4sI", 12 + len(text), b"xml ", 0) + text.encode()
    with path.open("ab") as file:
        file.write(struct.pack(">I4sI", 12 + len(handler) + len(xml), b"meta", 0) + handler + xml)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (
            'captureFps="119.88p" formatFps="29.97p"',
            "119.88 and 29.97",
        ),
        ('captureFps="59.94p" formatFps="29.97p"', "59.94 and 29.97"),
        ('captureFps="15p" formatFps="29.97p"', "15 and 29.97"),
        ('captureFps="59.94p"', "59.94 and 30"),
        ('captureFps="29.97p" formatFps="29.97p"', ""),
        ('captureFps="59.94i" formatFps="59.94i"', ""),  # fields: 29.97 pictures
        ('captureFps="59.94i"', ""),
        ('formatFps="29.97p"', ""),
        ('captureFps="p" formatFps="0p"', ""),
    ],
)
def test_sonys_videos_say_how_many_pictures_were_taken(
    attributes: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "C0001.MP4"
    write_video(path, numbered_pictures(30))
    with_sony_text(path, attributes)
    video = Video(lambda: path.open("rb"), "C0001.MP4")
    if told:
        told = told.replace("and", "pictures a second were taken and")
        with pytest.raises(ValueError, match=rf"C0001\.MP4: the video is not in real time: {told}"):
            video.times_s()
    else:
        assert len(video.times_s()) == 30
