"""Score your own system's landmarks by a protocol: write them into a file of predictions, then evaluate the file.

canthus synth --count 256 --out data/synth && python examples/05_evaluate.py [DATA]
"""

import sys

from PIL import Image

import canthus
from canthus.evaluation.evaluate import evaluate
from canthus.evaluation.predictions import Predictions
from canthus.evaluation.protocols import protocol
from canthus.geometry.crop import tight_boxes

data = sys.argv[1] if len(sys.argv) > 1 else "data/synth"
aligner = canthus.load()  # put your own system in its place

names, points = [], []
for face in protocol("renders").faces(data):
    image = face.image if not hasattr(face.image, "suffix") else Image.open(face.image)
    found = aligner.predict(image, boxes=tight_boxes(face.points[None]))
    names.append(face.name)
    points.append(found.xyz[0])  # a face that your system does not find is left out

Predictions(names, points, system="my system").write("predictions.npz")
scores = evaluate("renders", data, Predictions.read("predictions.npz"))
print(scores.headline())
print(f"eyes: {scores.table('by part').cell('left_eye', 'NME box'):.2f} %")
