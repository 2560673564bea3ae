"""Faces followed through a video, each under a number that it keeps.

python examples/02_video.py [VIDEO]    (without VIDEO, a short clip is made by moving a window over the example photo)
"""

import sys
from pathlib import Path

from PIL import Image

import canthus

if len(sys.argv) > 1:
    video = Path(sys.argv[1])
else:
    video = Path("clip.gif")
    photo = Image.open(Path(__file__).with_name("astronaut.jpg"))
    frames = [photo.crop((x, 20, x + 320, 340)) for x in range(0, 120, 10)]
    frames[0].save(video, save_all=True, append_images=frames[1:], duration=40)

tracker = canthus.Tracker(canthus.load())
drawn = []
for frame in canthus.Video(video):  # number, time in seconds, image
    tracked = tracker.step(frame.image)
    for number, face in zip(tracked.ids, tracked.faces):
        print(f"{frame.time:.2f} s: face {number}, yaw {face.pose.euler('aflw')[0, 1]:.1f} degrees")
    picture = canthus.overlay(frame.image, tracked.faces, names=[str(number) for number in tracked.ids])
    drawn.append(Image.fromarray(picture))
drawn[0].save("tracked.webp", save_all=True, append_images=drawn[1:], duration=40)
