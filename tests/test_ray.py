"""On a Ray cluster: the same rows and pixels as without, also when one of its machines is lost."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photos import aligner, photo, resized
from PIL import Image

from canthus.commands.parts import Plan, align
from canthus.commands.photos import photo_kind
from canthus.errors import CanthusError, OutputError
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


def test_a_shard_is_that_without_ray_and_what_is_there_stays(cluster, tmp_path):
    pytest.importorskip("scipy")
    from canthus.ray import render as render_there
    from canthus.synth.recipe import SynthRecipe
    from canthus.synth.render_jobs import SHARD_SIZE, render, shards

    wanted = {name: shards(tmp_path / name, None, SynthRecipe(size=32, seed=9), 1) for name in ("here", "there")}
    (here,) = render(wanted["here"], 1)
    (there,) = render_there(wanted["there"], "local")
    assert here.read_bytes() == there.read_bytes()
    more = shards(tmp_path / "there", None, SynthRecipe(size=32, seed=9), SHARD_SIZE + 1)
    more.paths[1].touch()  # as if it were done
    there.unlink()
    assert list(render_there(more, "local")) == [there] and here.read_bytes() == there.read_bytes()
    assert not more.paths[1].stat().st_size


def test_what_a_task_raises_and_a_process_that_dies_are_told_by_a_sentence(cluster, tmp_path):
    from canthus.ray import render
    from canthus.synth.render_jobs import Rendering

    def full(number: int, path: Path) -> None:
        raise OutputError("no space left")

    def die(number: int, path: Path) -> None:
        os._exit(1)

    for work, sentence in ((full, "no space left"), (die, "work was lost 3 times")):
        with pytest.raises(CanthusError, match=sentence):
            list(render(Rendering(work, [tmp_path / "shard"]), "local"))


def test_a_machine_that_is_lost_loses_and_repeats_nothing(shots, tmp_path):
    """Two machines of one CPU each, that is two raylets; one is gone when the first parts are there."""
    from ray.cluster_utils import Cluster

    from canthus.ray import align_parts

    many, out, here = (tmp_path / name for name in ("many", "out", "here"))
    many.mkdir()
    for number in range(48):  # 24 parts
        os.link(
            shots / ("a.png", "c.png", "d.png", "b.jpg")[number % 4],
            many / f"{number:02}{'.jpg' if number % 4 == 3 else '.png'}",
        )
    align(photos_in([many], photo_kind(), Counter()), folder(str(here)), Lanes(aligner()), PLAN)

    ray.shutdown()  # of the cluster of the other tests
    options = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    lost, seen = [cluster.add_node(**options)], []
    cluster.wait_for_nodes()

    def lose(summary):
        seen.append(summary.files)
        if lost and summary.files >= 4:
            cluster.remove_node(lost.pop(), allow_graceful=False)

    try:
        photos = photos_in([many], photo_kind(), Counter())
        summary = align_parts(photos, str(out), cluster.address, PLAN, progress=lose)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not lost and len(seen) == 24  # each part was told once
    assert (summary.files, summary.faces, summary.failed) == (36, 36, 12)
    assert {path.name for path in out.iterdir()} == {path.name for path in here.iterdir()}
    for path in here.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_an_address_where_nothing_answers_and_boxes_are_refused_at_once(cluster):
    from canthus.ray import align as align_data
    from canthus.ray import align_parts

    with pytest.raises(CanthusError, match=r"'127\.0\.0\.1:1', where no cluster answers"):
        align_parts([], "out", "127.0.0.1:1", PLAN)
    for row in ({"photo": "a.png"}, {"image": "a.png", "box_x0": 1.0}):
        with pytest.raises(CanthusError, match="want `image` and no boxes"):
            align_data(ray.data.from_items([row]))
