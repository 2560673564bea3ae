"""Tracked faces as animation: the motion of each head, and tables in the layout of the app Live Link Face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import MESH_ITERATIONS, Faces
from canthus.face.morphable import MorphableModel
from canthus.face.person import pooled_identity
from canthus.face.series import TrackedFrame, gaps
from canthus.geometry.rotation import euler_from_matrix, matrix_from_quaternion, quaternion_from_matrix
from canthus.io.columns import Camera
from canthus.io.gltf import HeadMotion

LIVE_LINK_RATE = 60  # frames a second in which the app's time codes count

LIVE_LINK = tuple(
    """eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft eyeWideLeft eyeBlinkRight
    eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight eyeSquintRight eyeWideRight jawForward jawRight
    jawLeft jawOpen mouthClose mouthFunnel mouthPucker mouthRight mouthLeft mouthSmileLeft mouthSmileRight
    mouthFrownLeft mouthFrownRight mouthDimpleLeft mouthDimpleRight mouthStretchLeft mouthStretchRight mouthRollLower
    mouthRollUpper mouthShrugLower mouthShrugUpper mouthPressLeft mouthPressRight mouthLowerDownLeft
    mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight browDownLeft browDownRight browInnerUp browOuterUpLeft
    browOuterUpRight cheekPuff cheekSquintLeft cheekSquintRight noseSneerLeft noseSneerRight tongueOut""".split()
)
"""The 52 expressions in the order of the app's tables."""

_ANGLES = [f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")]


def motions(frames: Iterable[TrackedFrame], camera: Camera, model: MorphableModel | None = None) -> list[HeadMotion]:
    """The motion of the head of each face, in order of their numbers.

    A head has one shape, `person.pooled_identity` of its frames. Its expressions are those of the network, with 0 for
    those that are not known, or, where the network gives none, those of a fit of the head to the landmarks. camera:
    for the translations. model: a head model in mm with the expressions of EXPRESSIONS; None: the default one. All
    faces are held in memory, 3 kB a face and frame.
    """
    model = MorphableModel.default() if model is None else model
    tracks: dict[int, tuple[list[tuple[int, float]], list[Faces]]] = {}
    for frame in frames:
        for number, face in zip(frame.tracked.ids.tolist(), frame.tracked.faces):
            when, faces = tracks.setdefault(number, ([], []))
            when.append((frame.number, frame.time))
            faces.append(face)
    return [_motion(f"face_{number}", when, faces, camera, model) for number, (when, faces) in sorted(tracks.items())]


def _motion(
    name: str, when: Sequence[tuple[int, float]], faces: list[Faces], camera: Camera, model: MorphableModel
) -> HeadMotion:
    numbers, times = (np.array(column) for column in zip(*when))
    identity = pooled_identity(faces, model)
    person = model.of_person(identity)
    together = Faces.concat(faces, faces[0].image_size).converted()
    sizes = np.array([face.image_size for face in faces])
    expression = together.expression.astype(np.float64)
    if np.isnan(expression).all():
        expression = person.fit(together.xyz, together.fit_weights(), iterations=MESH_ITERATIONS).expression
    poses = camera.head_poses(together, sizes, person.landmarks()[0])
    breaks = [0, *gaps(numbers, times).tolist(), len(times)]
    return HeadMotion(
        name,
        identity,
        numbers,
        times,
        quaternion_from_matrix(poses.rotation),
        poses.translation,
        np.nan_to_num(expression),
        [(float(times[a]), float(times[b - 1])) for a, b in zip(breaks, breaks[1:])],
    )


def live_link_table(head: HeadMotion) -> bytes:
    """A head as a table (CSV) of the app Live Link Face: time code (hours:minutes:seconds:frames.thousandths, at
    LIVE_LINK_RATE), the number 61, 52 expressions, and yaw, pitch, roll of the head in the set arkit, radians.

    The eyes turn by nothing: nothing here measures them.
    """
    names = [f"{name[0].upper()}{name[1:]}" for name in LIVE_LINK]
    order = [EXPRESSIONS.index(name) for name in LIVE_LINK]
    pitch, yaw, roll = euler_from_matrix(matrix_from_quaternion(head.rotation), "arkit").T
    numbers = np.column_stack([head.expression[:, order], yaw, pitch, roll, np.zeros((len(yaw), 6))])
    lines = [",".join(["Timecode", "BlendShapeCount", *names, *_ANGLES])]
    for time, values in zip(head.times.tolist(), numbers.tolist()):
        lines.append(",".join([time_code(time), str(len(values)), *(f"{value:.8f}" for value in values)]))
    return ("\n".join(lines) + "\n").encode()


def time_code(seconds: float, rate: int = LIVE_LINK_RATE) -> str:
    """Hours:minutes:seconds:frames.thousandths of a time, with `rate` frames in a second."""
    thousandths = round(seconds * rate * 1000)
    frames, part = divmod(thousandths, 1000)
    whole, frame = divmod(frames, rate)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.{part:03d}"


def view_of(camera: Camera, image_size: Sequence[int]) -> tuple[float, float]:
    """The angle from the top of an image of (width, height) to its bottom, radians, and its width over its height."""
    (focal,) = camera.focal_lengths(np.array([image_size]))
    width, height = image_size
    return float(2 * np.arctan(height / 2 / focal)), width / height
