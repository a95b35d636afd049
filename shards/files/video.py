"""Pictures of a video, by number and by time, decoded only as needed.

video = Video(partial(source.open, "ride.mp4"), source.locate("ride.mp4"), start_s=12.5)
times_s = video.times_s()  # of all frames, on the recording's clock; nothing is decoded
for picture in video.pictures([0, 30, 60], short_side=256): ...

Reads every file that FFmpeg reads, through PyAV. A frame is identified by its presentation
time alone: neither the count of decoded frames nor a frame rate is reliable.
"""

from __future__ import annotations

import errno
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from av.stream import Discard
from av.video.reformatter import Interpolation

from primus_scale.storage.foreign import reason
from shards.files.capture_rate import CaptureRate, capture_rate

# Bicubic with a support that grows as pictures shrink, as teachers' own preprocessing scales;
# computed the same on every processor.
_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
_BEFORE_ALL = -(2**40)  # a presentation time
# Most that the rates of taking and showing may differ by: phones' rates vary, stated ones do not.
_RATE_FACTOR, _STATED_RATE_FACTOR = 1.5, 1.05
_FEWEST_PICTURES = 10  # for the rate of showing to be known
_AGAIN = "download it again, or take the video out"
_REWRITE = "write it anew as MP4, or take the video out"


class _Frames(NamedTuple):
    """Presentation times of a stream's frames, and of those among them to start decoding at.

    pts, keys: int64, ascending, in units of ``unit_s`` seconds. rate: of taking, as the camera
    states it (None: it does not).
    """

    pts: np.ndarray
    keys: np.ndarray
    unit_s: float
    rate: CaptureRate | None


class Video:
    """A `shards.recording.FrameSource` over a video file; holds no open file.

    opener: opens the file at each call, seekable. name: of the file, for messages. start_s: time on
    the recording's clock at which the presentation time is 0. quarter_turns: how often pictures are
    turned by 90 degrees anticlockwise, after the rotation that the file itself states.

    times_s: the frames' times on the recording's clock instead of start_s, in order of
    presentation. Frames whose time is NaN, or missing at the end, are not usable: they have no
    number, and numbers count the others. Times beyond the last frame are of no frame.
    """

    def __init__(
        self,
        opener: Callable[[], BinaryIO],
        name: str,
        *,
        start_s: float = 0.0,
        quarter_turns: int = 0,
        times_s: np.ndarray | None = None,
    ) -> None:
        self._opener = opener
        self._name = name
        self._start_s = start_s
        self._quarter_turns = quarter_turns
        self._given_s = None if times_s is None else np.asarray(times_s, np.float64)

    def times_s(self) -> np.ndarray:
        """Time of every usable frame on the recording's clock, float64 ``(frames,)``, ascending.

        The file is read once, without decoding. Raises ValueError, with the file and the next step,
        where it is empty, truncated, of another format or without video. Also where frames have no
        times of their own, or given times do not ascend.
        """
        times_s, _ = self._usable
        return times_s.copy()

    def pictures(
        self, numbers: Iterable[int], *, short_side: int | None = None
    ) -> Iterator[np.ndarray]:
        """The frames with these ascending numbers, upright, uint8 RGB ``(height, width, 3)``.

        short_side: scale so that the shorter side has that many pixels (None: as stored). Decoding
        restarts at a key frame where one lies between a frame and the next that is wanted.
        ValueError naming file and time where a frame is damaged; it is never replaced by another.
        """
        _, pts_of = self._usable
        with self._opened() as (container, stream, _):
            decoder = _Decoder(container, stream, self._frames.keys)
            for number in numbers:
                assert number >= 0, "frames are numbered from 0"
                pts = int(pts_of[number])
                where = f"{self._name}: the frame at {pts * self._frames.unit_s:.3f} s"
                try:
                    frame = decoder.frame(pts)
                except Exception as error:
                    fault = f"cannot be decoded ({damage(error)})"
                    raise ValueError(f"{where} {fault}; {_AGAIN}") from None
                if frame is None:
                    raise ValueError(f"{where} does not come out of the decoder; {_REWRITE}")
                if decoder.damaged:
                    raise ValueError(f"{where} is damaged; {_AGAIN}")
                yield self._picture(frame, short_side)

    @functools.cached_property
    def _usable(self) -> tuple[np.ndarray, np.ndarray]:
        """Times on the recording's clock, and presentation times, of the usable frames."""
        pts, _, unit_s, _ = self._frames
        if self._given_s is None:
            self._check_rate(pts, unit_s)
            # As players show it: FFmpeg applies edit lists, so frames cut off have no time, and
            # where a stream begins later than the others its first frame has a time above 0.
            return self._start_s + pts * unit_s, pts
        count = min(len(pts), len(self._given_s))
        usable = np.flatnonzero(np.isfinite(self._given_s[:count]))
        times_s = self._given_s[usable]
        if not (np.diff(times_s) > 0).all():
            raise ValueError(f"{self._name}: the times given for its frames do not ascend")
        return times_s, pts[usable]

    @functools.cached_property
    def _frames(self) -> _Frames:
        """Read from the packets, which come in order of decoding."""
        shown, keys, untimed, damaged = [], [], 0, 0
        with self._opened() as (container, stream, file):
            try:
                for packet in container.demux(stream):
                    if not packet.size:  # not a picture: the end of the stream
                        continue
                    if packet.pts is None:
                        untimed += 1
                        continue
                    if packet.is_keyframe:
                        keys.append(packet.pts)
                    if not packet.is_discard:  # those are decoded, but cut off by an edit list
                        shown.append(packet.pts)
                    damaged += packet.is_corrupt
            except Exception as error:
                raise ValueError(f"{self._name} is damaged ({damage(error)}); {_AGAIN}") from None
            ends = (entry.pos + entry.size for entry in stream.index_entries)
            missing = sum(end > container.size for end in ends)
            unit_s = float(stream.time_base)
            rate = capture_rate(file, container.metadata)  # moves the file, so it comes last
        if missing or damaged:
            raise ValueError(
                f"{self._name} is truncated or damaged: {max(missing, damaged)} of its frames are "
                f"not whole; {_AGAIN}"
            )
        pts = np.sort(np.array(shown, np.int64))
        same = int((np.diff(pts) == 0).sum())
        for count, what in (
            (untimed, f"{untimed} of its frames have no time"),
            (not len(pts), "its video has no frame"),
            (same, f"{same} of its frames have the time of another"),
        ):
            if count:
                raise ValueError(f"{self._name}: {what}; {_REWRITE}")
        return _Frames(pts, np.unique(np.array(keys, np.int64)), unit_s, rate)

    def _check_rate(self, pts: np.ndarray, unit_s: float) -> None:
        """ValueError where the video is slow motion or time lapse, as the camera states."""
        rate = self._frames.rate
        if rate is not None and len(pts) >= _FEWEST_PICTURES:
            check_real_time(self._name, rate, (len(pts) - 1) / ((pts[-1] - pts[0]) * unit_s))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any, BinaryIO]]:
        """The container, its video stream, the others passed over, and the file."""
        with self._opener() as file:
            try:
                container = av.open(file, "r", metadata_errors="replace")
            except Exception as error:
                fault = _unreadable(file, damage(error))
                raise ValueError(f"{self._name} {fault}; {_AGAIN}") from None
            with container:
                stream = container.streams.best("video")
                if stream is None or stream.codec_context is None:
                    raise ValueError(
                        f"{self._name} has no video stream that FFmpeg decodes; take it out"
                    )
                for other in container.streams:
                    if other.index != stream.index:
                        other.discard = Discard.all
                # One thread: a worker has one core, and the pictures of damaged data must not
                # depend on the order of threads.
                stream.codec_context.thread_count = 1
                yield container, stream, file

    def _picture(self, frame: Any, short_side: int | None) -> np.ndarray:
        """The decoded frame as an upright picture."""
        width, height = frame.width, frame.height
        if short_side is not None:
            short = min(width, height)
            width, height = (round(side * short_side / short) for side in (width, height))
        rgb = frame.reformat(width, height, format="rgb24", interpolation=_SCALING, threads=1)
        upright = _oriented(rgb.to_ndarray(), frame.side_data.get("DISPLAYMATRIX"), self._name)
        return np.ascontiguousarray(np.rot90(upright, self._quarter_turns))


def check_real_time(name: str, rate: CaptureRate, shown_fps: float) -> None:
    """ValueError naming the video where it is slow motion or time lapse, as its camera states."""
    allowed = _RATE_FACTOR if rate.shown_fps is None else _STATED_RATE_FACTOR
    shown_fps = rate.shown_fps or shown_fps
    if not 1 / allowed < rate.taken_fps / shown_fps < allowed:
        raise ValueError(
            f"{name}: the video is not in real time: {rate.taken_fps:g} pictures a second were "
            f"taken and {shown_fps:.4g} are shown (more than {allowed:g} times apart); its times "
            "are not those of other sensors. Take the video out"
        )


class _Decoder:
    """Decodes chosen frames of an open stream, in ascending order."""

    def __init__(self, container: Any, stream: Any, keys: np.ndarray) -> None:
        self._container = container
        self._stream = stream
        self._keys = keys
        self._decoded: Iterator[Any] = iter(())
        self._frame: Any = None
        self.damaged = False  # since the last key frame: later frames depend on it

    def frame(self, pts: int) -> Any:
        """The frame with this presentation time; None where decoding does not yield it."""
        before = int(np.searchsorted(self._keys, pts, side="right"))
        keys = self._keys[:before]
        if self._frame is None or (before and keys[-1] > self._frame.pts):
            self._start(keys, pts)
        while self._frame is not None and self._frame.pts < pts:
            self._next()
        return self._frame if self._frame is not None and self._frame.pts == pts else None

    def _start(self, keys: np.ndarray, pts: int) -> None:
        """Decode from the last of these key frames on that a seek reaches before ``pts``."""
        for place in (*keys[::-1].tolist(), _BEFORE_ALL):
            self._container.seek(place, stream=self._stream)
            packets = self._container.demux(self._stream)
            first = next(packets)
            # Formats without an index may land behind the frame that was sought.
            if first.is_keyframe and first.pts is not None and first.pts <= pts:
                break
        whole = itertools.chain([first], packets)
        self._decoded = (frame for packet in whole for frame in packet.decode())
        self._next()

    def _next(self) -> None:
        """Take the next frame, None at the end."""
        self._frame = next(self._decoded, None)
        if self._frame is not None:
            self.damaged &= not self._frame.key_frame
            self.damaged |= self._frame.is_corrupt


def _oriented(picture: np.ndarray, matrix: Any, where: str) -> np.ndarray:
    """The picture ``(h, w, 3)`` turned and mirrored as the file's display matrix says, if any.

    ISO/IEC 14496-12, 6.2.2: the matrix is the nine numbers a, b, u, c, d, v, x, y, w. A pixel at
    (p, q), to the right and down, is shown at (a p + c q + x, b p + d q + y).
    """
    if matrix is None:
        return picture
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if not a and not d and b and c:
        return picture.swapaxes(0, 1)[:: _sign(b), :: _sign(c)]
    if not b and not c and a and d:
        return picture[:: _sign(d), :: _sign(a)]
    raise ValueError(f"{where}: its pictures are turned by no multiple of 90 degrees; {_REWRITE}")


def _sign(number: int) -> int:
    return -1 if number < 0 else 1


def damage(error: Exception) -> str:
    """What is wrong with the file's content; raises the error again where the file is not at fault.

    Damaged offsets make FFmpeg seek before the beginning; each kind of file object refuses this by
    another error.
    """
    if isinstance(error, av.FFmpegError):
        return str(error.strerror)
    if isinstance(error, ValueError) or getattr(error, "errno", None) == errno.EINVAL:
        return "it points outside itself"
    if isinstance(error, OSError | ImportError):  # of storage, or of what is installed
        raise error
    return reason(error)


def _unreadable(file: BinaryIO, fault: str) -> str:
    """Why FFmpeg could not open the file."""
    file.seek(0)
    head = file.read(12)
    if not head:
        return "is empty"
    if head[4:8] == b"ftyp":
        return f"is truncated: its index (moov) is missing or damaged ({fault})"
    return f"is no video that FFmpeg reads ({fault})"
