"""Tables of faces in files: CSV, and Parquet by pyarrow (extra `tables`); `read_faces` reads every file of faces.

The columns are defined in `io.columns`. A Parquet file says in its metadata, under the key "canthus", what
`about` gives as JSON; each of its fields says its unit.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from canthus.decode import decoding, encodable, fits, parse_json, read_text
from canthus.errors import LandmarkError, OutputError, amount, pip_install
from canthus.face.faces import Faces
from canthus.io.columns import ASSUMED, CANTHUS, COLUMNS, OPENFACE, Camera, Column, ImageFaces, Layout, Rows, images_of
from canthus.io.lines import read_json_lines
from canthus.io.outputs import FRAME, POSE_FRAME, atomic_open, atomic_write, read_document

SCHEMA = "canthus.table/1"
KEY = b"canthus"
FORMATS = (".csv", ".parquet")
ROW_GROUP = 4096  # rows of a Parquet file that are written together, some 8 MB

Put = Callable[[Sequence[ImageFaces]], None]


def about(camera: Camera = ASSUMED, weights: str = "") -> dict[str, Any]:
    """What holds for all rows of a table, as plain data: frames and units, set of angles, camera, weights."""
    return {
        "schema": SCHEMA,
        "frame": FRAME,
        "pose_frame": POSE_FRAME,
        "camera": camera.about(),
        "scheme": "ibug68",
        "weights": weights,
    }


def table_writer(
    path: str | os.PathLike[str], layout: Layout = CANTHUS, camera: Camera = ASSUMED, weights: str = ""
) -> AbstractContextManager[Put]:
    """A function to which to give images with their faces, some at a time; the file is there when the block has ended.

    path: ends in .csv or .parquet. Images without a face are one row without numbers. A Parquet file has row groups of
    ROW_GROUP rows or a few more. Raises `OutputError`, also for another ending and where pyarrow is wanted and missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise OutputError(f"got a table {os.fspath(path)!r}, want one that ends in {' or '.join(FORMATS)}")
    if suffix == ".csv":
        return _csv_writer(path, layout, camera)
    return _parquet_writer(path, layout, camera, weights)


def write_table(path: str | os.PathLike[str], images: Sequence[ImageFaces], **options: Any) -> None:
    """Write all images at once; options and errors as of `table_writer`."""
    with table_writer(path, **options) as put:
        put(images)


def arrow_table(
    images: Sequence[ImageFaces], layout: Layout = CANTHUS, camera: Camera = ASSUMED, weights: str = ""
) -> Any:
    """The rows of images as a table of pyarrow, with what a Parquet file holds in its metadata. Raises `OutputError`
    where pyarrow is missing."""
    pa = _pyarrow("in memory")
    fields = [_field(pa, column) for column in layout.columns]
    rows = layout.rows(images, camera)
    arrays = [_arrow(pa, rows[column.name], field.type) for column, field in zip(layout.columns, fields)]
    schema = pa.schema(fields, {KEY: json.dumps(about(camera, weights)).encode()})
    return pa.Table.from_arrays(arrays, schema=schema)


def write_rows(path: str | os.PathLike[str], table: Rows, columns: Sequence[Column]) -> None:
    """Write a table of other columns, .csv or .parquet. Raises `OutputError`."""
    if Path(path).suffix.lower() == ".csv":
        lines = zip(*(_texts(table[column.name], column) for column in columns))
        atomic_write(path, _csv([column.name for column in columns], *lines))
        return
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    fields = [_field(pa, column) for column in columns]
    arrays = [_arrow(pa, table[column.name], field.type) for column, field in zip(columns, fields)]
    with atomic_open(path) as file:
        pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), file, compression="zstd")


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """The columns of a Parquet file that hold text, as objects, or numbers, as float64; what is null is None or NaN.

    Raises `LandmarkError` for another file, and `OutputError` where pyarrow is missing.
    """
    pa = _pyarrow(path)
    import pyarrow.parquet as pq

    with decoding(LandmarkError, f"got a table {os.fspath(path)!r} that cannot be read, want Parquet"):
        table, rows = pq.read_table(path), Rows()
        for name, column in zip(table.column_names, table.columns):
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                rows[name] = np.array(column.to_pylist(), object)
            elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
                rows[name] = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    return rows


def read_columns(file: BinaryIO, name: str, wanted: Sequence[str], also: Sequence[str] = ()) -> Iterator[Rows]:
    """Columns of COLUMNS out of a table that anybody wrote, some rows at a time; a Parquet file if `name` says so.

    Those of `also` are all there, or none. Raises `LandmarkError` for a file that is no such table.
    """
    of_name = {column.name: column for column in COLUMNS}
    what = f"got a table {name} that cannot be read, want the columns {', '.join(wanted)}"
    groups = _parquet_groups if Path(name).suffix.lower() == ".parquet" else _csv_groups
    with decoding(LandmarkError, what):
        header, tables = groups(file)
        if there := [name for name in also if name in header]:
            if missing := [name for name in also if name not in header]:
                raise ValueError(f"it has {', '.join(there)} without {', '.join(missing)}")
        if not set(wanted) <= set(header):
            raise ValueError(f"it has the columns {', '.join(header[:20])}" if header else "it has no columns")
        columns = [of_name[name] for name in (*wanted, *there)]
    while True:
        with decoding(LandmarkError, what):
            table = tables(columns)
        if table is None:
            return
        yield table


Tables = Callable[[Sequence[Column]], Rows | None]


def _csv_groups(file: BinaryIO) -> tuple[list[str], Tables]:
    """Names of the columns, and a function to the next rows of some of them."""
    lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""), strict=True)
    header = next(lines, [])

    def some(columns: Sequence[Column]) -> Rows | None:
        at = {column.name: header.index(column.name) for column in columns}
        cells: list[list[str]] = []
        for line in islice(filter(None, lines), ROW_GROUP):
            if len(line) != len(header):
                raise ValueError(f"line {lines.line_num} has {amount(len(line), 'value')}, the first has {len(header)}")
            cells.append(line)
        return {c.name: _parsed([line[at[c.name]] for line in cells], c) for c in columns} if cells else None

    return header, some


def _parquet_groups(file: BinaryIO) -> tuple[list[str], Tables]:
    """The same of a Parquet file."""
    _pyarrow("<list>")
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    groups = iter(range(parquet.num_row_groups))

    def some(columns: Sequence[Column]) -> Rows | None:
        if (group := next(groups, None)) is None:
            return None
        table = parquet.read_row_group(group, [column.name for column in columns])
        return {c.name: _numpy(table[c.name].combine_chunks(), c) for c in columns}

    return parquet.schema_arrow.names, some


def write_csv(
    path: str | os.PathLike[str],
    frames: Faces | Sequence[Faces],
    *,
    timestamps: Sequence[float] | None = None,
    face_ids: Sequence[Sequence[int]] | None = None,
) -> None:
    """Write a CSV table with the column names of OpenFace (`columns.OPENFACE`), one row a face.

    `frames` is one `Faces` a frame, or that of a single image; `timestamps` is the second of each frame (0 if
    not given), `face_ids` the number of each face of each frame (its place in the frame if not given).
    `frame` counts from 1. A frame without a face gets one row with success 0 and empty cells, as do unknown numbers.
    Millimetres are those of the assumed camera of `columns.Camera`. Raises `OutputError`.
    """
    frames = [frames] if isinstance(frames, Faces) else frames
    timestamps = [0.0] * len(frames) if timestamps is None else timestamps
    face_ids = [range(len(faces)) for faces in frames] if face_ids is None else face_ids
    for what, given in (("timestamps", timestamps), ("face_ids", face_ids)):
        if len(given) != len(frames):
            raise OutputError(f"got {len(given)} {what} for {amount(len(frames), 'frame')}, want one a frame")
    for number, (faces, ids) in enumerate(zip(frames, face_ids)):
        if len(ids) != len(faces):
            got = f"{len(ids)} face_ids for {amount(len(faces), 'face')} of frame {number}"
            raise OutputError(f"got {got}, want one a face")
    images = [
        ImageFaces("", number, time, faces, np.asarray(ids, int))
        for number, (faces, time, ids) in enumerate(zip(frames, timestamps, face_ids, strict=True))
    ]
    atomic_write(path, _csv([c.name for c in OPENFACE.columns]) + _csv_rows(images, OPENFACE, ASSUMED))


def read_faces(path: str | os.PathLike[str]) -> Iterator[ImageFaces]:
    """The faces in a file that canthus wrote, image by image: .json of a photo, .jsonl of a video, or a table, .csv or
    .parquet, of either with the columns of canthus; or in all tables of a folder, part-00000.parquet and so on.

    Numbers are as exact as the file has them. A CSV file does not name the weights. A Parquet file is read by its row
    groups. Raises `LandmarkError` for a file that cannot be read, is of another kind, or lacks columns.
    """
    if not isinstance(path, str | os.PathLike):
        raise LandmarkError(f"got {type(path).__name__}, want the path of a file that canthus wrote")
    if os.path.isdir(path):
        parts = sorted(part for part in Path(path).glob("part-*") if part.suffix in FORMATS)
        if not parts:
            raise LandmarkError(f"got the folder {os.fspath(path)} without tables, want one that `canthus align` wrote")
        for part in parts:
            yield from read_faces(part)
        return
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        document, faces = read_document(path)
        name = document["image"].get("path") or document["image"]["name"]
        yield ImageFaces(str(name or ""), 0, 0.0, faces, np.arange(len(faces)))
    elif suffix == ".jsonl":
        yield from read_json_lines(path)
    elif suffix == ".csv":
        with decoding(LandmarkError, f"got a file {os.fspath(path)} that is no table of canthus, want its CSV"):
            images = list(images_of(_parse_csv(read_text(path))))
        yield from images
    elif suffix == ".parquet":
        yield from _read_parquet(path)
    else:
        raise LandmarkError(f"got the file {os.fspath(path)}, want one that ends in .json, .jsonl, .csv or .parquet")


@contextmanager
def _csv_writer(path: str | os.PathLike[str], layout: Layout, camera: Camera) -> Iterator[Put]:
    with atomic_open(path) as file:
        file.write(_csv([column.name for column in layout.columns]))
        yield lambda images: _ignore(file.write(_csv_rows(images, layout, camera)))


def _ignore(_: Any) -> None:
    """Drop a value."""


def _csv_rows(images: Sequence[ImageFaces], layout: Layout, camera: Camera) -> bytes:
    table = layout.rows(images, camera)
    return _csv(*zip(*(_texts(table[column.name], column) for column in layout.columns)))


def _texts(values: np.ndarray, column: Column) -> list[Any]:
    """A column as texts, empty where nothing is known; truth values are 1 and 0."""
    hidden = np.ma.getmaskarray(values)
    if column.kind in ("float", "double"):
        plain = np.asarray(values, np.float64)
        return ["" if value != value else f"{value:.{column.decimals}f}" for value in plain.tolist()]
    plain = np.ma.getdata(values) if column.kind == "str" else np.ma.getdata(values).astype(int)
    return ["" if h else value for value, h in zip(plain.tolist(), hidden.tolist())]


def _csv(*lines: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return encodable(text.getvalue()).encode("utf-8")


def _parse_csv(text: str) -> Rows:
    lines = list(csv.reader(io.StringIO(text), strict=True))
    names, cells = lines[0], lines[1:]
    if any(len(line) != len(names) for line in cells):
        raise ValueError("its lines differ in length")
    by_name = dict(zip(names, zip(*cells) if cells else [()] * len(names)))
    return {column.name: _parsed(by_name[column.name], column) for column in COLUMNS}


def _parsed(texts: Sequence[str], column: Column) -> np.ndarray:
    if column.kind == "str":
        return np.array(texts, object)
    if column.kind in ("float", "double"):
        return np.array([float(text) if text else np.nan for text in texts], np.float64)
    return np.ma.array([int(text or 0) for text in texts], int, mask=[not text for text in texts])


@contextmanager
def _parquet_writer(path: str | os.PathLike[str], layout: Layout, camera: Camera, weights: str) -> Iterator[Put]:
    _pyarrow(path)
    import pyarrow.parquet as pq

    waiting: list[ImageFaces] = []
    rows = 0  # of `waiting`

    def flush() -> None:
        nonlocal rows
        writer.write_table(arrow_table(waiting, layout, camera, weights), row_group_size=2 * ROW_GROUP)
        waiting.clear()
        rows = 0

    def put(images: Sequence[ImageFaces]) -> None:
        nonlocal rows
        waiting.extend(images)
        rows += sum(max(len(image.faces), 1) for image in images)
        if rows >= ROW_GROUP:
            flush()

    schema = arrow_table([], layout, camera, weights).schema
    with atomic_open(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield put
        flush()


def _field(pa: Any, column: Column) -> Any:
    """An Arrow field, with the unit and meaning of the column."""
    kinds = {"str": pa.string(), "int": pa.int32(), "bool": pa.bool_(), "float": pa.float32(), "double": pa.float64()}
    return pa.field(column.name, kinds[column.kind], metadata={"unit": column.unit, "about": column.about})


def _arrow(pa: Any, values: np.ndarray, kind: Any) -> Any:
    """An Arrow array; what is masked or NaN is null."""
    if values.dtype.kind == "O":
        return pa.array([encodable(text) for text in values.tolist()], kind, mask=np.ma.getmaskarray(values))
    hidden = np.ma.getmaskarray(values)
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "f":
        hidden = np.isnan(plain)
    return pa.array(plain, kind, mask=hidden, safe=False)


def _read_parquet(path: str | os.PathLike[str]) -> Iterator[ImageFaces]:
    _pyarrow(path)
    import pyarrow.parquet as pq

    what = f"got a file {os.fspath(path)} that is no table of canthus, want its Parquet"
    with decoding(LandmarkError, what):
        file = pq.ParquetFile(path, memory_map=True)
    with file:
        with decoding(LandmarkError, what):
            metadata: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
            about = parse_json(metadata[KEY])
            if about["schema"] != SCHEMA or not fits(about["weights"], str):
                raise ValueError(f"its schema is {about['schema']!r}")
        for group in range(file.num_row_groups):
            with decoding(LandmarkError, what):
                columns = file.read_row_group(group, [column.name for column in COLUMNS])
                table = {column.name: _numpy(columns[column.name].combine_chunks(), column) for column in COLUMNS}
                images = list(images_of(table, about["weights"]))
            yield from images


def _numpy(array: Any, column: Column) -> np.ndarray:
    """The column of an Arrow array. Raises anything for another type."""
    if column.kind == "str":
        return np.array([text for text in array.to_pylist()], object)
    if column.kind in ("float", "double"):
        return np.asarray(array.to_numpy(zero_copy_only=False), np.float64)
    hidden = np.asarray(array.is_null())
    return np.ma.array(np.asarray(array.fill_null(False if column.kind == "bool" else 0)), mask=hidden)


def _pyarrow(path: str | os.PathLike[str]) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        what = f"got the table {os.fspath(path)!r}, which needs pyarrow: {pip_install('tables')}"
        raise OutputError(what) from error
    return pyarrow
