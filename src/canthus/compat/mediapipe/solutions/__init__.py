"""`mediapipe.solutions`, see `canthus.compat.mediapipe`."""

from canthus.compat.mediapipe.solutions import face_mesh

__all__ = ["face_mesh"]
