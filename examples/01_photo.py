"""Landmarks, uncertainty and pose of every face in a photo, and a drawing of them.

python examples/01_photo.py [PHOTO]
"""

import sys
from pathlib import Path

from PIL import Image

import canthus

photo = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("astronaut.jpg")
aligner = canthus.load()
faces = aligner.predict(photo)
print(f"{len(faces)} face(s) in {photo}")

for face in faces:  # iterating gives Faces of one face each
    pitch, yaw, roll = face.pose.euler("aflw")[0]
    left, top, right, bottom = face.boxes[0]
    print(f"box {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}, detection score {face.detection_scores[0]:.2f}")
    print(f"pitch {pitch:.1f}, yaw {yaw:.1f}, roll {roll:.1f} degrees")
    print(f"nose tip at {face.xyz[0, 30].round(1)} px, standard deviation {face.sigma[0, 30]:.1f} px")
    print(f"{(face.visible[0] > 0.5).sum()} of 68 points are visible")

image = canthus.read_image(photo)
Image.fromarray(canthus.overlay(image, faces, uncertainty=True)).save("overlay.png")
