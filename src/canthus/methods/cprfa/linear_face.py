"""A morphable model inside a network: coefficients and pose to points, and points back to coefficients and pose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from canthus.face.morphable import MorphableModel
from canthus.geometry.rotation import euler_from_matrix, matrix_from_6d
from canthus.methods.cprfa.pncc import encode_vertices

GROWN = 0.25
"""The face is what lies within the landmarks' box, grown by this share of its sides; what is behind is skull."""
NOISE_OF_LANDMARKS, NOISE_OF_VERTICES = 0.006, 0.001
"""Standard deviations of the points that shapes are solved from, in half crops: the prior has one of 1."""
MOST = 3.0
"""Standard deviations of identity that `LinearFace.bounded` leaves."""
REFINED = 2
"""How often `LinearFace.fitted` turns the head again after its shape is known."""
STIFFNESS, SPLITS = 10.0, 30
"""Of the alternating directions of `LinearFace.bounded`: penalty, and rounds, after which landmarks are within 0.01 %
of the face of where they end."""
TURNS = (1.0, -1.0, -1.0)
"""Senses of rx, ry, rz against those of the Euler set "opencv", which is Rz Ry Rx in axes with y down."""


class PartOfFace(NamedTuple):
    """Points of a `LinearFace`: their mean (...,3) and modes (K,3P)."""

    mean: Tensor
    modes: Tensor
    coefficients: int  # K

    def shape(self, state: Tensor) -> Tensor:
        """The points (B,...,3) of states (B,K+6) at rest in the middle, eq. 1."""
        return self.mean + (state[:, : self.coefficients] @ self.modes).unflatten(1, self.mean.shape)


class LinearFace(nn.Module):
    """States (B,K+6) = (shape and expression, rx, ry, rz, s, tx, ty) as points in half crops from the crop's middle.

    The unit makes the mean face seen from the front fill its crop at the state (0, ..., 0, 1, 0, 0). Coefficients are
    in standard deviations, those of a blendshape as if its weights were spread evenly over their range.
    Points are the model's V vertices and after them its 68 landmarks; x right, y up, z nearer.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor
    bounds: Tensor
    axes: Tensor
    triangles: Tensor
    drawn: Tensor
    region: Tensor
    codes: Tensor
    from_all: Tensor
    from_landmarks: Tensor
    affine: Tensor
    leverage: Tensor
    towards: Tensor
    kept: Tensor

    def __init__(self, model: MorphableModel, crop_scale: float):
        super().__init__()
        marks = model.landmarks()[0].astype(np.float64)
        low, high = marks.min(0), marks.max(0)
        self.unit = float(crop_scale * (high - low)[:2].max() / 2)  # of the model, in a half crop
        self.centre = tuple(((low + high) / 2).tolist())  # of the model's landmarks, which lies in the middle
        self.vertices, self.identities = len(model.mean), len(model.identity)
        bounds = model.expression_bounds.astype(np.float64)
        weights = np.where(bounds[:, 0] < 0, 1.0, np.ptp(bounds, axis=1) / np.sqrt(12))
        spread = np.concatenate([np.ones(self.identities), weights])
        limits = np.concatenate([np.tile([-MOST, MOST], (self.identities, 1)), bounds / weights[:, None]])
        modes = np.concatenate([model.identity, model.expression]) * (spread / self.unit)[:, None, None]
        mean = (model.mean - (low + high) / 2) / self.unit
        mean, modes = (np.concatenate([a, model.at_landmarks(a)], axis=-2) for a in (mean, modes))
        self.coefficients = len(modes)
        skin = model.parts.get("skin", slice(0, len(model.triangles)))
        grown = GROWN * (high - low)
        inside = ((model.mean >= low - grown) & (model.mean <= high + grown)).all(1)
        drawn = inside[model.triangles].all(1)
        drawn[: skin.start], drawn[skin.stop :] = False, False
        region = np.unique(model.triangles[drawn])
        codes = np.full((self.vertices, 3), 0.5)
        codes[region] = encode_vertices(mean[region])
        marked = mean[-68:] - mean[-68:].mean(0)
        inertia = (marked**2).sum() * np.eye(3) - marked.T @ marked
        shown = modes[:, -68:].reshape(len(modes), -1)
        information = shown @ shown.T / NOISE_OF_LANDMARKS**2 + np.eye(len(modes))
        split = np.linalg.inv(information + STIFFNESS * np.eye(len(modes)))
        one = np.eye(3)
        axis = one[:, :, None] * one[:, None]
        axes = np.stack([axis, one - axis, np.cross(one[:, None], one[None]).swapaxes(1, 2)])
        for name, value in {
            "axes": axes, "mean": mean, "basis": modes, "spread": spread, "bounds": limits.T,
            "triangles": model.triangles.astype(np.int64),
            "drawn": drawn, "region": region.astype(np.int64), "codes": codes,
            "from_all": _solver(mean, modes, NOISE_OF_VERTICES**2, len(model.mean) / 68),
            "from_landmarks": _solver(mean[-68:], modes[:, -68:], NOISE_OF_LANDMARKS**2),
            "affine": np.linalg.pinv(marked).T, "leverage": np.linalg.inv(inertia),
            "towards": information @ split, "kept": STIFFNESS * split,
        }.items():  # fmt: skip
            tensor = torch.as_tensor(value)
            self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor, persistent=False)

    def start(self, count: int) -> Tensor:
        """The mean face from the front, `count` times."""
        state = self.mean.new_zeros(count, self.coefficients + 6)
        state[:, -3] = 1
        return state

    def part(self, ids: Tensor | slice) -> PartOfFace:
        """Some of the points, in any shape; gathering their modes costs more than using them."""
        return PartOfFace(self.mean[ids], self.basis[:, ids].flatten(1), self.coefficients)

    def shape(self, state: Tensor, ids: Tensor | slice = slice(None)) -> Tensor:
        """Points (B,V+68,3) of the face at rest in the middle, eq. 1; `ids` picks some of them, in any shape."""
        return self.part(ids).shape(state)

    def bounded(self, state: Tensor) -> Tensor:
        """States (B,K+6) whose coefficients are within what heads have: three standard deviations of identity, and the
        bounds of the expressions.

        They are the nearest ones by what landmarks show and the prior wants, so that others make up for those that
        reach a bound; cut one by one, coefficients would move landmarks four times as far. By alternating directions
        (Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011, section 5): products with
        constant matrices, so that exported networks can do it.
        """
        coefficients, pose = state[:, : self.coefficients], state[:, self.coefficients :]
        wanted = coefficients @ self.towards
        inside = torch.minimum(torch.maximum(coefficients, self.bounds[0]), self.bounds[1])
        owed = torch.zeros_like(inside)
        for _ in range(SPLITS):
            free = wanted + (inside - owed) @ self.kept + owed
            inside = torch.minimum(torch.maximum(free, self.bounds[0]), self.bounds[1])
            owed = free - inside
        return torch.cat([inside, pose], dim=1)

    def rotation(self, state: Tensor) -> Tensor:
        """Rz Ry Rx (...,3,3) of states (...,K+6), camera-from-head; each e e' + cos (1 - e e') + sin [e]x for an axis
        e."""
        angles = state[..., -6:-3, None, None]
        x, y, z = (self.axes[0] + angles.cos() * self.axes[1] + angles.sin() * self.axes[2]).unbind(-3)
        return z @ y @ x

    def flat(self, shape: Tensor, state: Tensor) -> Tensor:
        """Points (...,P,3) under the pose of states (...,K+6) in the plane of the image (...,P,2), eq. 2."""
        turned = shape @ self.rotation(state)[..., :2, :].transpose(-1, -2)
        return state[..., -3:-2, None] * turned + state[..., None, -2:]

    def project(self, shape: Tensor, state: Tensor) -> Tensor:
        """The same with their depth, (...,P,3)."""
        turned = state[..., -3:-2, None] * (shape @ self.rotation(state).transpose(-1, -2))
        return turned + functional.pad(state[..., -2:], (0, 1))[..., None, :]

    def pose(self, rotation: Tensor, scale: Tensor, shift: Tensor, coefficients: Tensor) -> Tensor:
        """The state (B,K+6) of a rotation (B,3,3), a scale (B,), a shift (B,2) and coefficients (B,K)."""
        angles = euler_from_matrix(rotation, "opencv") * rotation.new_tensor(TURNS)
        return torch.cat([coefficients, angles, scale[:, None], shift], dim=1)

    def solve(self, points: Tensor, rotation: Tensor) -> Tensor:
        """The state (B,K+6) that puts the face where it is, given the rotation (B,3,3).

        points: all vertices and then the 68 landmarks (B,V+68,3), which count as much as all vertices, or the
        landmarks alone (B,68,3), which leave most of the shape to the prior. With the head turned back, they are
        s mean + (s alpha) basis + t: linear in s, s alpha and t, so least squares is one product with a matrix. Points
        of the model give their coefficients back to 0.01.
        """
        solver = self.from_landmarks if points.shape[1] == 68 else self.from_all
        back = (points @ rotation).flatten(1)  # rows times R = R^T times columns
        found = back @ solver.T
        scale, shift = found[:, 0], (found[:, None, -3:] @ rotation.transpose(1, 2))[:, 0, :2]
        return self.pose(rotation, scale, shift, found[:, 1:-3] / scale[:, None])

    def fitted(self, state: Tensor, points: Tensor, there: Tensor) -> Tensor:
        """The state (B,K+6) that lays the landmarks on points (B,68,3) whose depth has any offset; points that are not
        `there` (B,68) are taken from the state (B,K+6) before.

        The affine map from the mean landmarks to the points, its first two columns made orthonormal, is the rotation
        for `solve`; where the solved landmarks still miss them by a turn, it is turned on and solved again. Products
        with constant matrices, so that exported networks can do it.
        """
        before = self.project(self.shape(state, slice(-68, None)), state)
        weight = there[..., None].to(points.dtype)
        offset = ((before - points)[..., 2:] * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        points = torch.where(there[..., None], points + functional.pad(offset, (2, 0)), before)
        columns = points.transpose(1, 2) @ self.affine
        found = self.solve(points, _from_columns(columns))
        for _ in range(REFINED):
            found = self.solve(points, self._turned(found, points))
        return found

    def _turned(self, state: Tensor, points: Tensor) -> Tensor:
        """The rotations (B,3,3) of states, turned on by what their landmarks miss points (B,68,3) by: torque over the
        mean landmarks' moment of inertia."""
        rotation, marks = self.rotation(state), self.shape(state, slice(-68, None))
        missed = (points - self.project(marks, state)) @ rotation  # seen from the head
        missed = missed - missed.mean(1, keepdim=True)
        torque = torch.linalg.cross(marks - marks.mean(1, keepdim=True), missed).sum(1)
        turn = torque @ self.leverage / state[:, -3:-2]
        return _from_columns(rotation + torch.linalg.cross(rotation, turn[:, None]))

    def laid(self, points: Tensor, rotation: Tensor, modes: Tensor) -> Tensor:
        """The state (B,K+6) of a head whose coefficients are known, as lengths `modes` (B,K) (`FaceSample.modes`), that
        lays its 68 landmarks on points (B,68,3) under a rotation (B,3,3).

        Scale and shift are least squares. The order and directions of the modes have to be those of the labels' model;
        how a file scales them does not matter.
        """
        lengths = self.basis[:, -68:].flatten(1).norm(dim=1) * self.unit
        coefficients = torch.where(lengths > 0, modes / lengths.clamp(min=1e-12), 0.0)  # some move no landmark
        still = torch.cat([coefficients, coefficients.new_zeros(len(modes), 6)], dim=1)
        turned = self.shape(still, slice(-68, None)) @ rotation.transpose(1, 2)
        middles = [p.mean(1, keepdim=True) for p in (turned, points)]
        ours, theirs = turned - middles[0], points - middles[1]
        scale = (ours * theirs).sum((1, 2)) / (ours**2).sum((1, 2))
        shift = (middles[1] - scale[:, None, None] * middles[0])[:, 0, :2]
        return self.pose(rotation, scale, shift, coefficients)


def _from_columns(matrix: Tensor) -> Tensor:
    """The rotation (B,3,3) whose first two columns are nearly those of matrices (B,3,3)."""
    return matrix_from_6d(matrix[..., :2].transpose(1, 2).flatten(1))


def _solver(mean: np.ndarray, modes: np.ndarray, prior: float, marks: float = 1.0) -> np.ndarray:
    """Least squares (1+K+3, 3P) for s, s alpha and t, with `prior` times |s alpha|^2 added to the squared error. The
    last 68 of the P points count `marks` times."""
    shifts = np.tile(np.eye(3), (len(mean), 1))
    design = np.concatenate([mean.reshape(-1, 1), modes.reshape(len(modes), -1).T, shifts], axis=1)
    ridge = np.diag([0.0] + [prior] * len(modes) + [0.0] * 3)
    weighed = design.T * np.repeat(np.r_[np.ones(len(mean) - 68), np.full(68, marks)], 3)
    return np.linalg.solve(weighed @ design + ridge, weighed)


def normalised(points: Tensor, size: int) -> Tensor:
    """Crop pixels (...,2 or 3) as half crops from the middle, y up."""
    flip = points.new_tensor([1.0, -1.0, 1.0])[: points.shape[-1]]
    shift = points.new_tensor([1.0, 1.0, 0.0])[: points.shape[-1]]
    return ((2 * points + shift) / size - shift) * flip


def pixels(points: Tensor, size: int) -> Tensor:
    """Crop pixels (...,2 or 3) of points in half crops, y up: the inverse of `normalised`."""
    flip = points.new_tensor([1.0, -1.0, 1.0])[: points.shape[-1]]
    shift = points.new_tensor([1.0, 1.0, 0.0])[: points.shape[-1]]
    return ((points * flip + shift) * size - shift) / 2
