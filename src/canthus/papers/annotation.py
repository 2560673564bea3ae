"""Table 1 of the CPRFA paper: how near the vertices of a dense annotation are to the truth, and how many it gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from canthus.data.formats import FaceSample
from canthus.evaluation import metrics
from canthus.evaluation.collect import picture_of, true_boxes
from canthus.evaluation.scores import BINS
from canthus.evaluation.table import Table
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop
from canthus.io.images import crop_image
from canthus.io.shards import open_shard, shards_in
from canthus.methods.cprfa.linear_face import pixels
from canthus.methods.cprfa.method import Cprfa
from canthus.training.aligner import Aligner

BATCH = 16
FAILED_ERROR, FAILED_RATE = 0.1, 0.1  # of the face's size, more; of the vertices, less
COLUMNS = (*BINS, "mean of bins", "std (ddof 1)", "std (ddof 0)", "failure")


def annotation_tables(aligner: Aligner, samples: Sequence[FaceSample], folder: Path) -> list[Table]:
    """Two tables in percent, "dense annotation, NME" and "dense annotation, ADR", with the rows of the paper's Table 1.

    Of rendered faces that store their vertices, which are those of the default head; none for other methods, heads and
    faces. NME is over the vertices that were found; a face of which none is found has failed and counts in no mean.
    """
    if not isinstance(aligner, Cprfa) or aligner.config.model:
        return []
    vertices = stored_vertices(folder)
    if any(s.name not in vertices for s in samples):
        return []
    errors, rates = vertex_errors(aligner, samples, np.stack([vertices[s.name] for s in samples]))
    bins = metrics.yaw_bins([np.asarray(s.angles)[1] for s in samples])
    rows: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for name in errors:
        seen = np.isfinite(errors[name])
        failed = float(np.mean(~(errors[name] <= FAILED_ERROR) | (rates[name] < FAILED_RATE)))
        for kept, values, some in ((rows, errors[name], seen), (shares, rates[name], np.ones_like(seen))):
            row = metrics.table_row(values[some], bins[some])
            several = (*row.bins, row.mean_of_bins, row.std, row.std_population, failed)
            kept[name] = [100 * float(v) for v in several]
    return [Table("dense annotation, NME", COLUMNS, rows), Table("dense annotation, ADR", COLUMNS, shares)]


def stored_vertices(folder: Path) -> dict[str, np.ndarray]:
    """The vertices (V,3) of rendered faces in image pixels, by the names of `read_renders`; of shards without none."""
    found: dict[str, np.ndarray] = {}
    for path in shards_in(folder):
        shard = open_shard(path)
        if "vertices" in shard.files:
            found |= {f"{path.stem}#{k}": one for k, one in enumerate(shard.read(["vertices"])["vertices"])}
    return found


@torch.inference_mode()
def vertex_errors(
    aligner: Cprfa, samples: Sequence[FaceSample], vertices: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By row of Table 1, for N faces with true vertices (N,V,3) in image pixels: the mean distance (N,) of those found
    over the face's size, NaN where none is, and the share (N,) that is found."""
    face, size = aligner.face, aligner.config.size
    region = face.region.numpy()
    head = MorphableModel.default()
    nearest = head.landmark_weights.argmax(1)[:, None]
    marks = np.take_along_axis(head.landmark_ids, nearest, 1)[:, 0]  # the vertex nearest to each landmark
    sets = {
        "DAFI (68)": np.flatnonzero(np.isin(region, marks)),
        "DAFI (53215)": np.arange(len(region)),
        "DAFI (512 for CPR)": aligner.layout[:2].flatten().numpy(),
    }
    distances, found, sparse = [], [], []
    for begin in range(0, len(samples), BATCH):
        part = samples[begin : begin + BATCH]
        crop = Crop.around_boxes(true_boxes(part), aligner.card.crop_scale, aligner.card.crop_size)
        cut = np.concatenate([crop_image(picture_of(s), crop[k : k + 1]) for k, s in enumerate(part)])
        inputs = torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255
        points, hits = aligner.look_up(aligner.unet(inputs)[-1], torch.arange(len(region)))
        truth = crop.crop_from_image(vertices[begin : begin + BATCH, region].astype(np.float64))[..., :2]
        landmarks = crop.crop_from_image(np.stack([s.points for s in part]).astype(np.float64))[..., :2]
        extent = np.sqrt(np.prod(np.ptp(landmarks, axis=1), axis=1))
        distances.append(np.linalg.norm(pixels(points, size).numpy() - truth, axis=-1) / extent[:, None])
        found.append(hits.numpy())
        if aligner.fused:
            predicted = aligner.sparse_points(inputs).numpy()[..., :2]
            sparse.append(np.linalg.norm(predicted - landmarks, axis=-1).mean(1) / extent)
    distance, known = np.concatenate(distances), np.concatenate(found)
    errors: dict[str, np.ndarray] = {"FAN-3D (68)": np.concatenate(sparse)} if sparse else {}
    rates: dict[str, np.ndarray] = {"FAN-3D (68)": np.ones(len(samples))} if sparse else {}
    for name, ids in sets.items():
        present = known[:, ids]
        errors[name] = (distance[:, ids] * present).sum(1) / np.where(present.any(1), present.sum(1), np.nan)
        rates[name] = present.mean(1)
    return errors, rates
