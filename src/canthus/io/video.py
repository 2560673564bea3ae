"""Videos: files by PyAV (the extra `video`), GIF and WebP by Pillow, folders of frames as they are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from numbers import Real
from os import PathLike
from os.path import exists, isdir, isfile  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from canthus.errors import CanthusError, ImageError, VideoError, VideoSizeError, amount, pip_install
from canthus.io.images import as_rgb, can_read, plain_array, read_image
from canthus.io.inputs import is_address, is_apple_double
from canthus.threads import check_threads

FILES = frozenset(
    ".3g2 .3gp .asf .avi .dv .f4v .flv .gif .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .qt "
    ".ts .vob .webm .wmv".split()
)
PILLOW = frozenset({".gif", ".webp"})  # read without PyAV
# Formats that a received file may have, by FFmpeg's names: formats that hold their pictures themselves.
CONTAINERS = "3gp,asf,avi,dv,flv,h264,hevc,matroska,mov,mp4,mpeg,mpegts,mxf,ogg,webm"
RATE = 25.0  # frames a second where nothing says so
TICKS = 90_000  # a second, in which a video's times are written
_UNSEEN = np.zeros((1, 1, 3), np.uint8)  # in the place of frames that were not asked for
MIN_ASPECT = 0.2  # of the sides of a pixel; less is no picture format but a damaged header


class Frame(NamedTuple):
    """One frame of a video.

    number: counts the frames that could be read, from 0. time: seconds from the start of the video; it is true also
    where frames before this one are missing. image: (H,W,3) uint8 RGB, as a player shows it.
    """

    number: int
    time: float
    image: np.ndarray


class Video:
    """The frames of a video file, or of the pictures of a folder in the order of their names (2 before 10).

    path: the file or folder. rate: mean frames per second; for a folder, the value given here. threads: CPU threads of
    the decoder; None leaves their number to it. count: number of frames according to the file's header, None if it does
    not say. Each iteration decodes from the start. Frames come as a
    player shows them: turned and mirrored as the file's display matrix says, and stretched to square pixels.

    What is damaged is left out and the rest is read. `missing` and `problems` tell, after an iteration, how many frames
    are known to be missing and why, one sentence each; so is a picture of a folder of another size than the first.
    Raises `VideoError` for a path that is missing, empty or no video, and for one without any readable frame;
    `CanthusError` for `threads` that are no positive integer.
    """

    _data: bytes | None = None  # of a file that is held in memory
    _most_pixels: int | None = None  # of its frames

    def __init__(self, path: str | PathLike[str], rate: float = RATE, threads: int | None = None):
        check_source(path)
        check_rate(rate)
        self._threads = check_threads(threads)
        self.path, self.rate = Path(path), float(rate)
        self.count: int | None = None
        self.missing = 0
        self.problems: list[str] = []
        if isdir(self.path):
            self._frames = self._of_folder
            self.count = len(frames_of(self.path))
            if not self.count:
                raise VideoError(f"got the folder {path} without a picture, want the frames of a video")
            return
        if not isfile(self.path):
            what = "a special file" if exists(self.path) else "no file"
            raise VideoError(f"got the path {path}, where there is {what}, want a video or a folder of frames")
        if self.path.stat().st_size == 0:
            raise VideoError(f"got the empty file {path}, want a video")
        self._look(self.path.suffix.lower() in PILLOW)

    @classmethod
    def of_bytes(cls, data: bytes, name: str, most_pixels: int, threads: int | None = None) -> Video:
        """The content of a received file, called `name`, with frames of at most `most_pixels` pixels.

        It is read from memory, and nothing else is: no playlist and no file that it names. Raises `VideoSizeError` for
        larger frames, `VideoError` for anything that is no video.
        """
        video = cls.__new__(cls)
        video.path, video.rate, video._threads = Path(name), RATE, check_threads(threads)
        video.count, video.missing, video.problems = None, 0, []
        video._data, video._most_pixels = data, most_pixels
        if not data:
            raise VideoError(f"got the empty file {name}, want a video")
        video._look(data[:4] == b"GIF8" or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"))
        return video

    def _look(self, by_pillow: bool) -> None:
        with self._sentence():
            if by_pillow:
                self._frames = self._of_pillow
                with self._picture() as opened:
                    self.count = getattr(opened, "n_frames", 1)
                    self.rate = 1000 / _duration(opened)
            else:
                self._frames = self._of_av
                with self._opened() as (_, stream):
                    self.rate = float(stream.average_rate or self.rate)
                    self.count = stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        return self.since(0)

    def since(self, first: int) -> Iterator[Frame]:
        """The frames from number `first` on. Those before it are decoded, as the others follow from them, and no
        more. Raises `VideoError` while it is read, as iterating does."""
        self.missing, self.problems = 0, []
        number = -1
        with self._sentence():
            with closing(self._frames(first)) as frames:
                for number, (time, image) in enumerate(frames):
                    if number >= first:
                        yield Frame(number, time, image)
            if number < 0:
                why = f" ({self.problems[0]})" if self.problems else ""
                raise VideoError(f"got the video {self.path} without a readable frame{why}, want at least one")

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except CanthusError:
            raise
        except Exception as error:  # on a damaged file the decoders raise anything
            # PyAV's text has a number and the name again
            why = getattr(error, "strerror", None) or error
            raise VideoError(f"got {self.path}, which cannot be read as a video ({why}), want it intact") from error

    def _of_folder(self, first: int) -> Generator[tuple[float, np.ndarray], None, None]:
        size = None
        for index, path in enumerate(frames_of(self.path)):
            try:
                image = read_image(path)
                size = size or image.shape
                if image.shape != size:
                    got, want = (f"{s[1]} x {s[0]} px" for s in (image.shape, size))
                    raise ImageError(f"got the frame {path} of {got}, want {want} as the first one has")
            except ImageError as error:
                self.missing += 1
                self.problems.append(str(error))
                continue
            yield index / self.rate, image

    def _of_pillow(self, first: int) -> Generator[tuple[float, np.ndarray], None, None]:
        time, count = 0.0, self.count or 0
        with self._picture() as opened:
            for number in range(count):
                try:
                    opened.seek(number)
                    image = as_rgb(plain_array(opened))
                except Exception as error:  # each frame is drawn over the one before: the rest is lost
                    self.missing = count - number
                    self.problems.append(f"frame {number} cannot be read ({error})")
                    return
                yield time, image
                time += _duration(opened) / 1000

    def _of_av(self, first: int) -> Generator[tuple[float, np.ndarray], None, None]:
        from av import FFmpegError
        from av.video.reformatter import VideoReformatter

        # one for all frames, as each has threads of its own
        convert = partial(VideoReformatter().reformat, threads=self._threads or 0)
        with self._opened() as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads or 0
            aspect = float(stream.sample_aspect_ratio or 1)
            times: list[float] = []
            origin, damaged, hidden, shown = 0.0, 0, 0, 0.0
            for packet in self._packets(container, stream):
                hidden += packet.is_discard  # cut off by an edit list: decoding needs it, but it is not shown
                try:
                    frames = packet.decode()
                except FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    if not times:
                        from_start = damaged and stream.start_time is not None
                        origin = float(stream.start_time * stream.time_base) if from_start else frame.time or 0.0
                    following = times[-1] + 1 / self.rate if times else 0.0
                    time = following if frame.time is None else frame.time - origin
                    times.append(max(time, times[-1] + 1 / TICKS if times else 0.0))  # broken files repeat times
                    shown = float((frame.duration or 0) * (frame.time_base or 0))
                    seen = len(times) > first
                    yield times[-1], as_shown(frame, aspect, convert) if seen else _UNSEEN
            if damaged:
                self.problems.append(f"{amount(damaged, 'damaged packet was', 'damaged packets were')} left out")
            if self.count:
                self.missing = max(self.count - hidden - len(times), 0)
                if self.missing > damaged:
                    self.problems.append(f"the header announces {amount(self.count, 'frame')}")
            elif times:
                length = _seconds(stream.metadata.get("DURATION")) or (container.duration or 0) / 1e6
                alone = len(container.streams) == 1 or "DURATION" in stream.metadata  # else another may be the longer
                end = times[-1] + max(shown, 1 / self.rate)
                self.missing = max(damaged, self._gaps(times, end, length - origin, 0.0 if alone else 1.0))

    def _gaps(self, times: list[float], end: float, length: float, tolerance: float) -> int:
        """Frames that are missing by their times, seconds, up to `end`, from a video that should last `length`."""
        steps = np.diff(times)
        few = len(steps) < 10
        step = 1 / self.rate if few else float(np.median(steps))
        regular = few or np.mean(np.abs(steps - step) < 0.1 * step) > 0.8
        if length - end > max(tolerance, 0.2, 3 * step):
            self.problems.append(f"it ends at {end:.2f} s of the {length:.2f} s that the header announces")
            return round(length / step) - len(times) if regular else round((length - end) / float(np.mean(steps)))
        missing = 0 if few or not regular else int((np.rint(steps / step) - 1).clip(0).sum())
        if missing:
            self.problems.append("there are gaps between its frames")
        return missing

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets of a stream, as far as its file can be read."""
        from av import FFmpegError, Packet

        try:
            yield from container.demux(stream)
        except FFmpegError as error:
            self.problems.append(f"it cannot be read to its end ({error.strerror})")
            packet = Packet()  # an empty one makes the decoder give what it holds back
            packet.stream = stream
            yield packet

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        source: Any = str(self.path)
        options: dict[str, str] = {}
        if self._data is not None:
            source, options = io.BytesIO(self._data), {"protocol_whitelist": "none", "format_whitelist": CONTAINERS}
        with import_av(self.path).open(source, options=options) as container:
            if not container.streams.video:
                raise VideoError(f"got the file {self.path} without pictures, want a video")
            stream = container.streams.video[0]
            if self._most_pixels is not None:
                self._check_size(stream.width, stream.height)
                stream.codec_context.options = {"max_pixels": str(self._most_pixels)}  # where frames are larger
            yield container, stream

    @contextmanager
    def _picture(self) -> Iterator[Image.Image]:
        with Image.open(self.path if self._data is None else io.BytesIO(self._data)) as opened:
            self._check_size(*opened.size)
            yield opened

    def _check_size(self, width: int, height: int) -> None:
        if self._most_pixels is not None and width * height > self._most_pixels:
            want = f"want at most {self._most_pixels} pixels"
            raise VideoSizeError(f"got the video {self.path} of {width} x {height} px, {want}")


def check_source(given: Any) -> None:
    """Raise `VideoError` for what names no file or folder: the number of a camera, the address of a stream."""
    if not isinstance(given, str | PathLike):
        raise VideoError(
            f"got {given!r} as a video, want the path of a file or folder (for cameras see `io.streams.Live`)"
        )
    text = str(given)
    if text.isdecimal() and not exists(text):
        raise VideoError(f"got '{text}', where there is no file, want a video (for cameras see `io.streams.Live`)")
    if is_address(text):
        raise VideoError(f"got the address '{text}', want a file or folder (for streams see `io.streams.Live`)")
    if not text:
        raise VideoError("got an empty path, want a video or a folder of frames")


def check_rate(rate: float) -> None:
    """Raise `VideoError` unless `rate` is a frame rate."""
    if not (isinstance(rate, Real) and 0 < rate < np.inf):
        raise VideoError(f"got a frame rate of {rate!r}, want a finite number above 0")


def is_video_of_av(path: Path) -> bool:
    """Whether a file of this name is read by PyAV."""
    return path.suffix.lower() not in PILLOW


def is_frame(name: str) -> bool:
    """Whether a file of this name is a picture, and so may be one frame of a folder of frames."""
    suffix = Path(name).suffix.lower()
    return can_read(suffix) and suffix not in FILES and not is_apple_double(name)


def frames_of(folder: Path) -> list[Path]:
    """The pictures right inside a folder, in the order of their names, in which 2 comes before 10.

    Raises `VideoError` for a folder that cannot be read.
    """

    def natural(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", path.name)  # every second part is a number
        return [(int(part), "") if k % 2 else (0, part) for k, part in enumerate(parts)]

    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise VideoError(f"got the folder {folder}, which cannot be read ({error.strerror})") from error
    return sorted((p for p in inside if is_frame(p.name) and not isdir(p)), key=natural)


def as_shown(frame: Any, aspect: float, convert: Callable[..., Any]) -> np.ndarray:
    """The pixels (H,W,3) of a decoded frame as a player shows them. aspect: width of a pixel / its height. convert: the
    `VideoReformatter.reformat` of PyAV.

    The display matrix (ISO 14496-12, 8.3.2) takes a point (x, y, 1), a row, of the stored picture to the shown one.
    Its quarter turns and mirrorings are applied, other angles as the nearest of these.
    """
    width, height = frame.width, frame.height
    if MIN_ASPECT < aspect < 1:
        height = round(height / aspect)
    elif 1 < aspect < 1 / MIN_ASPECT:
        width = round(width * aspect)
    image = convert(frame, width, height, "rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3).astype(float)
    if abs(a * d) < abs(b * c):  # x becomes y
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _seconds(text: str | None) -> float:
    """Seconds of a time such as 00:01:02.5; 0 for anything else."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text or "")
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1))) if found else 0.0


def _duration(picture: Image.Image) -> float:
    """Milliseconds that a frame is shown for; as browsers do, 100 where it says next to nothing."""
    given = picture.info.get("duration", 0)
    return float(given) if given > 10 else 100.0


def import_av(path: Path) -> Any:
    """PyAV, for a file that needs it. Raises `VideoError` if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise VideoError(f"got {path}, which needs PyAV: {pip_install('video')}") from error
    return av
