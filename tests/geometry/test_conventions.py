"""docs/conventions.md is the law: its examples run, and its matrices and tables are those of the code."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from canthus.geometry.rotation import EULER_CONVENTIONS, matrix_from_euler

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
TEXT = PAGE.read_text(encoding="utf-8")
AXES = {"pitch": 0, "yaw": 1, "roll": 2}
D = np.diag([1.0, -1.0, -1.0])


def rows() -> dict[str, list[str]]:
    """Set -> the six other cells of its row in the table of Euler sets."""
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] in EULER_CONVENTIONS and len(row) == 7}


def elementary(kind: str, axis: str, angle: float) -> np.ndarray:
    """The matrix that the page prints for Rx, Ry or Rz of a kind, at an angle in radians."""
    line = re.search(rf"^{kind} .*", TEXT, re.M)
    assert line is not None
    printed = re.search(rf"R{axis} = \[([^\]]*)\]", line[0])
    assert printed is not None
    c, s = np.cos(angle), np.sin(angle)
    values = {"0": 0.0, "1": 1.0, "c": c, "-c": -c, "s": s, "-s": -s}
    return np.array([[values[entry] for entry in row.split()] for row in printed[1].split(";")])


def matrix_of_the_page(name: str, angles: np.ndarray) -> np.ndarray:
    """R (3,3) by the product that the page prints for a set; angles (pitch, yaw, roll) in radians."""
    line = re.search(rf"^{name}\s+(R|D R D)\s+= (.*?)\s+(standard|transposed)$", TEXT, re.M)
    assert line is not None
    left, product, kind = line.groups()
    matrix = np.eye(3)
    for axis, angle in re.findall(r"R([xyz])\((\w+)\)", product):
        matrix = matrix @ elementary(kind, axis, angles[AXES[angle]])
    return D @ matrix @ D if left == "D R D" else matrix


def test_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    assert sum(bool(example.want) for example in test.examples) == 9
    report: list[str] = []
    failed, _ = doctest.DocTestRunner().run(test, out=report.append)
    assert not failed, "".join(report)


def test_every_set_is_in_the_table() -> None:
    assert list(rows()) == list(EULER_CONVENTIONS)


@pytest.mark.parametrize("name", EULER_CONVENTIONS)
def test_printed_products_are_the_code(name: str) -> None:
    for angles in np.random.default_rng(0).uniform(-np.pi, np.pi, (10, 3)):
        np.testing.assert_allclose(matrix_from_euler(angles, name), matrix_of_the_page(name, angles), atol=1e-12)


@pytest.mark.parametrize("name", EULER_CONVENTIONS)
def test_angles_of_the_table_are_one_rotation(name: str) -> None:
    # Angles are printed to 0.001 degrees, so an entry of the matrix is off by at most 3 * 0.0005 degrees = 2.6e-5.
    first, angles = (np.deg2rad([float(cell) for cell in rows()[n][3:]]) for n in ("aflw", name))
    np.testing.assert_allclose(matrix_of_the_page(name, angles), matrix_of_the_page("aflw", first), atol=3e-5)


@pytest.mark.parametrize("name", EULER_CONVENTIONS)
def test_directions_of_the_table(name: str) -> None:
    # Camera axes: x right, y up. The nose is the head's z axis, the ear its x axis, which lies on the image's right.
    pitched, yawed, rolled = (matrix_from_euler(angles, name) for angles in 0.1 * np.eye(3))
    pitch, yaw, roll = rows()[name][:3]
    assert pitch == ("up" if pitched[1, 2] > 0 else "down")
    assert yaw == ("right" if yawed[0, 2] > 0 else "left")
    assert roll == ("anticlockwise" if rolled[1, 0] > 0 else "clockwise")


def test_score_formula_is_the_mass_of_the_density() -> None:
    # The density over the ring of radius r, summed by the midpoint rule.
    sigma, radius = 2.0, 5.0
    r = (np.arange(20000) + 0.5) * radius / 20000
    mass = (3 / (2 * np.pi * sigma**2) * np.exp(-np.sqrt(3) * r / sigma) * 2 * np.pi * r).mean() * radius
    printed = re.search(r"^(0\.\d+)$", TEXT.split("sigma 2 px")[1], re.M)
    assert printed is not None
    assert mass == pytest.approx(float(printed[1]), abs=5e-5)
