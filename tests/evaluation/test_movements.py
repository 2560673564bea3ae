"""Tables of eyes, mouth, brows and expressions, of faces and answers made up so that the numbers are known."""

from __future__ import annotations

from dataclasses import replace

import layouts_maker as make
import numpy as np
import pytest

from canthus.data.formats import FaceSample, read_renders
from canthus.errors import LandmarkError
from canthus.evaluation.movements import movement_tables
from canthus.evaluation.pairs import pair
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.table import Table
from canthus.face.expressions import EXPRESSIONS, arkit_from_ict
from canthus.face.measures import eye_aspect_ratio, mouth_opening
from canthus.io.shards import shard_path, write_shard

OPENINGS = (0.0, 0.04, 0.15, 0.3, 0.35, 0.4)  # two closed, one half-closed, three open
IMAGE = np.zeros((240, 260, 3), np.uint8)


def blinking(opening: float) -> np.ndarray:
    """A turned face whose eyes have this aspect ratio: lids on the line of the corners, then moved apart."""
    points = make.turned(35.0)
    up = points[[36, 39, 42, 45]].mean(0) - points[[48, 54]].mean(0)
    up /= np.linalg.norm(up)
    for outer, inner, pairs in ((36, 39, ((37, 41), (38, 40))), (45, 42, ((44, 46), (43, 47)))):
        width = np.linalg.norm(points[outer] - points[inner])
        for share, (upper, lower) in zip((1 / 3, 2 / 3), pairs):
            middle = points[outer] * (1 - share) + points[inner] * share
            points[upper], points[lower] = middle + up * opening * width / 2, middle - up * opening * width / 2
    return points


def faces(**more) -> list[FaceSample]:
    """One face for each of OPENINGS."""
    angles = np.deg2rad([3.0, 35.0, -4.0])
    return [FaceSample(IMAGE, blinking(o), name=f"{k}", angles=angles, **more) for k, o in enumerate(OPENINGS)]


def tables(samples: list[FaceSample], openings=OPENINGS, lids_move: bool = True, **more) -> dict[str, Table]:
    """Tables of answers whose eyes have these openings, by the first word of the title."""
    points = np.stack([blinking(o) for o in openings])
    found = movement_tables(pair(samples, Predictions([s.name for s in samples], points, **more)), lids_move)
    return {t.title.split(",")[0].split(" (")[0]: t for t in found}


def test_eyes_that_are_told_right_are_told_apart():
    samples = faces()
    points = np.stack([s.points for s in samples])
    assert eye_aspect_ratio(points) == pytest.approx(np.repeat(np.array(OPENINGS)[:, None], 2, 1), abs=1e-9)
    found = tables(samples)
    row = found["eyes"].rows["eye aspect ratio"]
    # two eyes a face, all of them at 35 degrees of yaw; the mean of OPENINGS is 1.24 / 6
    assert row[:4] == pytest.approx([12, 1, np.nan, 1], nan_ok=True)
    assert row[5:] == pytest.approx([0, 1.24 / 6, 1.24 / 6], abs=1e-9)
    assert np.isnan(found["eyes"].cell("mouth opening", "correlation"))  # all mouths are alike
    assert found["eyes"].cell("mouth opening", "true mean") == pytest.approx(mouth_opening(points)[0])
    closed = found["closed eyes"].rows["eye aspect ratio"]
    assert closed == pytest.approx([4, 6, 0.02, 0.35, 0.02, 0.35, 100, 100])


def test_a_system_that_opens_every_eye_is_seen_to():
    """Predicted 0.3 for the eyes closed at 0 and the other way round elsewhere: of closed (0.3, 0.2) and open ones
    (0.3, 0.25, 0.1), the pairs with the closed one lower are (0.2, 0.3) and (0.2, 0.25), and one pair ties."""
    found = tables(faces(), openings=(0.3, 0.2, 0.22, 0.3, 0.25, 0.1))
    table = found["closed eyes"]
    assert table.cell("eye aspect ratio", "AUC, %") == pytest.approx(100 * 2.5 / 6)
    # with the half-closed one at 0.22, one more pair of two
    assert table.cell("eye aspect ratio", "AUC against all others, %") == pytest.approx(100 * 3.5 / 8)
    assert table.cell("eye aspect ratio", "predicted mean, closed") == pytest.approx(0.25)


def test_hidden_eyes_do_not_count():
    samples = faces(visible=np.arange(68) < 42)  # the left eye and the mouth are hidden
    found = tables(samples)
    assert found["eyes"].cell("eye aspect ratio", "values") == 6
    assert "mouth opening" not in found["eyes"].rows
    assert found["closed eyes"].cell("eye aspect ratio", "closed eyes") == 2


def test_labels_that_close_no_eyes_are_not_measured_on():
    found = tables(faces(), lids_move=False)
    (table,) = found.values()
    assert "the labels close no eyes" in table.title and set(table.rows) == {"mouth opening", "brow height"}


def test_points_without_lids_give_no_table():
    points = np.zeros((1, 21, 2))
    points[0, :, 0] = np.arange(21)
    points[0, :, 1] = np.arange(21)[::-1]
    one = [FaceSample(IMAGE, points[0], scheme="aflw21", name="a")]
    assert movement_tables(pair(one, Predictions(["a"], points, scheme="aflw21"))) == []


def test_expressions_are_compared_by_name():
    true = np.zeros((6, 52))
    true[:, EXPRESSIONS.index("jawOpen")] = [0, 0.2, 0.4, 0.6, 0.8, 1]
    true[:, EXPRESSIONS.index("mouthSmileLeft")] = [0, 1, 0, 1, 0, 1]
    true[:, EXPRESSIONS.index("tongueOut")] = np.nan
    samples = [replace(s, expression=row) for s, row in zip(faces(), true)]
    said = np.nan_to_num(true) + 0.1
    said[:, EXPRESSIONS.index("mouthSmileLeft")] = 0.5  # always the same: tells nothing
    table = tables(samples, expression=said)["expressions"]
    # off by 0.1 throughout, fully correlated; the mean of the truth is 0.5
    assert table.rows["jawOpen"] == pytest.approx([6, 1, 0.1, 0.5, 0.6])
    assert table.rows["mouthSmileLeft"] == pytest.approx([6, 0, 0.5, 0.5, 0.5])
    assert np.isnan(table.cell("browInnerUp", "correlation"))  # the truth is always 0
    assert "tongueOut" not in table.rows
    # of the face's 42, correlations are known of two, 1 and 0
    assert table.cell("median, face", "correlation") == pytest.approx(0.5)


def test_the_sigma_of_an_expression_is_checked_against_its_errors():
    samples = [replace(s, expression=np.zeros(52)) for s in faces()]
    said = np.tile(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])[:, None], 52)
    table = tables(samples, expression=said, expression_sigma=np.full((6, 52), 0.25))["expressions"]
    assert table.cell("jawOpen", "within one sigma, %") == pytest.approx(50)  # 0, 0.1 and 0.2 of six
    assert "within one sigma, %" not in tables(samples, expression=said)["expressions"].columns


def test_blink_coefficients_tell_closed_eyes_too():
    true = np.zeros((6, 52))
    blink = [EXPRESSIONS.index("eyeBlinkLeft"), EXPRESSIONS.index("eyeBlinkRight")]
    true[:, blink] = np.array([1.0, 0.9, 0.5, 0, 0, 0])[:, None]
    samples = [replace(s, expression=row) for s, row in zip(faces(), true)]
    row = tables(samples, expression=true / 2)["closed eyes"].rows["eyeBlink"]
    assert row == pytest.approx([4, 6, 0.95, 0, 0.475, 0, 100, 100])


@pytest.mark.parametrize("count", [57, 52, 40])
def test_renders_bring_the_truth_of_expressions(tmp_path, count):
    truth = {key: values[:3] for key, values in make.truths().items()}
    given = np.random.default_rng(0).random((3, count)).astype(np.float32)
    samples = {"image": np.stack([IMAGE] * 3), **truth, "expression": given}
    write_shard(shard_path(tmp_path, 0), samples, 0, "npz")
    if count == 40:
        with pytest.raises(LandmarkError, match="nothing that `canthus synth` wrote"):
            list(read_renders(tmp_path))
        return
    read = np.stack([s.expression for s in read_renders(tmp_path)])
    np.testing.assert_allclose(read, arkit_from_ict(given) if count == 57 else given, rtol=1e-6)
