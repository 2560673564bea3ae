"""Train the rounds of cprfa on answers of its U-Net and of its sparse detector that are computed once.

    python tools/train_rounds.py --weights FOLDER --faces data/dense --out runs/rounds --set vertices=80

The U-Net and the choice of vertices are those of `--weights` and stay as they are; `--set` changes other keys of the
config. Each face is cropped `--views` times, and what is found there is kept in OUT/seen; a step then costs a fraction
of what it does in `canthus train`. What was found is turned, scaled and moved a little at each step, so are the truth
and the sparse points; some vertices are lost. Stops and goes on: OUT holds a checkpoint. Ends with OUT/weights.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save
from torch import Tensor, nn

from canthus.data.augment import Augmentation, Augmenter
from canthus.data.datasets import StoredFaces
from canthus.io.outputs import atomic_open, atomic_write
from canthus.io.yaml_config import parse_yaml
from canthus.methods.cprfa.linear_face import normalised, pixels
from canthus.methods.cprfa.method import Cprfa
from canthus.training.aligner import Aligner, build

BATCH, CHUNK, SAVE_EVERY = 16, 64, 250
LR, KEEP = 1e-3, 0.995  # of Adam, cosine to 1 %; of the moving average
ROLL, GROWTH, SHIFT = 0.17, 0.06, 0.04  # deviations of the moves of a step: radians, logarithm, half crops
LOST, WHITE = 0.3, 0.005  # at most so many of the vertices are lost; noise on all points, half crops
Seen = dict[str, Tensor]


def changed(weights: str, settings: dict[str, object]) -> Cprfa:
    """New rounds beside the U-Net and the counts of trained weights, from which the vertices are chosen."""
    trained = Aligner.load(weights)
    assert isinstance(trained, Cprfa)
    aligner = build("cprfa", {**asdict(trained.config), **settings})
    assert isinstance(aligner, Cprfa)
    kept = {
        k: v for k, v in trained.state_dict().items() if k.startswith("unet.") or k in ("seen", "found", "closeness")
    }
    aligner.load_state_dict({**aligner.state_dict(), **kept})
    aligner.choose_vertices()
    aligner.card = replace(trained.card, files={}, measured=[])
    return aligner


@torch.no_grad()
def seen_in(aligner: Cprfa, faces: StoredFaces, views: int, folder: Path) -> Seen:
    """What is found on `views` crops of each face: `points` and `there` of the vertices, `sparse` points in half crops,
    the true `marks` (landmarks) and `state`. Chunks that are in the folder are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    aligner.eval()
    augmenter = Augmenter(Augmentation(), aligner.config.size, aligner.config.crop_scale)
    vertices = torch.cat([aligner.layout.flatten(), aligner.picked])
    parts: list[Seen] = []
    jobs = [(view, begin) for view in range(views) for begin in range(0, len(faces), CHUNK)]
    for view, begin in track(jobs, "looking"):
        path = folder / f"{view}-{begin:06d}.npz"
        if not path.exists():
            rng = torch.Generator().manual_seed(1000003 * view + begin)
            truth = augmenter(faces.take(np.arange(begin, min(begin + CHUNK, len(faces)))), rng)
            points, there = aligner.look_up(aligner.unet(truth.crops)[-1], vertices)
            sparse = normalised(aligner.sparse_points(truth.crops), aligner.config.size)
            marks, state = normalised(truth.xyz, aligner.config.size), aligner.true_state(truth)
            found = {"points": points, "there": there, "sparse": sparse, "marks": marks, "state": state}
            with atomic_open(path) as file:
                np.savez(file, **{k: v.numpy() for k, v in found.items()})
        with np.load(path) as stored:
            parts.append({k: torch.from_numpy(stored[k]) for k in stored.files})
    return {k: torch.cat([part[k] for part in parts]) for k in parts[0]}


def moved(seen: Seen, lost: float, rng: torch.Generator) -> Seen:
    """The same faces turned in the plane, scaled and shifted, with noise; some points are no longer there."""
    count = len(seen["state"])
    angle, growth, x, y = (
        torch.randn(4, count, 1, generator=rng) * torch.tensor([ROLL, GROWTH, SHIFT, SHIFT])[:, None, None]
    )
    c, s, scale = angle.cos(), angle.sin(), growth.exp()

    def place(points: Tensor, noise: float = WHITE) -> Tensor:
        u, v, *depth = points.unbind(-1)
        there = torch.stack([scale * (c * u - s * v) + x, scale * (s * u + c * v) + y, *(scale * z for z in depth)], -1)
        return there + noise * torch.randn(there.shape, generator=rng)

    state = seen["state"].clone()
    state[:, -4] += angle[:, 0]
    state[:, -3] *= scale[:, 0]
    u, v = state[:, -2:].clone().T
    state[:, -2] = (scale[:, 0] * (c[:, 0] * u - s[:, 0] * v)) + x[:, 0]
    state[:, -1] = (scale[:, 0] * (s[:, 0] * u + c[:, 0] * v)) + y[:, 0]
    share = LOST * torch.rand(count, 1, generator=rng)
    there = seen["there"] & (torch.rand(seen["there"].shape, generator=rng) > share)
    gone = (torch.rand(count, 1, generator=rng) < lost) & (
        torch.rand(count, 68, generator=rng) < 1.25 * torch.rand(count, 1, generator=rng)
    )
    sparse = place(seen["sparse"]).masked_fill(gone[..., None], torch.nan)
    marks = place(seen["marks"], noise=0.0)
    return {"points": place(seen["points"]), "there": there, "sparse": sparse, "marks": marks, "state": state}


def terms_of(aligner: Cprfa, seen: Seen, rounds: int) -> dict[str, Tensor]:
    """The loss terms of the last of the first `rounds`."""
    size, state = aligner.config.size, seen["state"]
    arranged = aligner.arranged(seen["points"], seen["there"], pixels(seen["sparse"], size), aligner.picked)
    name = list(aligner.rounds())[rounds - 1]
    terms = aligner.pose_loss(aligner.updated((), *arranged, rounds), pixels(seen["marks"], size), state)
    return {k: terms[k] for k in (name, "points")}


def learn(aligner: Cprfa, seen: Seen, steps: list[int], out: Path, seed: int) -> None:
    """Train one round after the other; the aligner ends with the averaged weights."""
    total, done = sum(steps), 0
    average = {k: v.clone() for k, v in aligner.state_dict().items()}
    optimizer: torch.optim.Optimizer | None = None
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        tensors = load_file(checkpoint)
        done = int(tensors["step"])
        average = {k: tensors[f"average.{k}"] for k in average}
        aligner.load_state_dict({k: tensors[f"model.{k}"] for k in average})
    for stage, (name, module), last in zip(aligner.stages()[1:], aligner.rounds().items(), np.cumsum(steps).tolist()):
        first = last - steps[list(aligner.rounds()).index(name)]
        if done >= last:
            continue
        aligner.load_state_dict({k: v for k, v in average.items()} if done <= first else aligner.state_dict())
        aligner.requires_grad_(False)
        module.requires_grad_(True)
        optimizer = torch.optim.Adam(module.parameters(), LR)
        if done > first:
            rows = {k: tensors[f"optimizer.{k}"] for k in ("first", "second")}
            _set_moments(optimizer, module, rows, done - first)
        for step in range(done, last):
            rng = torch.Generator().manual_seed(1000003 * seed + step)
            torch.manual_seed(1000003 * seed + step)
            some = torch.randint(len(seen["state"]), (BATCH,), generator=rng)
            batch = moved({k: v[some] for k, v in seen.items()}, aligner.config.lost, rng)
            aligner.train()
            aligner.unet.eval()
            terms = {k: v.mean() for k, v in terms_of(aligner, batch, list(aligner.rounds()).index(name) + 1).items()}
            loss = torch.stack([stage.terms[k] * v for k, v in terms.items()]).sum()
            for group in optimizer.param_groups:
                progress = (step - first) / (last - first)
                warm = min(1.0, (step - first + 1) / 50)
                group["lr"] = LR * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            done = step + 1
            keep = min(KEEP, (done - first) / (done - first + 10))
            for key, value in aligner.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - keep)
            if done % 50 == 0:
                told = " ".join(f"{k} {v.item():.4f}" for k, v in terms.items())
                print(f"step {done} of {total}: {told}", flush=True)
            if done % SAVE_EVERY == 0 or done == last:
                state = {f"model.{k}": v for k, v in aligner.state_dict().items()}
                state |= {f"average.{k}": v for k, v in average.items()}
                state |= {f"optimizer.{k}": v for k, v in _moments(optimizer, module).items()}
                state["step"] = torch.tensor(done)
                atomic_write(checkpoint, save({k: v.contiguous().clone() for k, v in state.items()}))
    aligner.load_state_dict(average)


@torch.no_grad()
def damp(aligner: Cprfa, factor: float) -> None:
    """Make all changes that the updates give `factor` times as large."""
    for part in aligner.rounds().values():
        for update in part.updates.values():
            for out in update.outs:  # type: ignore[union-attr]
                out.weight *= factor
                out.bias *= factor


def _moments(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Adam's two moments, each of all parameters in a row."""
    rows = [optimizer.state[p] for p in module.parameters()]
    return {
        "first": torch.cat([row["exp_avg"].flatten() for row in rows]),
        "second": torch.cat([row["exp_avg_sq"].flatten() for row in rows]),
    }


def _set_moments(optimizer: torch.optim.Optimizer, module: nn.Module, rows: dict[str, Tensor], steps: int) -> None:
    parameters = list(module.parameters())
    sizes = [p.numel() for p in parameters]
    for p, a, b in zip(parameters, rows["first"].split(sizes), rows["second"].split(sizes)):
        mean, square = (row.reshape(p.shape).clone() for row in (a, b))
        optimizer.state[p] = {"step": torch.tensor(float(steps)), "exp_avg": mean, "exp_avg_sq": square}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--faces", nargs="+", required=True, help="folders of shards with vertices")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 1500], help="of each round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damp", type=float, default=1.0, help="factor of all steps in the end: training is harder")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    settings = {key: parse_yaml(value) for key, _, value in (s.partition("=") for s in args.set)}
    aligner = changed(args.weights, settings)
    seen = seen_in(aligner, StoredFaces(args.faces), args.views, args.out / "seen")
    print(f"{len(seen['state'])} crops", flush=True)
    learn(aligner, seen, args.steps, args.out, args.seed)
    damp(aligner, args.damp)
    aligner.eval().save(args.out / "weights")


if __name__ == "__main__":
    main()
