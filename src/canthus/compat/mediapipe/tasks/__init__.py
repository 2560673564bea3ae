"""`mediapipe.tasks`, see `canthus.compat.mediapipe`."""

from canthus.compat.mediapipe.tasks import python
from canthus.compat.mediapipe.tasks.python import BaseOptions, vision

__all__ = ["BaseOptions", "python", "vision"]
