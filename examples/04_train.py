"""Continue training the default weights on your own photos with 68 labelled points each.

python examples/04_train.py [STEPS]    (pip install '.[train]'; as a stand-in, the example photo with predicted points)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

import canthus
from canthus.training.train import Recipe, train

ROOT = Path(__file__).parents[1]
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20

# Your labels go here: points (68,3) in pixels from 0, z larger = nearer, and pitch, yaw and roll in radians.
photos = [Path(__file__).with_name("astronaut.jpg")]
folder = Path("my-photos")
folder.mkdir(exist_ok=True)
for photo in photos:
    faces = canthus.load().predict(photo)
    points, angles = faces.xyz[0], np.deg2rad(faces.pose.euler("aflw"))
    Image.fromarray(canthus.read_image(photo)).save(folder / f"{photo.stem}.jpg")  # upright, as the points are
    savemat(folder / f"{photo.stem}.mat", {"pt3d_68": points.T + [[1], [1], [0]], "Pose_Para": angles})  # from 1

changes = [f"steps={steps}", "batch=8", "warmup_steps=2", f"weights={ROOT / 'weights/swift'}"]
changes += ["stages.lids.share=0"]  # what moves the lids learns from closed eyes, of which few photos have labels
recipe = Recipe.read(ROOT / "src/canthus/recipes/swift.yaml", changes, faces=[str(folder)])
for step in train(recipe, "my-run"):
    print(f"step {step['step']}: loss {step['loss']:.3f}")
print("weights in my-run/weights; next: canthus export my-run/weights --out my-weights")
