"""What the refiner learns from: the places in composites where the pyramid sees something, and those of their faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from canthus.data.augment import Augmentation, Augmenter
from canthus.detection.composites import LEAST
from canthus.detection.dataset import Composites
from canthus.detection.network import DetectorNetwork
from canthus.errors import RecipeError
from canthus.geometry.crop import box_overlaps
from canthus.inference.detect import REFINER_CONTEXT, REFINER_SIZE, best_cells, refiner_crop, rolls
from canthus.io.images import crop_image

FOUND_FROM = 0.03  # least score of a candidate
MATCH, FAR = 0.35, 0.15  # least overlap of a candidate with its face; under the second it shows none
EASY = 2  # places of a picture that nobody chose, so many anywhere and so many on each face of PARTS_FROM px:
PART, PARTS_FROM = (0.15, 0.38), 40.0  # parts of it, from and to these shares of its side
FACES, TRUE = 0.5, 0.4  # shares of crops that show a face, and of these, of those around the true square
# Standard deviations by which crops are moved (sides), scaled (logarithm) and turned (radians): of candidates, of true
# squares. Some are turned by any angle.
MOVED, SCALED, TURNED = (0.06, 0.16), (0.08, 0.2), (0.15, 0.3)
ANY_TURN = 0.3
COLOURS = Augmentation(texture=0.3, blur=0.3, noise=0.2, gain=0.15, gamma=0.15, brightness=0.04, colour=0.3)


class Candidate(NamedTuple):
    """A place in picture `picture`: its square (centre x, y, side, angle), and the number of its face there or -1."""

    picture: int
    square: np.ndarray
    face: int


class Candidates:
    """Candidates in composites, found once by a pyramid. Raises `RecipeError` where no face can be seen."""

    def __init__(self, composites: Composites, network: DetectorNetwork):
        self.composites = composites
        self.faces: list[Candidate] = []
        self.true: list[Candidate] = []
        self.others: list[Candidate] = []
        self.augmenter = Augmenter(COLOURS, REFINER_SIZE, REFINER_CONTEXT)
        network.eval()
        for number in range(len(composites)):
            self._search(number, network)
        if not self.true:
            raise RecipeError("the composites show no face that could be learnt: want heads that face the camera")

    def _search(self, number: int, network: DetectorNetwork) -> None:
        image, box, upright, up, wanted, there = self.composites.row(number)
        box, wanted = box[there], wanted[there]
        with torch.inference_mode():
            cells = network(torch.from_numpy(image[None]))
        seen = best_cells(cells.box[0].numpy(), cells.score[0].sigmoid().numpy(), FOUND_FROM)
        boxes = cells.box[0].numpy()[seen]
        squares = np.column_stack([cells.upright[0].numpy()[seen], rolls(cells.up[0].numpy()[seen])])
        overlaps = box_overlaps(boxes, box) if len(box) else np.zeros((len(boxes), 1))
        for square, overlap in zip(squares, overlaps):
            best = int(overlap.argmax())
            if overlap[best] < FAR:
                self.others.append(Candidate(number, square, -1))
            elif overlap[best] >= MATCH and wanted[best]:
                self.faces.append(Candidate(number, square, best))
        for square in _elsewhere(np.random.default_rng(number), len(image), upright[there]):
            if not len(box) or box_overlaps(_boxes(square[None]), box).max() < FAR:
                self.others.append(Candidate(number, square, -1))
        true = np.column_stack([upright, rolls(up)])
        self.true += [Candidate(number, true[k], int(k)) for k in np.flatnonzero(wanted)]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops (count,S,S,3) 0..255, and what `look_terms` compares with."""
        items = [self.item(rng) for _ in range(count)]
        crops, face, move, up = (torch.from_numpy(np.stack(values)) for values in zip(*items))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        colours = crops.permute(0, 3, 1, 2).float() / 255
        changed = self.augmenter.change_colours(colours, generator) * 255
        return changed.permute(0, 2, 3, 1), face, move.float(), up.float()

    def item(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One crop (S,S,3) uint8, moved, turned and mirrored at random, with its truth."""
        shows, true = rng.random() < FACES, rng.random() < TRUE
        pool = self.others if not shows else self.true if true or not self.faces else self.faces
        candidate = pool[int(rng.integers(len(pool)))]
        image, _, upright, up, *_ = self.composites.row(candidate.picture)
        wide = int(shows and true)
        x, y, side, angle = candidate.square
        x, y = np.array([x, y]) + rng.normal(0, MOVED[wide], 2) * side
        side = side * np.exp(rng.normal(0, SCALED[wide]))
        angle = rng.uniform(-np.pi, np.pi) if rng.random() < ANY_TURN else angle + rng.normal(0, TURNED[wide])
        crop = refiner_crop(np.array([[x, y, side, angle]]))
        pixels, mirrored = crop_image(image, crop)[0], rng.random() < 0.5
        move, axis = np.zeros(3), np.zeros(2)
        if candidate.face >= 0:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            square = upright[candidate.face]
            move = np.array([*((square[:2] - [x, y]) @ turn / side), np.log(square[2] / side)])
            axis = up[candidate.face] @ turn
        if mirrored:
            pixels, move[0], axis[0] = pixels[:, ::-1], -move[0], -axis[0]
        return np.ascontiguousarray(pixels), np.array(candidate.face >= 0), move, axis


def _elsewhere(rng: np.random.Generator, side: int, upright: np.ndarray) -> np.ndarray:
    """Squares (N,4) at random places of a picture, and on parts of its faces (F,3): eyes, ears, mouths, hair."""
    sides = np.exp(rng.uniform(np.log(LEAST), np.log(side / 2), EASY))
    anywhere = np.column_stack([rng.uniform(0, side, (EASY, 2)), sides, np.zeros(EASY)])
    large = np.repeat(upright[upright[:, 2] >= PARTS_FROM], EASY, 0)
    places = large[:, :2] + rng.uniform(-0.9, 0.9, (len(large), 2)) * large[:, 2:]
    parts = np.column_stack(
        [places, large[:, 2] * rng.uniform(*PART, len(large)), rng.uniform(-np.pi, np.pi, len(large))]
    )
    return np.concatenate([anywhere, parts])


def _boxes(squares: np.ndarray) -> np.ndarray:
    """Upright boxes (N,4) of squares (N,4)."""
    return np.column_stack([squares[:, :2] - squares[:, 2:3] / 2, squares[:, :2] + squares[:, 2:3] / 2])
