"""The interface of the PyPI package `mediapipe` as programs that look for faces use it, answered by the default weights
of canthus: `tasks.vision.FaceLandmarker` and `solutions.face_mesh.FaceMesh`. Change only the import.

    from canthus.compat import mediapipe as mp  # import mediapipe as mp
    from canthus.compat.mediapipe.tasks.python import vision  # from mediapipe.tasks.python import vision

Names, arguments and types of results are those of MediaPipe 0.10. What differs:

- Points: 478 in the same order, x and y in widths and heights of the image, z in widths, smaller = nearer. They are
  places on a head that is fitted to the 68 landmarks of canthus; how far they lie from MediaPipe's own is measured in
  `docs/guide/coming-from.md`. The zero of z is the mean of the 68 landmarks. `visibility` and `presence` are None.
- Blendshapes: the same 52 categories in the same order. `_neutral` is always 0.
- `facial_transformation_matrixes`: rotation and translation in cm of the head frame of `docs/conventions.md`, seen by a
  camera of 63 degrees from top to bottom as there. Zero pitch and the origin are defined otherwise than MediaPipe's.
- Faces are found by the detector of canthus and come by falling detection score. The model file of `BaseOptions` is not
  read, and need not be there. Confidences of presence and tracking have no effect.
- There is no drawing, no asynchronous mode and no other task than faces.
- Images that cannot be read or used raise a `CanthusError`.
"""

from canthus.compat.mediapipe import solutions, tasks
from canthus.compat.mediapipe.image import Image, ImageFormat

__all__ = ["Image", "ImageFormat", "solutions", "tasks"]
