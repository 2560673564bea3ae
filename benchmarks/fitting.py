"""What fitting a head model is worth: `pose_aware` as faces turn, `cprfa` as what it sees gets worse.

    python benchmarks/fitting.py --data FOLDER --held FOLDER

FOLDER of `--data` holds `aflw2000-3d-dev/` (see `accuracy.py`), `--held` is a folder of rendered faces that no weights
learnt from (`canthus synth`; with `--set dense=true` they bring the vertices that the dense annotation is measured by).

Fig. 5b of the pose-aware paper: the error over the yaw, of the whole method and of one network that regresses all 68
points. Such a network is the first one of the same weights; a fairer one learns alone for all the steps,

    canthus train src/canthus/recipes/pose_aware-small-synth.yaml --set config.second=none --set stages={} --out FOLDER

and is given as `--one-stage FOLDER/weights`. Beside the lines stands, for each bin of yaw, how far the method's error
is below it and the standard error of that mean over the same faces.

Table 1 of the CPRFA paper, and its claim that matrices of relations bear a bad annotation: `DAMAGE` is done to what the
U-Net says, or to the picture, and the 68 points are measured that the `solver`s make of it, with the same weights. The
network of "CPR" alone is not among them: weights that learnt with `solver: cpr` are given as `--cpr`; without them, the
fused network is left without its sparse points, for which it never learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from accuracy import summary
from rich.console import Console
from rich.table import Table
from torch import Tensor

from canthus.data.datasets import StoredFaces
from canthus.data.formats import FaceSample, read_renders
from canthus.evaluation import metrics
from canthus.evaluation.collect import collect, picture_of, true_boxes
from canthus.evaluation.corruptions import corrupt
from canthus.evaluation.protocols import protocol
from canthus.evaluation.report import png
from canthus.evaluation.scores import BINS, Scores, by_steps_of_yaw, score
from canthus.face.faces import Alignment
from canthus.face.morphable import MorphableModel
from canthus.geometry.crop import Crop
from canthus.inference.predictor import Predictor
from canthus.io.charts import Chart, beside, lines, rendered
from canthus.io.images import crop_image
from canthus.io.outputs import atomic_write
from canthus.methods.cprfa.method import Cprfa
from canthus.methods.cprfa.unet import UNet
from canthus.papers.annotation import vertex_errors
from canthus.training.aligner import Aligner
from canthus.weights import find

BATCH = 16
PICTURES = Path(__file__).parents[1] / "docs" / "images"  # shown on the pages of the methods
DAMAGE: dict[str, tuple[str, tuple[int, ...]]] = {
    "missing regions": ("of the annotated pixels, %", (0, 20, 40, 60, 80)),
    "wrong codes": ("of the annotated pixels, %", (0, 20, 40, 60, 80)),
    "occlusion": ("of the box covered, %", (0, 10, 20, 30, 40, 50)),
}
"""What is done -> (what its strength is, strengths). The first two are done to the annotation, see `damaged`; the last
is that of `corruptions.corrupt`, done to the picture, so that the sparse detector suffers too."""
HOLE = 0.12  # radius of a missing region / side of a square of as many pixels as are annotated


# Weights


def folder_of(name: str) -> Path:
    """Weights of the project by name, or a folder."""
    return common.weights().get(name) or find(name)


def opened(name: str) -> Predictor:
    """Run as users run it: by ONNX Runtime where it is exported."""
    return common.load(folder_of(name), threads=1)


def variant(aligner: Aligner, title: str, **changes: Any) -> Any:
    """The aligner with other keys of its config and those of its weights that this needs."""
    other = type(aligner)(replace(aligner.config, **changes))
    weights = aligner.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    other.card = replace(other.card, name=title)
    return other.eval()


def unweighed(aligner: Cprfa, title: str) -> Cprfa:
    """The same updates, with the weight 1 for each step."""
    other: Cprfa = variant(aligner, title)
    with torch.no_grad():
        for name, parameter in other.round_2.named_parameters():
            if ".weights." in name:  # 2 sigmoid(0) = 1
                parameter.zero_()
    return other


# Over the yaw


def over_yaw(samples: Sequence[FaceSample], predictors: Mapping[str, Predictor]) -> dict[str, Scores]:
    """Scores of each predictor, crops from the true boxes."""
    rules = protocol("aflw2000")
    return {name: score(rules, samples, collect(one, samples)) for name, one in predictors.items()}


def yaws_of(samples: Sequence[FaceSample]) -> np.ndarray:
    return np.array([np.asarray(s.angles)[1] for s in samples])


def gains(ours: Scores, theirs: Scores) -> dict[str, dict[str, float]]:
    """How far our error is below theirs, percent of the face's size: mean and its standard error, of all and by yaw."""
    gain = 100 * (theirs.errors["NME box"] - ours.errors["NME box"])
    bins = metrics.yaw_bins(yaws_of(ours.pairs.samples))
    every = np.isfinite(gain)
    rows = {"all": {"mean": float(gain[every].mean()), "standard error": standard_error(gain[every])}}
    for k, name in enumerate(BINS):
        some = gain[(bins == k) & np.isfinite(gain)]
        if len(some) > 1:
            rows[name] = {"mean": float(some.mean()), "standard error": standard_error(some)}
    return rows


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def yaw_chart(title: str, scores: Mapping[str, Scores]) -> Any:
    series = {n: by_steps_of_yaw(yaws_of(s.pairs.samples), 100 * s.errors["NME box"]) for n, s in scores.items()}
    top = 1.9 * float(np.nanmax([y for _, y in series.values()]))  # the names lie above the lines
    return rendered(
        lines(Chart(title, "|yaw|, degrees, steps of 10", "NME box, %", (0, 90), (0, top), (560, 380)), series)
    )


# The dense annotation


def placed(samples: Sequence[FaceSample], predictor: Predictor) -> Crop:
    return Crop.around_boxes(true_boxes(samples), predictor.card.crop_scale, predictor.card.crop_size)


def crops_of(samples: Sequence[FaceSample], predictor: Predictor, covered: int = 0, first: int = 0) -> np.ndarray:
    """Crops (N,S,S,3) uint8, with `covered` percent of the true boxes behind a rectangle, which the number of the face,
    counted from `first`, decides on."""
    out = []
    for k, (sample, box) in enumerate(zip(samples, true_boxes(samples)), first):
        image = picture_of(sample)
        if covered:
            image = corrupt("occlusion", covered, k, image, box)
        out.append(crop_image(image, placed([sample], predictor)))
    return np.concatenate(out)


def as_input(crops: np.ndarray) -> Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


def error_row(errors: np.ndarray, detected: np.ndarray, bins: np.ndarray) -> dict[str, Any]:
    """A row of Table 1, percent, with the standard deviation over the bins; where nothing was found the error counts as
    1. Failed: an error above 10 % of the face's size, or less than 10 % detected."""
    errors = np.where(np.isfinite(errors), errors, 1.0)
    row, rate = metrics.table_row(errors, bins), metrics.table_row(detected, bins)

    def told(r: Any) -> dict[str, float | None]:
        values = dict(zip((*BINS, "mean of bins"), (*r.bins, r.mean_of_bins)))
        values["std"] = np.std(r.bins)
        return {name: 100 * float(v) if np.isfinite(v) else None for name, v in values.items()}

    failed = 100 * float(np.mean(~(errors <= 0.1) | (detected < 0.1)))
    return {"NME": told(row), "detected": told(rate), "failed": failed}


def dense_table(aligner: Cprfa, samples: Sequence[FaceSample], vertices: np.ndarray) -> dict[str, Any]:
    """Table 1: how near the annotation is to the true vertices (N,V,3) in image pixels, and how many it gives."""
    errors, rates = vertex_errors(aligner, samples, vertices)
    names = {"FAN-3D (68)": f"{aligner.config.sparse}, 68 points", "DAFI (68)": "annotation, 68 vertices"}
    names |= {"DAFI (53215)": "annotation, all vertices", "DAFI (512 for CPR)": "annotation, chosen vertices"}
    bins = metrics.yaw_bins(yaws_of(samples))
    return {names[row]: error_row(errors[row], rates[row], bins) for row in errors}


def damaged(what: str, percent: int, number: int, answer: Tensor) -> Tensor:
    """The answer (5,S,S) of the U-Net for face `number`, spoilt on `percent` of the pixels that it takes for face. More
    of it spoils the same pixels and others.

    missing regions: discs become background. wrong codes: single pixels get the code of any other.
    """
    rng = np.random.default_rng([number, 78])
    answer = answer.clone()
    y, x = (answer[4] > answer[3]).numpy().nonzero()
    if not len(y) or not percent:
        return answer
    if what == "wrong codes":
        order, others = rng.permutation(len(y)), rng.integers(0, len(y), len(y))
        wrong = order[: round(percent / 100 * len(y))]
        answer[:3, y[wrong], x[wrong]] = answer[:3, y[others[wrong]], x[others[wrong]]].clone()
        return answer
    gone = np.zeros(len(y), bool)
    for centre in rng.permutation(len(y)):
        if gone.mean() >= percent / 100:
            break
        gone |= (y - y[centre]) ** 2 + (x - x[centre]) ** 2 < HOLE**2 * len(y)
    answer[4, y[gone], x[gone]] = answer[3, y[gone], x[gone]] - 1
    return answer


@torch.inference_mode()
def under_damage(whole: Cprfa, rows: Mapping[str, tuple[Any, bool]], samples: Sequence[FaceSample]) -> dict[str, Any]:
    """NME of the 68 points, percent, mean of images: damage -> row -> by strength. A row is an aligner with the crops
    of `whole`, and whether it is given the sparse points."""
    results: dict[str, Any] = {}
    for what, (unit, strengths) in DAMAGE.items():
        sums = {name: np.zeros(len(strengths)) for name in rows}
        for k, percent in enumerate(strengths):
            covered = percent if what == "occlusion" else 0
            for begin in range(0, len(samples), BATCH):
                part = samples[begin : begin + BATCH]
                inputs = as_input(crops_of(part, whole, covered, begin))
                truths = np.stack([s.points for s in part]).astype(np.float64)
                truth = placed(part, whole).crop_from_image(truths)
                start = whole.sparse_points(inputs)
                maps: dict[UNet, tuple[Tensor, ...]] = {}
                for name, (aligner, is_given) in rows.items():
                    if aligner.unet not in maps:
                        *coarse, answer = aligner.unet(inputs)
                        if what != "occlusion":
                            spoilt = [damaged(what, percent, begin + i, one) for i, one in enumerate(answer)]
                            answer = torch.stack(spoilt)
                        maps[aligner.unet] = (*coarse, answer)
                    given = start if is_given else torch.full_like(start, torch.nan)
                    xyz = aligner.align(maps[aligner.unet], given).xyz.numpy()
                    sums[name][k] += 100 * float(metrics.nme_box(xyz[..., :2], truth[..., :2]).sum())
        errors = {name: [round(float(v), 4) for v in total / len(samples)] for name, total in sums.items()}
        results[what] = {"strength": unit, "strengths": list(strengths), "NME": errors}
    return results


class Fitted(Predictor):
    """The shipped head fitted by least squares to the sparse points alone, in the place of a `Cprfa`."""

    def __init__(self, whole: Cprfa):
        self.unet, self.sparse_points = whole.unet, whole.sparse_points
        self.card = replace(whole.card, name=f"head fitted to {whole.config.sparse}")

    def run(self, crops: np.ndarray) -> Alignment:
        """See `Predictor.run`."""
        return self.finish(self.align((), self.sparse_points(as_input(crops))).map(Tensor.numpy))

    def align(self, maps: tuple[Tensor, ...], start: Tensor) -> Alignment:
        """See `Cprfa.align`."""
        model = MorphableModel.default()
        fit = model.fit(start[..., :2].numpy().astype(np.float64))
        return Alignment(torch.from_numpy(fit.camera.project(model.landmarks(fit.identity, fit.expression))))


def damage_chart(what: str, result: Mapping[str, Any]) -> Any:
    series = {name: (result["strengths"], errors) for name, errors in result["NME"].items()}
    top = 1.5 * max(max(y) for _, y in series.values())
    return rendered(lines(Chart(what, result["strength"], "NME box, %", None, (0, top), (470, 360)), series))


# The command


def shown(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> None:
    table = Table(title, *columns)
    for name, values in rows.items():
        table.add_row(name, *("" if v is None else f"{v:.2f}" for v in values))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--pose-aware", default="pose_aware-small")
    parser.add_argument("--cprfa", default="cprfa-small")
    parser.add_argument("--against", nargs="*", default=["swift", "jvcr-small"])
    parser.add_argument("--one-stage", help="weights of one network of pose_aware (second: none)")
    parser.add_argument("--cpr", help="weights of cprfa with solver: cpr")
    parser.add_argument("--faces", type=int, default=200, help="rendered faces that are damaged, evenly spaced")
    args = parser.parse_args()
    torch.set_num_threads(1)

    stored = StoredFaces([args.held])
    photos = protocol("aflw2000").faces(args.data / common.DEVELOPMENT)
    sets = {"rendered": list(read_renders(args.held)), "photos": photos}
    network_1 = variant(Aligner.load(folder_of(args.pose_aware)), "network 1", second="none")
    ours = Path(args.pose_aware).name
    predictors: dict[str, Predictor] = {ours: opened(args.pose_aware), f"network 1 of {ours}": network_1}
    alone = f"network 1 of {ours}"
    if args.one_stage:
        alone = "one network, alone"
        predictors[alone] = opened(args.one_stage)
    whole = Aligner.load(folder_of(args.cprfa))
    if not isinstance(whole, Cprfa):
        parser.error(f"--cprfa: '{args.cprfa}' are weights of another method")
    by_pnp, fitted = f"PnP + {whole.config.sparse}", f"head fitted to {whole.config.sparse}"
    sparse, head = variant(whole, by_pnp, solver="pnp-sparse"), Fitted(whole)
    updated = Path(args.cprfa).name
    predictors |= {updated: opened(args.cprfa), by_pnp: sparse, fitted: head}
    against = {Path(name).name: opened(name) for name in args.against}
    predictors |= against
    pairs = [(ours, alone), *((updated, other) for other in (by_pnp, fitted, *against))]
    if whole.weighed:
        first, even = "one round", "two rounds, steps not weighed"
        predictors |= {first: variant(whole, first, solver="cpr-fused"), even: unweighed(whole, even)}
        pairs += [(updated, first), (updated, even)]
    results: dict[str, Any] = {"weights": {name: one.card.title for name, one in predictors.items()}}
    charts = []
    for title, samples in sets.items():
        scores = over_yaw(samples, predictors)
        rows = {name: summary(s) for name, s in scores.items()}
        told = {f"{a} below {b}": gains(scores[a], scores[b]) for a, b in pairs}
        results[title] = {"errors": rows, **told}
        columns = (*BINS, "mean of bins", "gte", "pose_degrees")
        shown(f"{title}, NME %", columns, {name: [row[c] for c in columns] for name, row in rows.items()})
        for what, gain in told.items():
            for name, row in gain.items():
                print(f"{title}, {name}: {what} by {row['mean']:.2f} +- {row['standard error']:.2f} %")
        charts.append(yaw_chart(title, scores))
    if stored.vertices is None:
        print("no table of the dense annotation: the held-out faces bring no vertices (canthus synth --set dense=true)")
    else:
        vertices = np.concatenate(stored.vertices)
        results["annotation"] = dense_table(whole, sets["rendered"], vertices)
        for what in ("NME", "detected"):
            rows = {name: [*row[what].values(), row["failed"]] for name, row in results["annotation"].items()}
            shown(f"annotation, {what} %", (*BINS, "mean of bins", "std", "failed"), rows)
    pnp, fused = (variant(whole, name, solver=name) for name in ("pnp-dense", "cpr-fused"))
    pnp.unet = sparse.unet = fused.unet = whole.unet  # asked once
    solvers: dict[str, tuple[Any, bool]] = {"PnP": (pnp, False), by_pnp: (sparse, True), fitted: (head, True)}
    if args.cpr:
        solvers["CPR"] = (Aligner.load(folder_of(args.cpr)), False)
    else:
        solvers["CPR, sparse points kept away"] = (fused, False)
    solvers |= {f"CPR + {whole.config.sparse}": (fused, True), "whole": (whole, True)}
    chosen = np.unique(np.linspace(0, len(stored) - 1, min(args.faces, len(stored))).round().astype(int))
    results["damage"] = under_damage(whole, solvers, [sets["rendered"][k] for k in chosen]) | {"faces": len(chosen)}
    for what, (unit, strengths) in DAMAGE.items():
        shown(f"{what}, {unit}", [str(s) for s in strengths], results["damage"][what]["NME"])

    print(common.write("fitting", results))
    pictures = {"yaw": charts, "damage": [damage_chart(what, results["damage"][what]) for what in DAMAGE]}
    for name, row in pictures.items():
        atomic_write(PICTURES / f"fitting-{name}.png", png(beside(row)))


if __name__ == "__main__":
    main()
