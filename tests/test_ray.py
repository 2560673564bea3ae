"""On a Ray cluster of one machine: the same rows as without."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo, resized
from PIL import Image

from canthus.commands.parts import Plan, align
from canthus.commands.photos import photo_kind
from canthus.errors import OutputError
from canthus.inference.lanes import Lanes
from canthus.io.photo_lists import photos_in
from canthus.io.places import folder

ray = pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
pytest.importorskip("ray.data", reason="Ray Data is not installed (extra scale)")
pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.slow

PLAN = Plan(size=2)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one CPU on this machine."""
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    """A folder of three faces and a file that is no picture."""
    room = tmp_path_factory.mktemp("shots")
    face = Image.fromarray(resized(photo()[40:230, 130:320], 95, 95))
    for name, turn in (("a.png", 0), ("c.png", 5), ("d.png", -5)):
        face.rotate(turn).save(room / name)
    (room / "b.jpg").write_text("I am no picture.")
    return room


@pytest.fixture(scope="module")
def without(shots, tmp_path_factory) -> Path:
    """The parts that are written without Ray."""
    out = tmp_path_factory.mktemp("without")
    align(photos_in([shots], photo_kind(), Counter()), folder(str(out)), Lanes(aligner()), PLAN)
    return out


def test_parts_are_those_without_ray_and_a_run_goes_on(cluster, shots, without, tmp_path):
    from canthus.ray import align_parts

    def run(resume: bool = False):
        photos = photos_in([shots], photo_kind(), Counter())
        return align_parts(photos, str(tmp_path), "local", PLAN, resume=resume)

    summary = run()
    assert (summary.files, summary.faces, summary.failed) == (3, 3, 1)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in without.iterdir()}
    for path in without.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    (tmp_path / "_part-00001.json").unlink()
    again = run(resume=True)
    assert (again.files, again.skipped, again.failed) == (2, 1, 1)
    with pytest.raises(OutputError, match="want --resume"):
        run()


def test_a_data_set_gains_the_rows_of_its_faces(cluster, shots, without):
    from canthus.ray import align as align_data

    rows = align_data(ray.data.from_items([{"image": str(path)} for path in sorted(shots.iterdir())])).to_pandas()
    failed = rows[rows["error"].notna()]
    assert list(failed["image"]) == [str(shots / "b.jpg")]
    faces = rows[rows["error"].isna()].drop(columns="error").sort_values("image")
    wanted = pd.concat(pd.read_parquet(path) for path in sorted(without.glob("part-*")))
    assert list(faces["image"]) == list(wanted["image"]) and list(faces) == list(wanted)
    for name in ("x_30", "yaw", "sigma_8", "jawOpen"):
        np.testing.assert_allclose(faces[name].astype(float), wanted[name].astype(float), atol=2e-3)
