"""A head mesh fitted to a face, its expression, and the same head with another expression.

python examples/03_mesh.py [PHOTO]
"""

import sys
from pathlib import Path

import numpy as np

import canthus
from canthus.io.meshes import write_mesh

photo = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("astronaut.jpg")
faces = canthus.load().predict(photo)
mesh = faces.mesh()  # whole heads in image pixels, one per face
write_mesh("face.obj", mesh, 0)
print(f"{mesh.vertices.shape[1]} vertices, {len(mesh.triangles)} triangles")

for k in np.argsort(-mesh.expression[0])[:5]:
    print(f"{mesh.expression_names[k]}: {mesh.expression[0, k]:.2f}")

model = canthus.MorphableModel.default()
expression = np.zeros_like(mesh.expression)
expression[:, list(model.expression_names).index("jawOpen")] = 1.0
head = model.vertices(mesh.identity, expression)  # (N,V,3) in the head frame, millimetres
print(f"the head is {np.ptp(head[0, :, 1]):.0f} mm high with the jaw open")
