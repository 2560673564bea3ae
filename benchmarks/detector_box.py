"""Measures how the detector's box relates to the tight box around the 68 landmarks, on rendered faces.

    canthus synth --assets HEAD_ASSETS --seed 7 --count 1024 --out out/boxes
    python benchmarks/detector_box.py out/boxes

Prints the constants of `canthus.inference.retinaface.TIGHT` and how well the converted boxes fit. Left and right are
made equal, since a mirrored photo must give a mirrored box.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from canthus.inference import retinaface
from canthus.inference.retinaface import RetinaFaceDetector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of rendered shards")
    folder = parser.parse_args().folder
    retinaface.TIGHT = np.zeros(4)  # the network's own boxes
    detector = RetinaFaceDetector()
    found, truth, rotation, missed = [], [], [], 0
    for path in sorted(folder.glob("shard-*.npz")):
        with np.load(path, allow_pickle=False) as shard:
            images, xyz, rotations = shard["image"], shard["xyz"], shard["rotation"]
        for image, points, turn in zip(images, xyz, rotations):
            # a face fills half of a rendered picture; on a larger canvas it is as large as in a photo
            canvas = np.full((320, 320, 3), 110, np.uint8)
            canvas[72 : 72 + len(image), 72 : 72 + len(image)] = image
            boxes = detector.detect_at(canvas, 1.0).boxes
            if len(boxes):
                found.append(boxes[0])
                truth.append(np.concatenate([points[:, :2].min(0), points[:, :2].max(0)]) + 72)
                rotation.append(turn)
            else:
                missed += 1
    box, tight, rotation = np.array(found), np.array(truth), np.array(rotation)
    extent = np.tile(box[:, 2:] - box[:, :2], 2)
    shares = np.median((tight - box) / extent, 0)
    side = (shares[0] - shares[2]) / 2
    shares[0], shares[2] = side, -side
    print(f"{len(box)} faces found, {missed} missed; TIGHT =", np.round(shares, 4).tolist())
    fitted = box + shares * extent
    yaw = np.rad2deg(np.arctan2(-rotation[:, 0, 2], rotation[:, 2, 2]))
    size = np.maximum(*(tight[:, 2:] - tight[:, :2]).T)
    for low, high in ((0, 30), (30, 60), (60, 100)):
        here = (np.abs(yaw) >= low) & (np.abs(yaw) < high)
        shift = np.linalg.norm(((fitted - tight)[here, :2] + (fitted - tight)[here, 2:]) / 2, axis=1) / size[here]
        scale = np.maximum(*(fitted[here, 2:] - fitted[here, :2]).T) / size[here]
        print(
            f"|yaw| {low}-{high}: {here.sum()} faces, centre off by {100 * shift.mean():.1f} %, "
            f"longer side {100 * scale.mean():.1f} +- {100 * scale.std():.1f} % of the true one"
        )


if __name__ == "__main__":
    main()
