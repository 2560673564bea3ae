"""Videos in and out: files by PyAV (the extra `video`), GIF and WebP by Pillow, folders of frames as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from os import PathLike
from os.path import isdir, isfile  # unlike pathlib's, these say False of a name that cannot be
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from canthus.errors import CanthusError, VideoError
from canthus.io.images import as_rgb, read_image
from canthus.io.outputs import atomic_open

FILES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif"})
FRAMES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
PILLOW = frozenset({".gif", ".webp"})  # read without PyAV
RATE = 25.0  # frames a second where nothing says so
GIF_SIDE = 480  # px, of a GIF that stands in for a video: it is large and slow
TICKS = 90_000  # a second, in which a video's times are written


class Frame(NamedTuple):
    """One frame: its number from 0, seconds from the first frame, and the picture (H,W,3) uint8 RGB, upright."""

    number: int
    time: float
    image: np.ndarray


class Video:
    """The frames of a video file, or of the pictures of a folder in the order of their names (2 before 10).

    path: what it was made of. rate: frames a second, on average; of a folder, what is said here. count: how many
    frames the file says that it has, None if it does not say. Iterating decodes from the start, once an iteration,
    and turns frames as the file's rotation says. Raises `VideoError`, also while it is iterated, for what is missing,
    empty, damaged or no video, and for a folder whose pictures differ in size.
    """

    def __init__(self, path: str | PathLike[str], rate: float = RATE):
        self.path, self.rate = Path(path), rate
        self.count: int | None = None
        if isdir(self.path):
            self._frames = self._of_folder
            self.count = len(frames_of(self.path))
            if not self.count:
                raise VideoError(f"got the folder {path} without a picture, want frames: {', '.join(sorted(FRAMES))}")
            return
        if not isfile(self.path):
            raise VideoError(f"got the path {path}, where there is no file, want a video or a folder of frames")
        if self.path.stat().st_size == 0:
            raise VideoError(f"got the empty file {path}, want a video")
        with self._sentence():
            if self.path.suffix.lower() in PILLOW:
                self._frames = self._of_pillow
                with Image.open(self.path) as opened:
                    self.count = getattr(opened, "n_frames", 1)
                    self.rate = 1000 / _duration(opened)
            else:
                self._frames = self._of_av
                with self._opened() as (_, stream):
                    self.rate = float(stream.average_rate or rate)
                    self.count = stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        number = -1
        with self._sentence():
            with closing(self._frames()) as frames:
                for number, (time, image) in enumerate(frames):
                    yield Frame(number, time, image)
            if number < 0:
                raise VideoError(f"got the video {self.path} without a frame, want at least one")

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except CanthusError:
            raise
        except Exception as error:  # on a damaged file the decoders raise anything
            raise VideoError(f"got {self.path}, which cannot be read as a video ({error}), want it intact") from error

    def _of_folder(self) -> Generator[tuple[float, np.ndarray], None, None]:
        size = None
        for index, path in enumerate(frames_of(self.path)):
            image = read_image(path)
            size = size or image.shape
            if image.shape != size:
                got, want = (f"{s[1]} x {s[0]} px" for s in (image.shape, size))
                raise VideoError(f"got the frame {path} of {got} in a folder of {want}, want one size")
            yield index / self.rate, image

    def _of_pillow(self) -> Generator[tuple[float, np.ndarray], None, None]:
        time = 0.0
        with Image.open(self.path) as opened:
            for frame in ImageSequence.Iterator(opened):
                yield time, as_rgb(np.asarray(frame.convert("RGB")))
                time += _duration(frame) / 1000

    def _of_av(self) -> Generator[tuple[float, np.ndarray], None, None]:
        with self._opened() as (container, stream):
            stream.thread_type = "AUTO"
            first, last = None, -1.0
            for index, frame in enumerate(container.decode(stream)):
                time = index / self.rate if frame.time is None else frame.time
                first = time if first is None else first
                last = max(time - first, last + 1 / TICKS)  # broken files repeat times
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))
                yield last, np.ascontiguousarray(turned)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        with _av(self.path).open(str(self.path)) as container:
            if not container.streams.video:
                raise VideoError(f"got the file {self.path} without pictures, want a video")
            yield container, container.streams.video[0]


def frames_of(folder: Path) -> list[Path]:
    """The pictures right inside a folder, in the order of their names, in which 2 comes before 10."""

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", path.name)]

    return sorted((p for p in folder.iterdir() if p.suffix.lower() in FRAMES and p.is_file()), key=natural)


def writable_suffix() -> str:
    """Of the videos that can be written here: .mp4, or .gif if PyAV is not there."""
    try:
        _av(Path())
    except VideoError:
        return ".gif"
    return ".mp4"


@contextmanager
def write_video(path: Path) -> Iterator[Callable[[np.ndarray, float], None]]:
    """A function to which to give pictures (H,W,3) uint8, all of one size, and their rising times in seconds.

    The file, .mp4 (H.264) or .gif, is there when the block has ended, and is not if it ends by an error. A GIF is
    made smaller. Raises `OutputError`, and `VideoError` where PyAV is wanted and not there.
    """
    with atomic_open(path) as file, (_write_gif if path.suffix == ".gif" else _write_mp4)(path, file) as put:
        yield put


@contextmanager
def _write_mp4(path: Path, file: Any) -> Iterator[Callable[[np.ndarray, float], None]]:
    from fractions import Fraction

    av = _av(path)
    stream: Any = None
    last = -1
    with av.open(file, "w", format="mp4") as container:

        def put(image: np.ndarray, time: float) -> None:
            nonlocal stream, last
            odd = [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)]
            image = np.pad(image, odd, "edge")  # H.264 wants even sides
            if stream is None:
                stream = container.add_stream("libx264", rate=TICKS, options={"crf": "20", "preset": "veryfast"})
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
                stream.codec_context.time_base = Fraction(1, TICKS)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            last = max(round(time * TICKS), last + 1)
            frame.pts, frame.time_base = last, Fraction(1, TICKS)
            container.mux(stream.encode(frame))

        yield put
        if stream is not None:
            container.mux(stream.encode())


@contextmanager
def _write_gif(path: Path, file: Any) -> Iterator[Callable[[np.ndarray, float], None]]:
    pictures: list[Image.Image] = []
    times: list[float] = []

    def put(image: np.ndarray, time: float) -> None:
        picture = Image.fromarray(image)
        picture.thumbnail((GIF_SIDE, GIF_SIDE), reducing_gap=2.0)
        pictures.append(picture.quantize(128))
        times.append(time)

    yield put
    if pictures:
        durations = np.diff([*times, times[-1] + (times[-1] / (len(times) - 1) if len(times) > 1 else 1 / RATE)])
        shown = np.maximum(np.rint(durations * 100), 2).astype(int) * 10  # GIF counts hundredths; viewers refuse 1
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=shown.tolist(), loop=0)


def _duration(picture: Image.Image) -> float:
    """Milliseconds that a frame is shown for; as browsers do, 100 where it says next to nothing."""
    given = picture.info.get("duration", 0)
    return float(given) if given > 10 else 100.0


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(f"got {path}, which needs PyAV, want it installed: pip install 'canthus[video]'") from error
    return av
