"""Tables: the same columns in CSV and Parquet, numbers that come back, OpenFace's names, and what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes import made_up_faces

import canthus
from canthus.errors import LandmarkError, OutputError, pip_install
from canthus.face.expressions import EXPRESSIONS
from canthus.face.faces import Faces
from canthus.face.measures import eye_aspect_ratio
from canthus.geometry.rotation import euler_from_matrix, matrix_from_euler
from canthus.io import tables
from canthus.io.columns import CANTHUS, COLUMNS, OPENFACE, Camera, ImageFaces, openface_rows, rows
from canthus.io.outputs import write_json
from canthus.io.tables import read_faces, table_writer, write_csv, write_table

ANGLES = [(0.0, 0.0, 0.0), (10.0, 40.0, -5.0)]


def images() -> list[ImageFaces]:
    """Three frames: two faces, none, and one of which much is not known."""
    rng = np.random.default_rng(0)
    both = made_up_faces(ANGLES)
    both = replace(both, expression=rng.uniform(size=(2, 52)), expression_sigma=rng.uniform(size=(2, 52)))
    nan = np.full((1, 68), np.nan)
    unknown = replace(
        both[1], sigma=nan, visible=nan, detection_scores=[np.nan], expression=None, expression_sigma=None
    )
    flags = np.array([[True, False], [False, False]])
    return [
        ImageFaces("v.mp4", 0, 0.0, both, np.array([7, 3]), np.array([True, False]), flags),
        ImageFaces("v.mp4", 1, 0.04, Faces.empty(both.image_size), np.zeros(0, int)),
        ImageFaces("photo, with a comma.jpg", 0, 0.0, unknown, np.array([0])),
    ]


@pytest.mark.parametrize(("name", "atol"), [("a.csv", 6e-4), ("a.parquet", 1e-6)])
def test_faces_come_back(tmp_path: Path, name: str, atol: float) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    given = images()
    write_table(tmp_path / name, given, weights="swift 1")
    back = list(read_faces(tmp_path / name))
    assert [(b.image, b.frame, b.time) for b in back] == [(g.image, g.frame, g.time) for g in given]
    for a, b in zip(given, back, strict=True):
        assert b.ids.tolist() == a.ids.tolist() and b.faces.image_size == a.faces.image_size
        for field in ("xyz", "sigma", "visible", "detection_scores", "expression", "expression_sigma"):
            np.testing.assert_allclose(getattr(b.faces, field), getattr(a.faces, field), atol=atol, err_msg=field)
        np.testing.assert_allclose(b.faces.pose.matrix, a.faces.pose.matrix, atol=4e-6)
    assert back[0].followed is not None and back[0].followed.tolist() == [True, False]
    assert back[0].blinking is not None and back[0].blinking.tolist() == [[True, False], [False, False]]
    assert back[1].followed is None and back[2].followed is None and back[2].blinking is None
    assert back[0].faces.weights == ("swift 1" if name == "a.parquet" else "")


def test_json_is_read_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", made_up_faces(ANGLES), image="photo.jpg")
    (back,) = canthus.read_faces(tmp_path / "a.json")
    assert back[:3] == ("photo.jpg", 0, 0.0) and back.ids.tolist() == [0, 1]
    np.testing.assert_allclose(back.faces.xyz, made_up_faces(ANGLES).xyz, atol=6e-4)


def test_both_formats_hold_the_same_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name in ("a.csv", "a.parquet"):
        write_table(tmp_path / name, images())
    text, typed = pandas.read_csv(tmp_path / "a.csv"), pandas.read_parquet(tmp_path / "a.parquet")
    assert list(text) == list(typed) == [column.name for column in COLUMNS]
    assert len(text) == len(typed) == 4  # two faces, nobody, one face
    for column in COLUMNS:
        a, b = text[column.name], typed[column.name]
        assert a.isna().tolist() == b.isna().tolist(), column.name
        if column.kind == "str":
            assert a.tolist() == b.tolist()
        else:
            known = ~a.isna()
            np.testing.assert_allclose(a[known].astype(float), b[known].astype(float), atol=6 * 10.0**-column.decimals)


def test_a_row_says_what_its_columns_promise() -> None:
    (image, *_), camera = images(), Camera(focal_length=800.0, euler="openface")
    table = rows([image], camera)
    faces = image.faces
    pitch_yaw_roll = np.stack([table[name] for name in ("pitch", "yaw", "roll")], 1)
    np.testing.assert_allclose(pitch_yaw_roll, faces.pose.euler("openface"))
    np.testing.assert_allclose(table["box_y1"], faces.xy[..., 1].max(1))
    np.testing.assert_allclose(table["eye_aspect_ratio_left"], eye_aspect_ratio(faces.xyz)[:, 1])
    np.testing.assert_allclose(table["jawOpen"], faces.expression[:, EXPRESSIONS.index("jawOpen")])
    np.testing.assert_allclose(table["z_30"], faces.xyz[:, 30, 2])
    np.testing.assert_allclose(table["translation_z"], 2 * rows([image], Camera(400.0))["translation_z"], rtol=1e-6)


def test_parquet_says_frames_units_and_camera(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "a.parquet", images(), camera=Camera(euler="arkit"), weights="swift 1")
    schema = pq.read_schema(tmp_path / "a.parquet")
    told = json.loads(schema.metadata[b"canthus"])
    assert told["frame"]["y"] == "down" and told["pose_frame"]["matrix"] == "camera from head"
    assert told["camera"]["euler"] == "arkit" and "assumed" in told["camera"]["focal_length"]
    assert schema.field("translation_z").metadata[b"unit"] == b"mm"
    assert {str(schema.field(name).type) for name in ("x_0", "yaw", "jawOpen")} == {"float"}
    assert str(schema.field("blink_left").type) == "bool" and str(schema.field("id").type) == "int32"


def test_row_groups_bound_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "ROW_GROUP", 3)
    with table_writer(tmp_path / "a.parquet") as put:
        for image in images() * 2:  # 2 + 1, 1 + 2, 1 + 1 rows
            put([image])
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [3, 3, 2]
    assert len(list(read_faces(tmp_path / "a.parquet"))) == 6


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_that_is_not_finished_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError), table_writer(tmp_path / name) as put:
        put(images())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_csv(tmp_path / "openface.csv", made_up_faces(ANGLES))
    write_table(tmp_path / "a.csv", images())
    (tmp_path / "short.csv").write_text((tmp_path / "a.csv").read_text()[:-9] + "\n")
    (tmp_path / "word.csv").write_text((tmp_path / "a.csv").read_text().replace(",0.040000,", ",soon,"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    for name in ("openface.csv", "short.csv", "word.csv", "a.parquet", "none.csv", "a.txt"):
        with pytest.raises(LandmarkError):
            list(read_faces(tmp_path / name))
    with pytest.raises(LandmarkError, match="got NoneType, want the path"):
        list(read_faces(None))
    with pytest.raises(OutputError, match=r"\.csv or \.parquet"):
        table_writer(tmp_path / "a.xlsx")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OutputError, match="needs pyarrow") as told, table_writer(tmp_path / "a.parquet"):
        pass
    assert pip_install("tables") in str(told.value) and list(tmp_path.iterdir()) == []


# OpenFace


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_names_of_openface(tmp_path: Path) -> None:
    faces = made_up_faces(ANGLES)
    write_csv(tmp_path / "a.csv", faces)
    found = rows_of(tmp_path / "a.csv")
    names = ["frame", "face_id", "timestamp", "confidence", "success"]
    names += [f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"]
    assert list(found[0]) == [*names, *(f"{axis}_{i}" for axis in "xyXYZ" for i in range(68))]
    assert [(row["frame"], row["face_id"], row["success"]) for row in found] == [("1", "0", "1"), ("1", "1", "1")]
    pose = [float(found[1][name]) for name in ("pose_Rx", "pose_Ry", "pose_Rz")]
    # seen at 480 px of 640 with f = 500: what is in the middle of a crop is atan(160.5 / 500) = 18 degrees to the side
    towards = matrix_from_euler(np.array([0, -np.arctan2(faces.xy[1, :, 0].mean() - 319.5, 500), 0]), "arkit")
    turned = euler_from_matrix((towards @ faces.pose.matrix[1])[None], "openface")[0]
    np.testing.assert_allclose(pose, turned, atol=2e-3)
    assert float(found[1]["x_30"]) == pytest.approx(faces.xyz[1, 30, 0], abs=6e-4)
    assert float(found[1]["y_8"]) == pytest.approx(faces.xyz[1, 8, 1], abs=6e-4)
    assert float(found[0]["confidence"]) == pytest.approx(faces.scores[0].mean(), abs=6e-5)


def test_millimetres_of_openface_project_onto_the_pixels(tmp_path: Path) -> None:
    image = images()[0]
    with table_writer(tmp_path / "a.csv", OPENFACE, Camera(700.0)) as put:
        put([image])
    table = {name: np.array([float(r[name]) for r in rows_of(tmp_path / "a.csv")]) for name in ("X_9", "Y_9", "Z_9")}
    xy = 700.0 * np.stack([table["X_9"], table["Y_9"]], 1) / table["Z_9"][:, None]
    np.testing.assert_allclose(xy + [319.5, 239.5], image.faces.xy[:, 9], atol=0.2)  # tenths of a millimetre
    nose = [float(rows_of(tmp_path / "a.csv")[0][f"Z_{k}"]) for k in (30, 0)]
    assert nose[0] < nose[1]  # the tip of the nose is nearer than the ear


def test_frames_without_a_face_are_rows_of_openface_too(tmp_path: Path) -> None:
    faces = made_up_faces(ANGLES)
    unknown = replace(faces[0], sigma=np.full((1, 68), np.nan))
    frames = [faces, Faces.empty(faces.image_size), unknown]
    write_csv(tmp_path / "a.csv", frames, timestamps=[0, 0.04, 0.08], face_ids=[[7, 3], [], [3]])
    found = rows_of(tmp_path / "a.csv")
    assert [(row["frame"], row["face_id"], row["timestamp"], row["success"]) for row in found] == [
        ("1", "7", "0.000", "1"), ("1", "3", "0.000", "1"), ("2", "", "0.040", "0"), ("3", "3", "0.080", "1"),
    ]  # fmt: skip
    assert found[1]["x_0"] != "" and found[2]["x_0"] == "" and found[3]["confidence"] == ""


def test_no_column_is_there_twice() -> None:
    for layout in (CANTHUS, OPENFACE):
        names = [column.name for column in layout.columns]
        assert len(set(names)) == len(names)
        assert all(column.about for column in layout.columns)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"timestamps": [0]}, "1 timestamps for 2 frames, want one a frame"),
        ({"face_ids": [[0, 1]]}, "1 face_ids for 2 frames, want one a frame"),
        ({"face_ids": [[0, 1], [0]]}, "1 face_ids for 2 faces of frame 1, want one a face"),
    ],
)
def test_times_and_numbers_that_do_not_fit_are_refused(tmp_path: Path, more, told) -> None:
    faces = made_up_faces(ANGLES)[:2]
    with pytest.raises(OutputError, match=told):
        write_csv(tmp_path / "a.csv", [faces, faces], **more)
    assert not list(tmp_path.iterdir())


def test_below_the_middle_is_down():
    image = ImageFaces("a", 0, 0.0, made_up_faces([(0.0, 0.0, 0.0)], (640, 960)), np.array([0]))
    low = image._replace(faces=replace(image.faces, xyz=image.faces.xyz + [0, 200, 0]))
    table = openface_rows([low], Camera(700.0))  # y down
    assert table["pose_Ty"][0] > 0 and table["Y_30"][0] > 0 and table["pose_Tz"][0] > 0
    assert rows([low], Camera(700.0))["translation_y"][0] < 0  # y up
