"""What a network says (`Alignment`, crop pixels) and what a user gets (`Faces`, image pixels)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from canthus.errors import BoxError, ImageError, LandmarkError, ModelError, amount, first_few
from canthus.face.expressions import EXPRESSIONS
from canthus.face.landmarks import can_convert, convert
from canthus.face.landmarks import scheme as find_scheme
from canthus.face.meshes import FaceMeshes
from canthus.face.morphable import MorphableModel
from canthus.face.pose import Pose, as_rotations, head_rotation
from canthus.face.surface import landmarks_on_heads, surface_map, surface_schemes
from canthus.face.uncertainty import scores_of
from canthus.geometry.camera import WeakPerspective
from canthus.geometry.crop import Crop, box_sizes, tight_boxes, within
from canthus.geometry.rotation import matrix_from_vector
from canthus.threads import blas_threads

MESH_ITERATIONS = 3
"""Rounds of the fit in `Faces.mesh`: more move no vertex by 0.01 % of the face size, as depth is known."""

ALIGNMENT_FIELDS = (
    "xyz", "sigma", "visible", "rotation", "coefficients", "placement", "score", "expression", "expression_sigma",
)  # fmt: skip
"""What of an `Alignment` one row a face is kept of, and exported."""

FACES_COLUMNS = ("xyz", "detection_scores", "sigma", "visible", "expression", "expression_sigma", "own_head")
"""The arrays of `Faces`, float32, with one row a face."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """What a network says about B face crops; arrays of NumPy or torch, in crop pixels.

    xyz: (B,L,3); x right, y down, z nearer the camera when larger, all in the same unit.
    sigma: (B,L), one standard deviation of the error along x and along y (isotropic), or None.
    visible: (B,L), probability 0..1 that the point can be seen, or None.
    rotation: (B,3,3), camera-from-head in right-handed axes with y up, or None.
    coefficients: (B,K) of the method's own face model: identity, then expression; or None.
    placement: (B,3) of that model: crop pixels a unit of it, and x and y of its origin; or None.
    score: (B,L), the method's own confidence 0..1, such as the peak of a heatmap, not calibrated; or None.
    expression: (B,52) coefficients in the order of `expressions.EXPRESSIONS`, 0 at rest and 1 full, or None.
    expression_sigma: (B,52), one standard deviation of the error of each, or None.
    steps: earlier xyz of the same shape, first to last.
    maps: what the network drew on the way (heatmaps, volumes, code images), each (B,...), first to last: losses and
    pictures want them, users do not.
    """

    xyz: Any
    sigma: Any = None
    visible: Any = None
    rotation: Any = None
    coefficients: Any = None
    placement: Any = None
    score: Any = None
    expression: Any = None
    expression_sigma: Any = None
    steps: tuple[Any, ...] = ()
    maps: tuple[Any, ...] = ()

    @classmethod
    def concat(cls, parts: Sequence[Alignment]) -> Alignment:
        """The faces of several alignments, at least one, of the same method; earlier steps and maps are left out."""
        columns = {name: [getattr(part, name) for part in parts] for name in ALIGNMENT_FIELDS}
        xp: Any = array_namespace(parts[0].xyz)
        joined: dict[str, Any] = {name: None if c[0] is None else xp.concat(c) for name, c in columns.items()}
        return cls(**joined)

    def map(self, change: Callable[[Any], Any]) -> Alignment:
        """Every field of ALIGNMENT_FIELDS that is there, changed; earlier steps and maps are left out."""
        given = {name: getattr(self, name) for name in ALIGNMENT_FIELDS}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in given.items()}
        return Alignment(**changed)

    def confidence(self) -> np.ndarray:
        """How sure the network is of each face, (B,) 0..1: the mean of `scores_of` its points. Without sigma it is the
        mean of its own score, whose scale differs from method to method; with neither it is 1."""
        if self.sigma is not None:
            return scores_of(_numpy(self.sigma), box_sizes(tight_boxes(_numpy(self.xyz)))).mean(1)
        return np.ones(len(self.xyz)) if self.score is None else _numpy(self.score).mean(1)

    def to_image(
        self,
        crop: Crop,
        image_size: tuple[int, int],
        *,
        scheme: str = "ibug68",
        detection_scores: Any = None,
        weights: str = "",
    ) -> Faces:
        """The same faces in the pixels of the image that `crop` was cut from, with mean z zero.

        `image_size` is (width, height); `scheme` is that of the landmarks; `detection_scores` (B,) of the boxes,
        unknown (NaN) if not given. Without a rotation from the network the pose is that of the mean head of the default
        morphable model. Points outside the image have visibility 0. Raises `LandmarkError` for another number of
        landmarks than the scheme has, `WeightsError` for a rotation that is none.
        """
        crop = Crop(_numpy(crop.center), _numpy(crop.side), _numpy(crop.angle), crop.size)
        xyz = crop.image_from_crop(_numpy(self.xyz))
        if self.rotation is None:
            rotation = head_rotation(convert(xyz, scheme, "ibug68")[0])
        else:
            # The crop's angle turns x towards y, which points down: with y up, a negative turn about z.
            turn = matrix_from_vector(crop.angle[:, None] * [0, 0, -1])
            rotation = turn @ as_rotations(_numpy(self.rotation))
        own_head = None
        if self.coefficients is not None and self.placement is not None:
            placement = _numpy(self.placement)
            origin = crop.image_from_crop(placement[:, None, 1:])[:, 0]
            own_head = np.concatenate([placement[:, :1] / crop.zoom[:, None], origin, _numpy(self.coefficients)], 1)
        unknown = np.full(xyz.shape[:2], np.nan)
        visible = unknown if self.visible is None else _numpy(self.visible)
        return Faces(
            xyz=xyz - [0, 0, 1] * xyz.mean(1, keepdims=True),
            detection_scores=unknown[:, 0] if detection_scores is None else _numpy(detection_scores),
            sigma=unknown if self.sigma is None else _numpy(self.sigma) / crop.zoom[:, None],
            visible=np.where(within(xyz, image_size) | np.isnan(visible), visible, 0.0),
            pose=Pose(rotation),
            image_size=image_size,
            scheme=scheme,
            weights=weights,
            expression=None if self.expression is None else _numpy(self.expression).clip(0, 1),
            expression_sigma=None if self.expression_sigma is None else _numpy(self.expression_sigma),
            own_head=own_head,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """N faces in one image; N may be 0. Iterating and indexing give `Faces` again.

    xyz: (N,L,3) float32, 0-based image pixels (an integer is a pixel centre): x right, y down; z in the same
    unit, larger = nearer the camera, mean zero over the landmarks of a face.
    detection_scores: (N,), 0..1, NaN where unknown.
    sigma: (N,L), one standard deviation of the error along x and along y, pixels; NaN where unknown.
    visible: (N,L), probability 0..1 that the point can be seen; NaN where unknown.
    image_size: (width, height). scheme: the landmark scheme, which has L points, 68 but for weights that say otherwise.
    weights: name and version of the weights' card.
    expression: (N,52) coefficients in the order of `expressions.EXPRESSIONS` from the network, 0 at rest and 1
    full; NaN where unknown. expression_sigma: (N,52), one standard deviation of the error of each.
    own_head: (N,3+K) of weights that fit a head model themselves: pixels a unit of the model, x and y of its origin,
    identity and expression; (N,0) of others. With `pose` that is a camera and a head, see `mesh`.
    Raises `LandmarkError`, `BoxError` or `ImageError` for parts whose shapes or values do not fit.
    """

    xyz: np.ndarray
    detection_scores: np.ndarray
    sigma: np.ndarray
    visible: np.ndarray
    pose: Pose
    image_size: tuple[int, int]
    scheme: str = "ibug68"
    weights: str = ""
    expression: Any = None  # None is all NaN
    expression_sigma: Any = None
    own_head: Any = None  # None is (N,0)

    def __post_init__(self) -> None:
        if self.own_head is None:
            object.__setattr__(self, "own_head", np.zeros((len(self.xyz), 0)))
        for name in ("expression", "expression_sigma"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full((len(self.xyz), len(EXPRESSIONS)), np.nan))
        for name in FACES_COLUMNS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        width, height = (int(side) for side in self.image_size)
        object.__setattr__(self, "image_size", (width, height))
        count = find_scheme(self.scheme).count
        if self.xyz.ndim != 3 or self.xyz.shape[1:] != (count, 3):
            raise LandmarkError(f"got landmarks of shape {self.xyz.shape}, want (N, {count}, 3)")
        if not np.isfinite(self.xyz).all():
            raise LandmarkError("got landmarks with NaN or infinity, want finite pixels")
        for name in ("sigma", "visible"):
            shape = getattr(self, name).shape
            if shape != self.xyz.shape[:2]:
                raise LandmarkError(f"got {name} of shape {shape}, want {self.xyz.shape[:2]}")
        for name in ("expression", "expression_sigma"):
            shape = getattr(self, name).shape
            if shape != (len(self), len(EXPRESSIONS)):
                raise LandmarkError(f"got {name} of shape {shape}, want {(len(self), len(EXPRESSIONS))}")
        if self.own_head.ndim != 2 or len(self.own_head) != len(self) or not np.isfinite(self.own_head).all():
            raise LandmarkError(f"got own heads of shape {self.own_head.shape}, want finite numbers, one row a face")
        if ((self.expression < 0) | (self.expression > 1)).any():
            raise LandmarkError("got an expression coefficient outside 0 to 1, want 0 to 1, or NaN")
        if (self.sigma < 0).any() or np.isinf(self.sigma).any():
            raise LandmarkError("got a negative or infinite sigma, want standard deviations in pixels, or NaN")
        if ((self.visible < 0) | (self.visible > 1)).any():
            raise LandmarkError("got a visibility outside 0 to 1, want probabilities, or NaN")
        if len(self.pose) != len(self):
            raise LandmarkError(
                f"got {amount(len(self.pose), 'pose')} for {amount(len(self), 'face')}, want one a face"
            )
        if self.detection_scores.shape != (len(self),):
            got = self.detection_scores.shape
            raise BoxError(f"got detection scores of shape {got} for {amount(len(self), 'face')}, want one a face")
        if ((self.detection_scores < 0) | (self.detection_scores > 1)).any():
            raise BoxError("got a detection score outside 0 to 1, want probabilities, or NaN")
        if width < 1 or height < 1:
            raise ImageError(f"got an image of {width}x{height} px, want at least 1x1")

    @classmethod
    def empty(cls, image_size: tuple[int, int], scheme: str = "ibug68") -> Faces:
        """No face in an image of `image_size` (width, height)."""
        points = np.zeros((0, find_scheme(scheme).count, 3))
        unknown, pose = points[..., 0], Pose(np.zeros((0, 3, 3)))
        return cls(points, np.zeros(0), unknown, unknown, pose, image_size, scheme)

    @classmethod
    def concat(cls, parts: Sequence[Faces], image_size: tuple[int, int], scheme: str = "ibug68") -> Faces:
        """The faces of several `Faces` of one image of `image_size` (width, height) as one; none gives no face, of
        `scheme`.

        Faces of different weights name all of these. Raises `LandmarkError` if they are not of one landmark scheme.
        """
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.empty(image_size, scheme)
        schemes = {part.scheme for part in parts}
        if len(schemes) > 1:
            raise LandmarkError(f"got faces of the schemes {', '.join(sorted(schemes))}, want one scheme")
        if len({part.own_head.shape[1] for part in parts}) > 1:  # of different models: each mesh is fitted anew
            parts = [replace(part, own_head=None) for part in parts]
        columns: dict[str, Any] = {n: np.concatenate([getattr(part, n) for part in parts]) for n in FACES_COLUMNS}
        pose = Pose(np.concatenate([part.pose.matrix for part in parts]))
        weights = ", ".join(dict.fromkeys(part.weights for part in parts))
        return cls(**columns, pose=pose, image_size=image_size, scheme=parts[0].scheme, weights=weights)

    def __len__(self) -> int:
        return len(self.xyz)

    def __repr__(self) -> str:
        width, height = self.image_size
        about = f"{width}x{height} px, {self.scheme}" + (f", {self.weights}" if self.weights else "")
        sizes = first_few((f"{size:.0f} px" for size in self.sizes), 5)
        return f"Faces({len(self)} in {about}{': ' if sizes else ''}{sizes})"

    def _repr_html_(self) -> str:
        """The landmarks on an empty picture, for notebooks; the picture itself is not kept. See `draw.overlay`."""
        width, height = self.image_size
        dot = max(width, height) / 400
        points = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{dot:.2f}"/>' for x, y in self.xy.reshape(-1, 2))
        view = f"-0.5 -0.5 {width} {height}"
        style = "max-width:480px;width:100%;max-height:480px;background:#222;fill:#4fd"
        return f'<div>{escape(repr(self))}</div><svg viewBox="{view}" style="{style}">{points}</svg>'

    def __getitem__(self, index: int | slice | np.ndarray | list[int]) -> Faces:
        """The faces at `index` (number, slice, mask or numbers), always as `Faces`."""
        if isinstance(index, int | np.integer):
            index = np.arange(len(self))[[index]]
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in FACES_COLUMNS}
        return replace(self, **columns, pose=Pose(self.pose.matrix[index]))

    def __iter__(self) -> Iterator[Faces]:
        return (self[index] for index in range(len(self)))

    @property
    def xy(self) -> np.ndarray:
        """The landmarks in the image plane, (N,L,2) pixels."""
        return self.xyz[..., :2]

    @property
    def boxes(self) -> np.ndarray:
        """The tight boxes (N,4) = (x0, y0, x1, y1) around the landmarks, pixels."""
        return tight_boxes(self.xyz)

    @property
    def sizes(self) -> np.ndarray:
        """The face sizes (N,) = sqrt(width * height) of the boxes, pixels."""
        return box_sizes(self.boxes)

    @property
    def scores(self) -> np.ndarray:
        """Probability (N,L) that a point lies within 5 % of the face size of the truth; NaN where sigma is."""
        return scores_of(self.sigma, self.sizes)

    def scaled(self, scale: float, shift: tuple[float, float], image_size: tuple[int, int]) -> Faces:
        """The same faces in an image of `image_size` (width, height), in which the pixel (x, y) of this one is at
        (scale * x + shift[0], scale * y + shift[1]); z and sigma are scaled too."""
        if scale == 1 and tuple(shift) == (0, 0) and image_size == self.image_size:
            return self
        return replace(
            self,
            xyz=self.xyz.astype(np.float64) * scale + [*shift, 0],
            sigma=self.sigma * scale,
            own_head=self._own_head_scaled(scale, shift),
            image_size=image_size,
        )

    def _own_head_scaled(self, scale: float, shift: tuple[float, float]) -> np.ndarray:
        head = self.own_head.copy()
        head[:, :3] *= scale
        head[:, 1:3] += shift if head.shape[1] else 0
        return head

    def landmarks(self, scheme: str = "ibug68") -> np.ndarray:
        """The landmarks in another scheme, (N,M,3) image pixels, z as of `xyz`; NaN for points that this one cannot
        give.

        Where a map leads from this scheme to the other, by `landmarks.convert`; WFLW 98, LaPa 106 and MediaPipe 478
        have places on a head that is fitted to the landmarks (`surface`). `landmark_quality` tells how good each is.
        Raises `LandmarkError` for a scheme that is unknown or that neither leads to.
        """
        if self._on_head(scheme):
            xyz = self.converted().xyz.astype(np.float64)
            return landmarks_on_heads(self.mesh(), xyz, scheme, self.expression).astype(np.float32)
        return convert(self.xyz, self.scheme, scheme)[0]

    def landmark_quality(self, scheme: str) -> np.ndarray:
        """How good the points of `landmarks(scheme)` are: (M,) words of `landmarks.QUALITIES`. Raises as it does."""
        if self._on_head(scheme):
            return surface_map(scheme).quality
        return convert(np.zeros((self.xyz.shape[1], 2)), self.scheme, scheme)[1]

    def _on_head(self, scheme: str) -> bool:
        return not can_convert(self.scheme, scheme) and scheme in surface_schemes()

    def converted(self, scheme: str = "ibug68") -> Faces:
        """The same faces with the points of another scheme, whose mean z is 0; sigma and visibility of a point between
        others are their mean in the map's weights, and NaN of a point from a fitted head that is no landmark of this
        scheme. Raises `LandmarkError` as `landmarks`, and for a scheme of which points are missing."""
        if scheme == self.scheme:
            return self
        pairs = (np.stack([values, values], -1) for values in (self.sigma, self.visible))
        if self._on_head(scheme):
            own = surface_map(scheme).landmark
            known = (convert(pair, self.scheme, "ibug68")[0][..., 0] for pair in pairs)
            sigma, visible = (np.where(own >= 0, values[:, own], np.nan) for values in known)
        else:
            sigma, visible = (convert(pair, self.scheme, scheme)[0][..., 0] for pair in pairs)
        xyz = self.landmarks(scheme)
        xyz[..., 2] -= xyz[..., 2].mean(1, keepdims=True)
        return replace(self, xyz=xyz, sigma=sigma, visible=visible.clip(0, 1), scheme=scheme)

    def mesh(self, model: MorphableModel | None = None) -> FaceMeshes:
        """Whole heads: `model` (None: the default one) fitted to the landmarks, each weighted by 1 / sigma^2.

        Computed again at each call. Landmarks of unknown sigma weigh as much as the average one. Of weights that
        fit a head themselves, that head (`own_head`) is used if the model has as many coefficients as theirs.
        Raises `ModelError` for what is no head model.
        """
        model = MorphableModel.default() if model is None else model
        if not isinstance(model, MorphableModel):
            raise ModelError(f"got {type(model).__name__} for a head model, want a MorphableModel")
        if self.own_head.shape[1] == 3 + len(model.identity) + len(model.expression):
            return self._own_mesh(model)
        with blas_threads(1):
            faces = self.converted()
            fit = model.fit(faces.xyz, faces.fit_weights(), iterations=MESH_ITERATIONS)
            identity, expression = fit.identity.astype(np.float32), fit.expression.astype(np.float32)
            vertices = fit.camera.project(model.vertices(identity, expression))
        vertices[..., 2] -= model.at_landmarks(vertices[..., 2:]).mean(1)
        return FaceMeshes(vertices, model, fit.identity, fit.expression, fit.camera, self.image_size)

    def _own_mesh(self, model: MorphableModel) -> FaceMeshes:
        placement, identity, expression = np.split(self.own_head, [3, 3 + len(model.identity)], axis=1)
        placement = placement.astype(np.float64)
        camera = WeakPerspective(self.pose.matrix, placement[:, 0], placement[:, 1:])
        vertices = camera.project(model.vertices(identity, expression))
        vertices[..., 2] -= model.at_landmarks(vertices[..., 2:]).mean(1)
        return FaceMeshes(vertices, model, identity, expression, camera, self.image_size)

    def fit_weights(self) -> np.ndarray:
        """1 / sigma^2 (N,L), scaled to a mean of 1; no point counts as surer than 0.2 % of the face size."""
        precision = np.maximum(self.sigma, 0.002 * self.sizes[:, None] + 1e-6).astype(float) ** -2
        known = np.isfinite(precision)
        total = np.where(known, precision, 0).sum(1, keepdims=True)
        mean = total / np.maximum(known.sum(1, keepdims=True), 1)
        return np.where(known, precision / np.where(mean > 0, mean, 1), 1.0)


@dataclass(frozen=True, eq=False)
class TrackedFaces:
    """The faces of one frame of a video, as `Tracker.step` gives them.

    faces: the N faces, in the order of their numbers. ids: (N,) int, the number of each face, the same through the
    whole video. followed: (N,) bool, whether a face was followed from the frame before; the detector found the others.
    """

    faces: Faces
    ids: np.ndarray
    followed: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.asarray(self.ids, int))
        object.__setattr__(self, "followed", np.asarray(self.followed, bool))
        if not self.ids.shape == self.followed.shape == (len(self.faces),):
            got = f"{self.ids.shape} and {self.followed.shape}"
            raise LandmarkError(
                f"got ids and followed of shapes {got} for {amount(len(self.faces), 'face')}, want one a face"
            )

    def __len__(self) -> int:
        return len(self.faces)


def _numpy(array: Any) -> np.ndarray:
    """A NumPy array of doubles, from either kind of array and any precision."""
    return np.asarray(array.detach().cpu().double() if hasattr(array, "detach") else array, np.float64)
