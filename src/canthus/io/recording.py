"""The tracked frames of a video, kept on disk in parts, so that a stopped run continues where it was.

A part holds the faces of some frames, exactly, and the tracker's state after the last of them. Parts lie in a hidden
folder beside the results and are removed when these are there.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from canthus.decode import decoding, open_npz, parse_json, read_npz
from canthus.decode.arrays import array_names
from canthus.errors import OutputError
from canthus.face.faces import FACES_COLUMNS, Faces, TrackedFaces
from canthus.face.pose import Pose
from canthus.face.series import TrackedFrame
from canthus.io.outputs import atomic_write, make_folder

SCHEMA = "canthus.recording/4"
PART_FRAMES = 100  # about two seconds of work
BETWEEN_PICTURES = 20  # frames
PICTURE_SIDE = 160  # px
State = dict[str, np.ndarray]


class Recording:
    """The frames of one video in a folder of parts.

    folder: made when the first part is written. about: plain data that tells which video and settings the parts are of;
    parts of others are removed. resume: whether existing parts are kept. `frames`: how many frames the parts
    hold. `state`: the tracker's after these, None at the start.
    """

    def __init__(self, folder: Path, about: dict[str, Any], resume: bool = False):
        self.folder, self.about = folder, about
        self.frames = 0
        self.state: State | None = None
        self._parts: list[Path] = []
        self._waiting: list[TrackedFrame] = []
        self._pictures: dict[int, np.ndarray] = {}
        if resume:
            self._take_over()
        for path in folder.glob("*") if folder.is_dir() else ():
            if path not in self._parts:
                with suppress(OSError):
                    path.unlink()

    def _take_over(self) -> None:
        for number in range(10**6):
            path = self._path(number)
            try:
                with decoding(OutputError, str(path)):
                    part = read_npz(path)
                    about = parse_json(str(part["about"]))
                    whole = about == {"schema": SCHEMA, **self.about} and int(part["first"]) == self.frames
                    count = len(part["time"])
            except OutputError:
                return
            if not whole:
                return
            self._parts.append(path)
            self.frames += count
            self.state = {name.removeprefix("state_"): v for name, v in part.items() if name.startswith("state_")}

    def add(self, frame: TrackedFrame, image: np.ndarray) -> bool:
        """Keep the next frame, and of some images (H,W,3) uint8 a small copy; whether it is time for `flush`."""
        if (self.frames + len(self._waiting)) % BETWEEN_PICTURES == 0:
            picture = Image.fromarray(image)
            picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), reducing_gap=2.0)
            self._pictures[frame.number] = np.asarray(picture)
        self._waiting.append(frame)
        return len(self._waiting) >= PART_FRAMES

    def flush(self, state: State) -> None:
        """Write the frames since the last part as another one, with the tracker's state. Raises `OutputError`."""
        if not self._waiting:
            return
        make_folder(self.folder)
        faces = [frame.tracked.faces for frame in self._waiting]
        arrays = {
            "about": np.array(json.dumps({"schema": SCHEMA, **self.about})),
            "first": np.array(self.frames),
            "number": np.array([frame.number for frame in self._waiting]),
            "time": np.array([frame.time for frame in self._waiting]),
            "ids": np.concatenate([frame.tracked.ids for frame in self._waiting]),
            "followed": np.concatenate([frame.tracked.followed for frame in self._waiting]),
            **faces_to_arrays(faces),
            **{f"state_{name}": value for name, value in state.items()},
            **{f"picture_{number}": picture for number, picture in self._pictures.items()},
        }
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        path = self._path(len(self._parts))
        atomic_write(path, stream.getvalue())
        self._parts.append(path)
        self.frames += len(self._waiting)
        self._waiting.clear()
        self._pictures.clear()

    def picture_numbers(self) -> list[int]:
        """The numbers of the frames of which there are small copies, rising. Raises `OutputError` as iterating."""
        return sorted([*self._pictures, *(number for _, number in self._pictures_in_parts())])

    def pictures(self, numbers: Collection[int]) -> dict[int, np.ndarray]:
        """Small copies of some of these frames, (h,w,3) uint8. Raises `OutputError` as iterating."""
        found = {number: picture for number, picture in self._pictures.items() if number in numbers}
        for path, number in self._pictures_in_parts():
            if number in numbers:
                with self._undamaged(path):
                    (found[number],) = read_npz(path, [f"picture_{number}"]).values()
        return found

    def _pictures_in_parts(self) -> Iterator[tuple[Path, int]]:
        for path in self._parts:
            with self._undamaged(path), open_npz(path) as archive:
                names = array_names(archive)
            yield from ((path, int(name.removeprefix("picture_"))) for name in names if name.startswith("picture_"))

    def _undamaged(self, path: Path) -> AbstractContextManager[None]:
        return decoding(OutputError, f"got the part '{path}' of a recording that is damaged, want it as written")

    def __iter__(self) -> Iterator[TrackedFrame]:
        """All frames that were kept, part by part. Raises `OutputError` where a part cannot be read any more."""
        for path in self._parts:
            with self._undamaged(path):
                part = read_npz(path)
                all_faces = faces_from_arrays(part)
            ends = np.cumsum([len(faces) for faces in all_faces])
            for k, (faces, end) in enumerate(zip(all_faces, ends.tolist())):
                rows = slice(end - len(faces), end)
                tracked = TrackedFaces(faces, part["ids"][rows], part["followed"][rows])
                yield TrackedFrame(int(part["number"][k]), float(part["time"][k]), tracked)
        yield from self._waiting

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def faces_to_arrays(images: Sequence[Faces]) -> dict[str, np.ndarray]:
    """The faces of several images as arrays, from which `faces_from_arrays` makes the same ones to the last bit."""
    together = Faces.concat(images, (1, 1))
    return {
        "count": np.array([len(faces) for faces in images], int),
        "size": np.array([faces.image_size for faces in images], int).reshape(-1, 2),
        "weights": np.array([faces.weights for faces in images] or np.zeros(0, "U1"), dtype=np.str_),
        "scheme": np.array([faces.scheme for faces in images] or np.zeros(0, "U1"), dtype=np.str_),
        "matrix": together.pose.matrix,
        **{name: getattr(together, name) for name in FACES_COLUMNS},
    }


def faces_from_arrays(arrays: dict[str, np.ndarray]) -> list[Faces]:
    """What `faces_to_arrays` took. Raises anything for other arrays."""
    images = []
    ends = np.cumsum(arrays["count"]).tolist()
    about = (arrays[name].tolist() for name in ("count", "size", "scheme", "weights"))
    for end, count, size, scheme, weights in zip(ends, *about, strict=True):
        rows = slice(end - count, end)
        columns: dict[str, Any] = {name: arrays[name][rows] for name in FACES_COLUMNS}
        pose = Pose(arrays["matrix"][rows])
        images.append(Faces(**columns, pose=pose, image_size=tuple(size), scheme=scheme, weights=weights))
    return images
