"""The papers' tables on data that the tests write: known errors give known numbers, and what is missing is told."""

from __future__ import annotations

import json
from pathlib import Path

import layouts_maker as make
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy.io")

import torch  # noqa: E402
from faces_maker import write_shards  # noqa: E402
from PIL import Image  # noqa: E402
from small import config  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from canthus.cli import app  # noqa: E402
from canthus.errors import CanthusError, WeightsError  # noqa: E402
from canthus.evaluation.predictions import Predictions  # noqa: E402
from canthus.evaluation.protocols import protocol  # noqa: E402
from canthus.evaluation.scores import score  # noqa: E402
from canthus.face.faces import Alignment  # noqa: E402
from canthus.face.landmarks import convert  # noqa: E402
from canthus.geometry.crop import Crop, tight_boxes  # noqa: E402
from canthus.inference.predictor import Predictor  # noqa: E402
from canthus.io.card import Card  # noqa: E402
from canthus.papers.inputs import read_data, read_names  # noqa: E402
from canthus.papers.published import PAPERS, published  # noqa: E402
from canthus.papers.run import Measured, Missing, Reproduction  # noqa: E402
from canthus.papers.weights import Given, departures, open_weights  # noqa: E402
from canthus.training.aligner import build  # noqa: E402

CHANGES = {"cprfa": {"solver": "cpr-fused-capu"}}


class Shifted(Predictor):
    """Says the truth of a set, moved by `shift` image pixels; the faces come in their order."""

    def __init__(self, name: str, folder: Path, shift: tuple[float, float, float]):
        self.card = Card("shifted", "1", "none", 112, 1.4, "", False, "", "", "")
        samples = protocol(name).faces(folder)
        points = np.stack([convert(s.points, s.scheme, "ibug68")[0] for s in samples])
        self.points = np.pad(points, ((0, 0), (0, 0), (0, 3 - points.shape[2])))
        self.shift, self.done = np.array(shift), 0

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        points = self.points[(self.done + np.arange(len(crops))) % len(self.points)]
        self.done += len(crops)
        crop = Crop.around_boxes(tight_boxes(points), 1.4, 112)
        return Alignment(crop.crop_from_image(points + self.shift), rotation=np.tile(np.eye(3), (len(crops), 1, 1)))


def weights(folder: Path, method: str, **changes: object) -> Path:
    """Untrained weights of the small configuration."""
    torch.manual_seed(0)
    return build(method, {**config(method, 64), **CHANGES.get(method, {}), **changes}).save(folder)


def ours(reproduction: Reproduction, name: str) -> dict[str, list[float]]:
    table = next(t for t in reproduction.paper.tables if t.name == name)
    return {row.name: reproduction.numbers(table, row) for row in table.rows}


def test_a_shift_gives_the_rows_of_the_error_by_axes(tmp_path):
    folder = make.fdaw3(tmp_path)
    given = {"method": Given(Shifted("3dfaw", folder, (3, 4, 0)), "shifted")}
    rows = ours(Reproduction(published("part_heatmap"), given, {"3dfaw": folder}), "Table 3")
    eyes = [np.linalg.norm(s.points[36] - s.points[45]) for s in protocol("3dfaw").faces(folder)]
    part = 100 * np.mean(1 / np.array(eyes))
    # xy and xyz 5 px, x 3, y 4, z 0, of each face's distance of the eye corners; aligned, nothing is left. The inner
    # mouth corners of 68 points are blends, which 66 do not have.
    assert rows["the system"] == pytest.approx([5 * part, 5 * part, 3 * part, 4 * part, 0, 0], abs=0.01)
    assert all(np.isnan(v).all() for name, v in rows.items() if name != "the system")


def test_numbers_stand_in_the_printed_unit(tmp_path):
    folder = make.aflw2000(tmp_path)
    given = {"module4": Given(Shifted("aflw2000", folder, (3, 4, 0)), "shifted")}
    reproduction = Reproduction(published("local_global"), given, {"aflw2000": folder})
    sizes = [np.sqrt(np.prod(np.ptp(s.points[:, :2], axis=0))) for s in protocol("aflw2000").faces(folder)]
    nme = ours(reproduction, "Table 3, crops around boxes")["module 4"][0]
    assert nme == pytest.approx(np.mean(5 / np.array(sizes)), rel=0.01)  # a fraction; the bins have two faces each
    assert np.isnan(ours(reproduction, "Table 3")["SDM"]).all()


def test_columns_of_several_sets_are_run_on_each(tmp_path):
    pytest.importorskip("h5py")
    folder = make.cofw(tmp_path, annotations68=True)
    given = {"method": Given(Shifted("cofw68", folder, (3, 4, 0)), "shifted")}
    reproduction = Reproduction(published("pose_aware"), given, {"cofw68": folder})
    pupils, corners, full = ours(reproduction, "Table 2")["Proposed Method"]
    assert 0 < corners < pupils and np.isnan(full)
    (table,) = [t for t in reproduction.paper.tables if t.name == "Table 2"]
    assert "Proposed Method: no data of aflw19." in reproduction.missing(table)
    assert any("no weights 'one_stage'" in text for text in reproduction.missing(table))


def test_a_list_chooses_the_videos(tmp_path):
    folder = make.clips(tmp_path, frames=3)
    names = read_names(_written(tmp_path / "list.txt", "clip-00001\n\n"))
    reproduction = Reproduction(published("local_global"), {}, {"clips": folder}, names)
    assert [s.name for s in reproduction.samples("clips")] == [f"clip-00001/frame-{k:05d}" for k in range(3)]
    with pytest.raises(CanthusError, match="no face, video or folder of the data is called 'person 12'"):
        Reproduction(published("local_global"), {}, {"clips": folder}, frozenset({"clip-00001", "person 12"}))
    photos = make.aflw2000(tmp_path / "photos")
    both = Reproduction(published("local_global"), {}, {"clips": folder, "aflw2000": photos}, names)
    assert len(both.samples("clips")) == 3 and len(both.samples("aflw2000")) == 6  # no name is of a photo
    one = Reproduction(published("jvcr"), {}, {"aflw2000": photos}, frozenset({both.samples("aflw2000")[1].name}))
    assert [s.name for s in one.samples("aflw2000")] == [both.samples("aflw2000")[1].name]


def test_two_models_are_two(tmp_path):
    """Without model 2 the row of two models is not that of model 1 alone."""
    folder = make.clips(tmp_path / "clips", frames=3)
    paper = published("local_global")
    given = open_weights(paper, [str(weights(tmp_path / "w", "local_global"))])
    reproduction = Reproduction(paper, given, {"clips": folder})
    (table,) = [t for t in paper.tables if t.name == "Table 4"]
    *_, two, _ = table.rows
    assert np.isnan(reproduction.numbers(table, two)).all()
    assert any(r.startswith("+ finetune module 3.3: no weights 'video_tracking'") for r in reproduction.missing(table))
    assert {run.tracking for run in reproduction.runs} == {""}


def test_nothing_found_is_named(tmp_path):
    samples = protocol("3dfaw").faces(make.fdaw3(tmp_path))
    scores = score(protocol("3dfaw"), samples, Predictions((), np.zeros((0, 68, 3)), system="blind"))
    with pytest.raises(Missing, match="none of the faces was found"):
        Measured(scores, scores.tables, 0.1).cell(("all images", "GTE", "mean"), "")


def test_weights_of_aligned_crops_stand_in_the_papers_rows_by_name(tmp_path):
    """They are told as those of model 2 where nobody says more."""
    paper = published("local_global")
    aligned = str(weights(tmp_path / "w", "local_global", shape_aligned=True, finetune="none"))
    assert set(open_weights(paper, [aligned])) == {"video_heatmaps_tracking"}
    assert open_weights(paper, [f"module4={aligned}"])["module4"].source == aligned


def test_departures_are_what_the_recipe_has_otherwise():
    row = published("jvcr").weights["method"]
    assert departures(build("jvcr", {}), row) == []
    changed = build("jvcr", {"depths": [32], "z_range": 1.3})
    assert departures(changed, row) == ["depths 32 (1 2 4 64)", "z_range 1.3 (1.0)"]
    (only,) = departures(build("part_heatmap", {}), published("part_heatmap").weights["method"])
    assert only.startswith("depth_shortcut ") and only.endswith("(activated)")
    pnp = published("cprfa").weights["pnp_dense"]  # what makes it that row is no departure
    assert not any(text.startswith("solver") for text in departures(build("cprfa", {"solver": "pnp-dense"}), pnp))


def test_a_network_of_one_round_holds_the_rows_of_pnp(tmp_path):
    fused = str(weights(tmp_path / "w", "cprfa", solver="cpr-fused"))
    found = open_weights(published("cprfa"), [fused])
    assert set(found) == {"fused", "pnp_dense", "pnp_sparse"}
    crops = torch.rand(1, 3, 64, 64)
    for name in ("pnp_dense", "pnp_sparse"):
        assert found[name].predictor(crops, torch.rand(1, 68, 3) * 64).xyz.shape == (1, 68, 3)


def test_weights_are_told_apart_by_their_config(tmp_path):
    paper = published("local_global")
    other = weights(tmp_path / "b", "local_global", head="module3", finetune="none")
    both = [str(weights(tmp_path / "a", "local_global")), str(other)]
    found = open_weights(paper, both)
    assert found["whole"].source == both[0] and found["module3"].source == both[1]
    # the heatmaps of the whole network stand for weights that nobody gave
    assert found["module4"].source.endswith("with finetune: none") and found["module4"].predictor.finetune is None
    with pytest.raises(WeightsError, match="are no 'module1': `head` is 'module4', 'module1' is wanted"):
        open_weights(paper, [f"module1={both[0]}"])
    with pytest.raises(WeightsError, match="for 'whole', want one of them"):
        open_weights(paper, [both[0], both[0]])
    with pytest.raises(WeightsError, match="are of the method local_global, jvcr is wanted"):
        open_weights(published("jvcr"), both[:1])


def test_a_row_that_would_stand_twice_is_named_instead(tmp_path):
    paper = published("part_heatmap")
    found = open_weights(paper, [str(weights(tmp_path / "w", "part_heatmap", flip_test=False))])
    reproduction = Reproduction(paper, found, {"3dfaw": make.fdaw3(tmp_path / "data")})
    (table,) = [t for t in paper.tables if t.name == "Table 3"]
    wanted = "without the flip test (not in the paper): the weights 'method' are that already, without the flip test."
    assert wanted in reproduction.missing(table)


def test_what_the_truth_does_not_give_is_named(tmp_path):
    """Renders without vertices say nothing about a dense annotation, and frontal faces nothing about profiles."""
    folder = write_shards(tmp_path / "plain", count=4, size=96, dense=False)
    given = open_weights(published("cprfa"), [str(weights(tmp_path / "w", "cprfa"))])
    reproduction = Reproduction(published("cprfa"), given, {"renders": folder})
    for name, what in (("Table 1, NME", "dense annotation, NME"), ("Table 1, ADR", "dense annotation, ADR")):
        (table,) = [t for t in reproduction.paper.tables if t.name == name]
        (reason,) = reproduction.missing(table)
        assert reason.startswith("FAN-3D (68), DAFI (68), ")
        assert reason.endswith(f"the truth of the set does not give '{what}'.")
    (table,) = [t for t in reproduction.paper.tables if t.name == "Table 2, AFLW2000-3D"]
    (reason,) = [r for r in reproduction.missing(table) if "'60-90'" in r]
    assert reason.startswith("CPRFA, PnP-FAN3D-68") and "the set has too few faces for" in reason


def test_wrong_data_are_one_sentence(tmp_path):
    with pytest.raises(CanthusError, match="want PROTOCOL=FOLDER"):
        read_data([str(tmp_path)])
    with pytest.raises(CanthusError, match="no folder"):
        read_data([f"300w={tmp_path / 'none'}"])
    with pytest.raises(CanthusError, match="the paper is not run on '300w'"):
        Reproduction(published("jvcr"), {}, {"300w": tmp_path})


def data_of(method: str, folder: Path) -> dict[str, Path]:
    """A tiny set for most parts of a paper."""
    makers = {
        "local_global": {"aflw2000": make.aflw2000, "clips": lambda f: make.clips(f, frames=3)},
        "part_heatmap": {"3dfaw": make.fdaw3},
        "pose_aware": {"300w": make.w300, "renders": make.renders},
        "jvcr": {"3dfaw": make.fdaw3, "aflw2000": make.aflw2000},
        "cprfa": {"renders": lambda f: write_shards(f, count=4, size=96, dense=True), "aflw21": make.aflw21},
    }  # fmt: skip
    return {name: made(folder / name) for name, made in makers[method].items()}


@pytest.mark.parametrize("method", PAPERS)
def test_a_page_of_every_paper(method, tmp_path):
    data = data_of(method, tmp_path)
    words = [f"--data={name}={folder}" for name, folder in data.items()]
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["reproduce", method, *words, "--weights", str(weights(tmp_path / "w", method)), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    document = json.loads((out / "results.json").read_text())
    page = (out / "index.html").read_text()
    assert {run["protocol"] for run in document["runs"]} == set(data)
    run_rows = 0
    for table in document["tables"]:
        assert table["name"] in page
        for row in table["rows"]:
            run_rows += any(v is not None for v in row["ours"])
            if any(v is not None for v in row["printed"]):
                assert f"<td>{row['name']}</td>" in page.replace("&amp;", "&")
    assert run_rows and (len(list(out.glob("*.png"))) or method == "local_global")
    given = [w for w in document["weights"].values() if w["from"] == str(tmp_path / "w")]
    assert given and given[0]["config"]["size"] == 64 and "Not run:" in page
    ran = {run[key] for run in document["runs"] for key in ("weights", "tracking")} - {""}
    assert ran <= set(document["weights"])
    assert "differ from the paper&#x27;s recipe: size 64 (" in page
    if method == "cprfa":  # its first table, on renders, says so
        assert page.index("not to be compared") < page.index("<h2>Table 1, ADR")
    if method in ("jvcr", "cprfa"):
        for path in out.glob("*.jpg"):
            assert Image.open(path).width == {"jvcr": 5, "cprfa": 4}[method] * 192
        assert [*out.glob("*.jpg")]


def test_a_page_without_weights_has_the_printed_numbers_alone(tmp_path):
    folder = make.aflw2000(tmp_path / "data")
    result = CliRunner().invoke(app, ["reproduce", "jvcr", f"--data=aflw2000={folder}", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0 and "no number of ours: give --weights, and --data of" in result.output
    page = (tmp_path / "out" / "index.html").read_text()
    assert ", ours<" not in page and "not to be compared" not in page and "no weights &#x27;method&#x27;" in page


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
