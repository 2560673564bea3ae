"""Following faces from frame to frame: `Tracker`.

The loop of "Combining Local and Global Features for 3D Face Tracking", ICCV Workshops 2017 (Menpo 3D), sect. 3.4: one
model aligns a face that the detector found, and a second one continues from where the face was in the frame before. The
paper detects faces in every frame and gives no test of failure; `Tracker` tells what is done instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np

from canthus.decode import decoding
from canthus.errors import CanthusError, LandmarkError
from canthus.face.faces import Faces, TrackedFaces
from canthus.geometry.crop import Crop, box_centres, box_overlaps
from canthus.inference.appearance import difference, face_descriptors, frame_descriptor, has_contrast, is_cut
from canthus.inference.detect import Detections
from canthus.inference.predictor import SAME_FACE, Predictor, known_crops
from canthus.io.images import ImageLike, as_image, crop_image
from canthus.io.recording import faces_from_arrays, faces_to_arrays

MIN_SCORE = 0.3  # mean of `Faces.scores`
MIN_PEAK = 0.25  # mean peak of heatmaps
MAX_GROWTH = 0.4  # of the log of a face's size from frame to frame
MIN_OVERLAP = 0.3  # intersection over union of a face and the detection that confirms it
MOST_WANTED = 0.6  # where a face would have to be surer than this, its detector doubts so much that none is looked for
BESIDE = 0.1  # a face that was behind another is found once they overlap by less, lest it slide onto that one
MAX_MATCH_DISTANCE = 1.0  # face sizes between where a lost face should be and a detection that is taken for it
EMPTY_EVERY = 12  # frames between two thorough searches where no face is tracked, if `detect_every` is 0
THOROUGH = 4  # of so many searches beside tracked faces one is thorough; it takes ten times as long as a quick one
SEARCH_RADIUS = 2.2  # face sizes around a lost face: MAX_MATCH_DISTANCE, the face itself, and some context
MAX_SEARCHES = 3  # lost faces a frame that are searched for one by one
LONGEST_MOTION = 12  # frames for which a lost face is thought to move on as it did
COVERED = 0.3  # share of a lost face's expected box that others must cover for it to count as hidden
# `appearance.difference` up to which a face is one that was seen before. Of 114 people who face the camera in photos of
# AFLW2000-3D, 0.1 % of all pairs differ as little; of nine tracks, nine tenths of the second half do from the first.
MAX_DIFFERENCE = 0.12
APPEARANCE_RATE = 0.05  # weight of the newest frame in the running mean of a face's descriptor


@dataclass
class _Track:
    """One face: as it was last seen, its velocity (px a frame), its descriptor (`face_descriptors`), for how many
    frames it has been missing, and for how many of these it was hidden behind another face."""

    id: int
    face: Faces
    velocity: np.ndarray
    appearance: np.ndarray
    missing: int = 0
    hidden: int = 0
    followed: bool = False

    def expected(self, frames: int) -> np.ndarray:
        """Where its centre (2,) should be, `frames` frames after it was last seen."""
        return box_centres(self.face.boxes)[0] + min(frames, LONGEST_MOTION) * self.velocity


class Tracker:
    """Follows all faces of a video, each under a number that it keeps.

    aligner: the model that aligns faces which the detector (`aligner.detector`) found.
    tracking: the model that continues from the frame before; None is the same. Its crop is the box of the last
    landmarks, turned upright by the last pose, or, where its card has a mean shape, aligned to that by a similarity.
    Weights that were trained on crops shifted, turned and scaled by a little suit it best (docs/training.md).
    initial: weights whose 68 points align the first crop of a detected face for `aligner`, as the paper's first model
    gets its crops from a detector's landmarks; None: `aligner` starts from the detector's box.
    detect_every: frames after which the detector searches the whole frame for newcomers: near ones
    (`FaceDetector.quick`), and in every fourth search, or if no face is tracked, those of any size; 0: only where no
    face is tracked.
    min_score: mean confidence below which a face is unhealthy; None: MIN_SCORE of `Faces.scores`, or MIN_PEAK of a
    method's own scores where it gives no sigma.
    memory: frames that a lost face is remembered for, not counting those in which it should be behind another face. If
    a detection then comes up where it should be by its speed, it gets its number back.
    recall: frames for which a face that is gone, because its memory is over or the video was cut, gets its number back
    wherever a face comes up that looks the same (`appearance`): the same colours, in similar light and pose. 0: never.

    A cut, and a frame of another size, end the tracks of all faces; a cross-fade is not noticed.

    A face is healthy while its score suffices, its size does not jump, its centre is in the picture, no other face
    lies in the same place, and no detection centred in its box disagrees about that box. An unhealthy face is lost
    unless the detector finds it again in the same frame. The detector searches for lost faces in every frame, around
    where they should be; while no face is tracked it searches every frame for near faces (`FaceDetector.quick`).
    """

    def __init__(
        self,
        aligner: Predictor,
        tracking: Predictor | None = None,
        *,
        initial: Predictor | None = None,
        detect_every: int = 12,
        min_score: float | None = None,
        memory: int = 25,
        recall: int = 250,
    ):
        self.aligner, self.tracking = aligner, aligner if tracking is None else tracking
        for model in (self.aligner, self.tracking, self.aligner if initial is None else initial):
            if not isinstance(model, Predictor):
                raise CanthusError(f"got {model!r} as an aligner, want what `canthus.load` gives")
        schemes = [model.card.scheme for model in (self.aligner, self.tracking)]
        if schemes[0] != schemes[1]:
            raise LandmarkError(f"got models for points of {schemes[0]} and of {schemes[1]}, want one scheme")
        for name, value in (("detect_every", detect_every), ("memory", memory), ("recall", recall)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
                raise CanthusError(f"got {name}={value!r}, want a number of frames, 0 or more")
        if min_score is not None and not (isinstance(min_score, Real) and np.isfinite(min_score)):
            raise CanthusError(f"got min_score={min_score!r}, want a number, or None")
        self.initial = initial
        self.detect_every, self.min_score = detect_every, min_score
        self.memory, self.recall = memory, recall
        self.reset()

    def reset(self) -> None:
        """Forget everyone, as before another video; numbers start at 0 again."""
        self._tracks: list[_Track] = []
        self._gone: list[_Track] = []
        self._size = 0, 0
        self._descriptor: np.ndarray | None = None
        self._since_search = 0
        self._next_id = 0
        self.reinitialisations = 0
        """How often a face that was known has been aligned anew from a detection."""

    def state(self) -> dict[str, np.ndarray]:
        """All that the tracker remembers, as arrays: `restore` goes on from there with the same results."""
        tracks = [*self._tracks, *self._gone]
        return {
            "size": np.array(self._size),
            "counts": np.array([self._since_search, self._next_id, self.reinitialisations, len(self._gone)]),
            "descriptor": np.zeros(0) if self._descriptor is None else self._descriptor,
            "id": np.array([t.id for t in tracks], int),
            "velocity": np.array([t.velocity for t in tracks]).reshape(-1, 2),
            "appearance": np.array([t.appearance for t in tracks]),
            "missing": np.array([(t.missing, t.hidden) for t in tracks], int).reshape(-1, 2),
            "followed": np.array([t.followed for t in tracks], bool),
            **{f"faces_{name}": value for name, value in faces_to_arrays([t.face for t in tracks]).items()},
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember what `state` gave. Raises `LandmarkError` for other arrays."""
        with decoding(LandmarkError, "got the state of something else, want that of a tracker"):
            width, height = state["size"].tolist()
            since, following, again, gone = state["counts"].tolist()
            faces = faces_from_arrays({n.removeprefix("faces_"): v for n, v in state.items() if n.startswith("faces_")})
            rows = zip(
                state["id"].tolist(),
                faces,
                state["velocity"],
                state["appearance"],
                state["missing"].tolist(),
                state["followed"],
                strict=True,
            )
            tracks = [
                _Track(number, face, speed, appearance, missing, hidden, bool(followed))
                for number, face, speed, appearance, (missing, hidden), followed in rows
            ]
            self._descriptor = state["descriptor"] if state["descriptor"].size else None
        self._tracks, self._gone = tracks[: len(tracks) - gone], tracks[len(tracks) - gone :]
        self._size = width, height
        self._since_search, self._next_id, self.reinitialisations = since, following, again

    def step(self, frame: ImageLike) -> TrackedFaces:
        """The faces in the next frame, as `Predictor.predict` takes one; empty where there are none.

        `detection_scores` are unknown but for faces that the detector saw in this frame. Raises `ImageError`.
        """
        picture = as_image(frame)
        size = picture.shape[1], picture.shape[0]
        self._since_search += 1
        for track in (*self._missing(), *self._gone):
            track.missing += 1
        cut = self._is_cut(picture) or size != self._size  # also in the first frame
        if cut:
            for track in self._present():
                track.missing, track.hidden = 1, 0
            self._gone += self._tracks
            self._size, self._tracks = size, []
        self._gone = [t for t in self._gone if t.missing <= self.recall]
        self._follow(picture)
        empty = not self._present()
        every = self.detect_every or (EMPTY_EVERY if empty else 0)
        thorough = cut or bool(every and self._since_search >= every * (1 if empty else THOROUGH))
        if thorough or empty or (every and self._since_search % every == 0):
            found = self.aligner.detector(picture) if thorough else self.aligner.detector.quick(picture)
            self._confirm(found)
            self._add(picture, found)
        if thorough:
            self._since_search = 0
        else:
            for lost in sorted(self._missing(), key=lambda t: t.missing)[:MAX_SEARCHES]:
                self._find_again(picture, lost)
        present = self._present()
        self._note_hidden(present)
        self._gone += [t for t in self._tracks if t.missing - t.hidden > self.memory]
        self._tracks = [t for t in self._tracks if t.missing - t.hidden <= self.memory]
        ids = np.array([t.id for t in present], int)
        followed = np.array([t.followed for t in present], bool)
        faces = Faces.concat([t.face for t in present], size, self.aligner.card.scheme)
        return TrackedFaces(faces, ids, followed)

    def _present(self) -> list[_Track]:
        return [t for t in self._tracks if not t.missing]

    def _missing(self) -> list[_Track]:
        return [t for t in self._tracks if t.missing]

    def _is_cut(self, picture: np.ndarray) -> bool:
        """Whether another shot begins with this picture. Frames without contrast are passed over."""
        before, now = self._descriptor, frame_descriptor(picture)
        if not has_contrast(now):
            return False
        self._descriptor = now
        return before is not None and is_cut(before, now)

    def _follow(self, picture: np.ndarray) -> None:
        """Align everyone who was there from where they were; the unhealthy become missing."""
        present = self._present()
        if not present:
            return
        last = Faces.concat([t.face for t in present], self._size)
        crop = self._crops(last)
        crops = crop_image(picture, crop)
        alignment = self.tracking.run_batches(crops)
        card = self.tracking.card
        faces = alignment.to_image(crop, self._size, scheme=card.scheme, weights=card.title)
        centres = box_centres(faces.boxes)
        growth = np.abs(np.log(np.maximum(faces.sizes, 1e-6) / last.sizes))
        inside = ((centres >= -0.5) & (centres < np.array(self._size) - 0.5)).all(1)
        least = MIN_PEAK if alignment.sigma is None else MIN_SCORE
        least = least if self.min_score is None else self.min_score
        healthy = (alignment.confidence() >= least) & (growth <= MAX_GROWTH) & inside
        looks = face_descriptors(crops)

        def surprise(k: int) -> float:
            """How far a face lies from where it was expected, in its size, and how much it looks otherwise."""
            away = centres[k] - present[k].expected(1)
            return float(np.linalg.norm(away) / last.sizes[k]) + difference(present[k].appearance, looks[k])

        for a, b in zip(*np.nonzero(np.triu(box_overlaps(faces.boxes, faces.boxes), 1) > SAME_FACE)):
            if healthy[a] and healthy[b]:  # one has jumped onto the other
                healthy[max(b, a, key=surprise)] = False
        for track, face, well, centre, seen in zip(present, faces, healthy, centres, looks):
            if well:
                track.appearance = track.appearance + APPEARANCE_RATE * (seen - track.appearance)
                track.velocity = (track.velocity + centre - box_centres(track.face.boxes)[0]) / 2
                track.face, track.followed = face, True
            else:
                track.missing, track.hidden = 1, 0

    def _note_hidden(self, present: list[_Track]) -> None:
        """Count the frames in which lost faces are behind others."""
        for track in self._missing() if present else ():
            x0, y0, x1, y1 = track.face.boxes[0]
            half = np.array([x1 - x0, y1 - y0]) / 2
            low, high = (track.expected(track.missing) + d for d in (-half, half))
            others = _boxes(present)
            shared = np.minimum(high, others[:, 2:]) - np.maximum(low, others[:, :2])
            track.hidden += bool((shared.clip(0).prod(1) >= COVERED * 4 * half.prod()).any())

    def _crops(self, last: Faces) -> Crop:
        return known_crops(last, self.tracking.card)

    def _aligned(self, picture: np.ndarray, detections: Detections) -> Faces:
        """Detected faces as the first model aligns them."""
        found = (self.initial or self.aligner).align_detected([picture], [detections])
        return (found if self.initial is None else self.aligner.align_known([picture], found))[0]

    def _find_again(self, picture: np.ndarray, lost: _Track) -> None:
        """Search for a missing face around where it should be; others that are found there are left alone."""
        reach = SEARCH_RADIUS * lost.face.sizes[0]
        centre = lost.expected(lost.missing)
        low, high = (np.clip(np.rint(centre + d), 0, self._size).astype(int) for d in (-reach, reach))
        if (high - low).min() < 2:
            return
        found = self.aligner.detector.quick(picture[low[1] : high[1], low[0] : high[0]]).moved(*low)
        self._add(picture, found.take(np.array(list(self._recognised(found.boxes)), int)))

    def _add(self, picture: np.ndarray, found: Detections) -> None:
        """Align detected faces that are not there yet: missing ones, and newcomers."""
        taken = box_overlaps(_boxes(self._present()), found.boxes).max(0, initial=0) >= MIN_OVERLAP
        if taken.all():
            return
        found = found.take(~taken)
        faces = self._aligned(picture, found.take(found.facing_score <= MOST_WANTED))
        if not len(faces):
            return
        known, seen = self._recognised(faces.boxes), face_descriptors(crop_image(picture, self._crops(faces)))
        recalled = self._recalled({k: seen[k] for k in range(len(faces)) if k not in known})
        for k, face in enumerate(faces):
            most = BESIDE if k in known and known[k].hidden else SAME_FACE
            if (box_overlaps(_boxes(self._present()), face.boxes) > most).any():
                continue
            if k in known or k in recalled:
                track = known[k] if k in known else recalled[k]
                track.face, track.missing, track.followed, track.velocity = face, 0, False, np.zeros(2)
                self.reinitialisations += 1
                if k in recalled:
                    self._gone = [t for t in self._gone if t is not track]
                    self._tracks = sorted([*self._tracks, track], key=lambda t: t.id)
            else:
                self._tracks.append(_Track(self._next_id, face, np.zeros(2), seen[k]))
                self._next_id += 1

    def _recalled(self, seen: dict[int, np.ndarray]) -> dict[int, _Track]:
        """Number of a newcomer -> the face that was gone and looks the same, most alike pairs first."""
        pairs = sorted(
            (difference(track.appearance, one), k, j) for j, track in enumerate(self._gone) for k, one in seen.items()
        )
        known: dict[int, int] = {}
        for distance, k, j in pairs:
            if distance <= MAX_DIFFERENCE and k not in known and j not in known.values():
                known[k] = j
        return {k: self._gone[j] for k, j in known.items()}

    def _confirm(self, found: Detections) -> None:
        """Give faces that are there the score of their detection; those that it disagrees with become missing."""
        if not len(found.scores):
            return
        present = self._present()
        shared = box_overlaps(_boxes(present), found.boxes)
        for track, row, others in zip(present, shared, (np.delete(shared, k, 0) for k in range(len(present)))):
            best = row.argmax()
            x0, y0, x1, y1 = track.face.boxes[0]
            x, y = box_centres(found.boxes[[best]])[0]
            if row[best] >= MIN_OVERLAP:
                track.face = replace(track.face, detection_scores=found.scores[[best]])
            elif x0 < x < x1 and y0 < y < y1 and others[:, best].max(initial=0) < MIN_OVERLAP:
                track.missing, track.hidden = 1, 0

    def _recognised(self, boxes: np.ndarray) -> dict[int, _Track]:
        """Number of a detection -> the missing face that it is taken for, nearest pairs first."""
        missing, centres = self._missing(), box_centres(boxes)
        pairs = sorted(
            (np.linalg.norm(centre - t.expected(t.missing)) / t.face.sizes[0], k, j)
            for j, t in enumerate(missing) for k, centre in enumerate(centres)
        )  # fmt: skip
        known: dict[int, _Track] = {}
        for distance, k, j in pairs:
            if distance < MAX_MATCH_DISTANCE and k not in known and missing[j] not in known.values():
                known[k] = missing[j]
        return known


def _boxes(tracks: Iterable[_Track]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 4)), *(t.face.boxes for t in tracks)])
