"""`mediapipe.tasks.python`, see `canthus.compat.mediapipe`."""

from canthus.compat.mediapipe.tasks.python import vision
from canthus.compat.mediapipe.tasks.python.options import BaseOptions

__all__ = ["BaseOptions", "vision"]
