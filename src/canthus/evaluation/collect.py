"""Running a predictor over the faces of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from canthus.data.formats import FaceSample
from canthus.errors import CanthusError, LandmarkError
from canthus.evaluation import boxes as box_rules
from canthus.evaluation.predictions import Predictions
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.landmarks import convert
from canthus.face.landmarks import scheme as find_scheme
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose
from canthus.geometry.crop import Crop
from canthus.inference.predictor import Predictor
from canthus.inference.tracker import Tracker
from canthus.io.card import Card
from canthus.io.images import as_image, crop_image

BOXES = ("true", "own", "detected", "jittered", "aligned", "tracked")
CHUNK = 16  # photos in memory

Change = Callable[[int, np.ndarray, np.ndarray], np.ndarray]  # number, image, box -> image
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Progress that is not shown."""


def true_boxes(samples: Sequence[FaceSample]) -> np.ndarray:
    """The boxes (N,4) around the true 68 landmarks; of a set without landmarks, its own boxes."""
    known = [np.isfinite(s.points).any() for s in samples]
    boxes = [box_rules.tight_box(s.points, s.scheme) if k else s.box for s, k in zip(samples, known)]
    return np.array([np.full(4, np.nan) if b is None else b for b in boxes]).reshape(-1, 4)


def own_boxes(samples: Sequence[FaceSample]) -> np.ndarray:
    """The boxes (N,4) that a set comes with, in the measure of those around true landmarks. Raises `CanthusError` for a
    set without."""
    if any(s.box is None for s in samples):
        raise CanthusError("got a set that comes without boxes of its own, want another choice of boxes")
    return box_rules.own(np.array([s.box for s in samples], np.float64), true_boxes(samples))


def collect(
    predictor: Predictor,
    samples: Sequence[FaceSample],
    boxes: str = "true",
    progress: Progress = silent,
    tracking: Predictor | None = None,
    initial: Predictor | None = None,
) -> Predictions:
    """The predictor's answers for all faces.

    boxes: "true", around the true landmarks; "own", those that the set comes with, see `boxes.own`; "detected", the
    predictor finds faces itself and the one whose centre is nearest to the true one's counts, unless it is farther away
    than the face is large; "jittered", see `boxes.jittered`; "aligned", crops by the similarity that lays the true
    landmarks on the mean shape, as `aligned_crops`; "tracked", the samples are frames of videos, which a `Tracker`
    follows, going on from frame to frame by `tracking`, begun by `initial`, and what counts is as for "detected".
    """
    if boxes not in BOXES:
        raise CanthusError(f"got the boxes '{boxes}', want one of {', '.join(BOXES)}")
    true = true_boxes(samples)
    if boxes == "detected":
        found = _detected(predictor, samples, true, progress)
    elif boxes == "aligned":
        found = _aligned(predictor, samples, true, progress)
    elif boxes == "tracked":
        found = _tracked(Tracker(predictor, tracking, initial=initial), samples, true, progress)
    else:
        given = {"own": own_boxes, "jittered": lambda _: box_rules.jittered(true)}.get(boxes, lambda _: true)(samples)
        found = collect_from(predictor, samples, given, progress)
    wanted = any(s.expression is not None for s in samples) and np.isnan(found.expression).all()
    return _with_expressions(found) if wanted else found


def _with_expressions(found: Predictions) -> Predictions:
    """With expression coefficients of the default head model, fitted to the points as `Faces.mesh` does, if the network
    gives none: 30 ms a face, so only where the labels have them too."""
    faces = Faces(
        found.xyz, np.full(len(found), np.nan), found.sigma, found.visible, Pose(found.rotation), (1, 1),
        found.scheme,
    )  # fmt: skip
    fitted = [face.mesh().expression[0] for face in faces]
    return replace(found, expression=np.array(fitted).reshape(len(found), len(EXPRESSIONS)))


def collect_from(
    predictor: Predictor,
    samples: Sequence[FaceSample],
    boxes: np.ndarray,
    progress: Progress = silent,
    change: Change | None = None,
) -> Predictions:
    """The answers for given boxes (N,4); `change` corrupts the pictures first."""
    found: list[Faces] = []
    for start in range(0, len(samples), CHUNK):
        part = range(start, min(start + CHUNK, len(samples)))
        pictures = [picture_of(samples[k]) for k in part]
        if change:
            pictures = [change(k, picture, boxes[k]) for k, picture in zip(part, pictures)]
        found += predictor.predict_many(pictures, [boxes[k] for k in part])
        progress(part.stop, len(samples))
    return _joined(predictor, [s.name for s in samples], found, boxes)


def aligned_crops(samples: Sequence[FaceSample], card: Card) -> Crop:
    """The crops (N) of weights that the similarity of the true landmarks to the mean shape gives, without any scale or
    roll of the face's own: how "Combining Local and Global Features for 3D Face Tracking" (ICCV Workshops 2017) cuts
    training and test pictures.

    The mean shape is that of the card, or the default head's from the front. Raises `LandmarkError` for labels that do
    not give all 68 points.
    """
    mean = card.mean_shape or MorphableModel.default().frontal_shape(card.crop_scale)
    points = np.stack([convert(s.points[:, :2].astype(np.float64), s.scheme, "ibug68")[0] for s in samples])
    if not np.isfinite(points).all():
        raise LandmarkError("got labels that lack some of the 68 points, want all for aligned crops")
    return Crop.around_shapes(points, np.asarray(mean, np.float64), card.crop_size)


def _aligned(predictor: Predictor, samples: Sequence[FaceSample], true: np.ndarray, progress: Progress) -> Predictions:
    crops, found = aligned_crops(samples, predictor.card), []
    for k, sample in enumerate(samples):
        picture, crop = picture_of(sample), crops[k : k + 1]
        aligned = predictor.run_batches(crop_image(picture, crop))
        size, card = (picture.shape[1], picture.shape[0]), predictor.card
        found.append(aligned.to_image(crop, size, scheme=card.scheme, weights=card.title))
        progress(k + 1, len(samples))
    return _joined(predictor, [s.name for s in samples], found, true)


def _detected(predictor: Predictor, samples: Sequence[FaceSample], true: np.ndarray, progress: Progress) -> Predictions:
    names, found = [], []
    for k, sample in enumerate(samples):
        faces = predictor.predict(picture_of(sample))
        which = box_rules.nearest(faces.boxes, true[k])
        if which is not None:
            names.append(sample.name)
            found.append(faces[which])
        progress(k + 1, len(samples))
    boxes = np.array([f.boxes[0] for f in found]).reshape(-1, 4)
    return _joined(predictor, names, found, boxes)


def _tracked(tracker: Tracker, samples: Sequence[FaceSample], true: np.ndarray, progress: Progress) -> Predictions:
    names, found, restarted, video, seen = [], [], [], None, False
    for k, sample in enumerate(samples):
        now = sample.name.rpartition("/")[0]
        if now != video:
            tracker.reset()
            video, seen = now, False
        tracked = tracker.step(picture_of(sample))
        which = box_rules.nearest(tracked.faces.boxes, true[k])
        if which is not None:
            names.append(sample.name)
            found.append(tracked.faces[which])
            restarted.append(seen and not tracked.followed[which])
            seen = True
        progress(k + 1, len(samples))
    boxes = np.array([f.boxes[0] for f in found]).reshape(-1, 4)
    return _joined(tracker.aligner, names, found, boxes, np.array(restarted, float))


def _joined(
    predictor: Predictor,
    names: Sequence[str],
    found: Sequence[Faces],
    boxes: np.ndarray,
    restarted: np.ndarray | None = None,
) -> Predictions:
    def of(field: Callable[[Faces], np.ndarray], *shape: int) -> np.ndarray:
        return np.array([field(f)[0] for f in found], np.float64).reshape(len(found), *shape)

    scheme = predictor.card.scheme
    points = find_scheme(scheme).count
    return Predictions(
        names, of(lambda f: f.xyz, points, 3), boxes, of(lambda f: f.sigma, points), of(lambda f: f.visible, points),
        of(lambda f: f.pose.matrix, 3, 3), restarted, of(lambda f: f.expression, len(EXPRESSIONS)),
        of(lambda f: f.expression_sigma, len(EXPRESSIONS)), scheme=scheme, system=predictor.card.title,
    )  # fmt: skip


def picture_of(sample: FaceSample) -> np.ndarray:
    """The photo of a face, (H,W,3) uint8 RGB. Raises `ImageError`."""
    return as_image(sample.image)
