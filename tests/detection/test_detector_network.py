"""The detector's network and its loss: geometry of cells by hand, plain twins, and the parts of training."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from canthus.detection.loss import FacesTruth, assign, loss_terms, overlaps  # noqa: E402
from canthus.detection.network import (  # noqa: E402
    BOX_UNIT,
    OUTPUTS,
    STRIDES,
    Cells,
    DetectorNetwork,
    cell_centres,
    decoded,
)


def faces_of(boxes, wanted=None) -> FacesTruth:
    box = torch.tensor([boxes], dtype=torch.float32)
    count = box.shape[1]
    centre, side = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]).amax(-1, keepdim=True)
    up = torch.tensor([0.0, -1.0]).expand(1, count, 2)
    known = torch.ones((1, count), dtype=torch.bool)
    asked = known if wanted is None else torch.tensor([wanted])
    return FacesTruth(box, torch.cat([centre, side], -1), up, asked, known)


def test_cells_stand_in_the_middle_of_their_pixels():
    # a stride of 8 has pixels 0 to 7 in its first cell: their centres are 0 to 7, the middle 3.5
    centres = cell_centres(2, 3, 8, torch.zeros(1))
    assert centres.tolist() == [[3.5, 3.5], [11.5, 3.5], [19.5, 3.5], [3.5, 11.5], [11.5, 11.5], [19.5, 11.5]]


def test_outputs_of_zero_are_an_upright_square_around_the_cell():
    cells = decoded(torch.zeros((1, OUTPUTS, 1, 2)), 16)
    half = BOX_UNIT * 16 / 2
    np.testing.assert_allclose(cells.box[0, 1], [23.5 - half, 7.5 - half, 23.5 + half, 7.5 + half])
    np.testing.assert_allclose(cells.upright[0, 1], [23.5, 7.5, 2 * half])


def test_outputs_move_and_stretch_by_their_units():
    raw = torch.zeros((1, OUTPUTS, 1, 1))
    raw[0, 1:5, 0, 0] = torch.tensor([0.5, -1.0, np.log(2.0), 0.0])
    raw[0, 5:8, 0, 0] = torch.tensor([1.0, 0.0, np.log(0.5)])
    cells = decoded(raw, 8)
    # centre 3.5 + 0.5 * 8 and 3.5 - 8; sides 2 * 20 and 20; the square lies 0.2 of the longer side to the right
    np.testing.assert_allclose(cells.box[0, 0], [7.5 - 20, -4.5 - 10, 7.5 + 20, -4.5 + 10], rtol=1e-6)
    np.testing.assert_allclose(cells.upright[0, 0], [7.5 + 0.2 * 40, -4.5, 20], rtol=1e-6)


def test_one_answer_a_cell_of_three_strides():
    network = DetectorNetwork().eval()
    cells = network(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8))
    count = sum((64 // s) * (96 // s) for s in STRIDES)
    assert [tuple(v.shape) for v in cells] == [(2, count), (2, count, 4), (2, count, 3), (2, count, 2), (2, count)]


def plain_assign(faces: FacesTruth, height: int, width: int) -> tuple[list[int], list[bool]]:
    face, free = [], []
    boxes = faces.box[0].tolist()
    for stride, (low, high) in zip(STRIDES, ((0, 46), (30, 112), (76, float("inf")))):
        for row in range(height // stride):
            for column in range(width // stride):
                x, y = (column + 0.5) * stride - 0.5, (row + 0.5) * stride - 0.5
                best, smallest, skipped = -1, float("inf"), False
                for k, (x0, y0, x1, y1) in enumerate(boxes):
                    side = max(x1 - x0, y1 - y0)
                    apart = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
                    if not faces.wanted[0, k]:
                        skipped |= x0 < x < x1 and y0 < y < y1
                    elif low <= side < high and apart < max(0.25 * side, 1.3 * stride) and side < smallest:
                        best, smallest = k, side
                face.append(best)
                free.append(skipped and best < 0)
    return face, free


def test_cells_learn_what_a_plain_loop_says():
    rng = np.random.default_rng(0)
    for _ in range(5):
        corner, extent = rng.uniform(-10, 110, (9, 2)), rng.uniform(8, 120, (9, 2))
        faces = faces_of(np.concatenate([corner, corner + extent], 1).tolist(), (rng.random(9) < 0.7).tolist())
        face, free = assign(faces, 128, 96)
        plain_face, plain_free = plain_assign(faces, 128, 96)
        assert face[0].tolist() == plain_face and free[0].tolist() == plain_free


def test_padding_is_no_face():
    faces = faces_of([[10, 10, 50, 50]])
    face, _ = assign(faces._replace(there=torch.zeros((1, 1), dtype=torch.bool)), 64, 64)
    assert (face < 0).all()


def test_overlaps_by_hand():
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    # shared 50 of 150; apart: the hull of 30 x 10 is empty to a third
    overlap, generalised = overlaps(a, b)
    np.testing.assert_allclose(overlap, [1, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(generalised, [1, 1 / 3, -1 / 3], atol=1e-6)


def exact(faces: FacesTruth, height: int, width: int) -> Cells:
    """Cells that say the truth wherever they learn a face."""
    face, _ = assign(faces, height, width)
    number = face.clamp(min=0)[0]
    learns = (face >= 0).float()
    return Cells(
        40 * learns - 20, faces.box[:, number], faces.upright[:, number], faces.up[:, number], torch.zeros_like(learns)
    )


def test_the_truth_has_no_loss():
    faces = faces_of([[10, 12, 60, 70], [80, 80, 100, 104]])
    terms = loss_terms(exact(faces, 128, 128), faces, 128, 128)
    assert all(abs(float(value)) < 1e-5 for value in terms.values())


@pytest.mark.parametrize(("field", "term"), [("score", "score"), ("box", "box"), ("upright", "upright"), ("up", "up")])
def test_every_error_costs(field, term):
    faces = faces_of([[10, 12, 60, 70]])
    cells = exact(faces, 128, 128)
    wrong = cells._replace(**{field: getattr(cells, field) * 0.1 + 1})
    assert loss_terms(wrong, faces, 128, 128)[term] > 0.01


def test_unwanted_faces_are_not_judged():
    faces = faces_of([[30, 30, 90, 90]], [False])
    cells = exact(faces, 128, 128)
    loud = cells._replace(score=torch.where(assign(faces, 128, 128).free, 20.0, -20.0))
    assert float(loss_terms(loud, faces, 128, 128)["score"]) < 1e-5
    asked = faces_of([[30, 30, 90, 90]])
    assert float(loss_terms(loud, asked, 128, 128)["score"]) > 0.1


def test_sigma_is_the_error_that_costs_least():
    # of three errors e with one sigma, 3 log s + sum(e) / s is least at the mean of the errors
    faces = faces_of([[0, 0, 100, 100]])
    cells = exact(faces, 128, 128)
    off = cells._replace(upright=cells.upright + torch.tensor([3.0, 6.0, 0.0]))  # 0.03, 0.06 and 0 of the side: 0.03
    cost = {}
    for sigma in (0.02, 0.03, 0.045):
        sure = off._replace(log_sigma=torch.full_like(off.log_sigma, np.log(sigma)))
        cost[sigma] = float(loss_terms(sure, faces, 128, 128)["upright"])
    assert min(cost, key=cost.__getitem__) == 0.03


def test_a_score_learns_how_well_its_box_lies():
    faces = faces_of([[0, 0, 100, 100]])
    cells, learns = exact(faces, 128, 128), assign(faces, 128, 128).face >= 0
    # boxes of 100 x 80: IoU 0.8; with the score 0.5 the term is (0.5 - 0.8)^2 * -(0.8 ln 0.5 + 0.2 ln 0.5) = 0.09 ln 2
    low = faces.box[:, :1].clone()
    low[..., 3] = 80
    box, score = torch.where(learns[..., None], low, cells.box), torch.where(learns, 0.0, cells.score)
    terms = loss_terms(cells._replace(box=box, score=score), faces, 128, 128)
    assert float(terms["score"]) == pytest.approx(0.09 * np.log(2), rel=1e-3)
