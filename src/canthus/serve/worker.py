"""One thread that aligns the images of all requests: what waits while it is busy goes through the network together."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from canthus.face.faces import Faces
from canthus.inference.predictor import Predictor
from canthus.io.images import decode_image
from canthus.serve.jobs import JobThread

BATCH_IMAGES = 16
BATCH_PIXELS = 2**25  # decoded at a time, 100 MB, however many images; a larger image is a batch by itself


class QueueFull(Exception):
    """As many images wait as may."""


class _Job(NamedTuple):
    data: bytes
    name: str
    answer: Future[Faces]


class Worker(JobThread[_Job]):
    """Aligns encoded images with one predictor on a thread of its own, at most `capacity` waiting.

    Images wait as the bytes of their files, of at most `max_pixels` pixels; `on_batch` gets the number of images of
    each batch.
    """

    def __init__(self, predictor: Predictor, max_pixels: int, capacity: int, on_batch: Callable[[int], None]):
        self.predictor, self.max_pixels, self.on_batch = predictor, max_pixels, on_batch
        super().__init__("canthus-worker", capacity)

    def submit(self, data: bytes, name: str) -> Future[Faces]:
        """The faces of an image, the bytes of a file called `name`, when they are found.

        The answer raises the `ImageError`s of `decode_image`; one that is cancelled while its image waits costs
        nothing. Raises `QueueFull` and `Closed` at once.
        """
        job = _Job(data, name, Future())
        try:
            self._put(job)
        except queue.Full as error:
            raise QueueFull from error
        return job.answer

    def _run(self) -> None:
        more = True
        while more:
            jobs = [self._jobs.get()]
            while len(jobs) < BATCH_IMAGES and jobs[-1] is not None:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            more = jobs[-1] is not None
            self._align([job for job in jobs if job is not None])

    def _align(self, jobs: Sequence[_Job]) -> None:
        """Answer jobs, as many at a time as have BATCH_PIXELS together."""
        images: list[np.ndarray] = []
        answers: list[Future[Faces]] = []
        for job in jobs:
            if not job.answer.set_running_or_notify_cancel():
                continue
            try:
                image = decode_image(job.data, job.name, self.max_pixels)
            except Exception as error:
                job.answer.set_exception(error)
                continue
            if images and sum(other.size for other in images) + image.size > 3 * BATCH_PIXELS:
                self._predict(images, answers)
                images, answers = [], []
            images.append(image)
            answers.append(job.answer)
        if images:
            self._predict(images, answers)

    def _predict(self, images: Sequence[np.ndarray], answers: Sequence[Future[Faces]]) -> None:
        self.on_batch(len(images))
        try:
            results = self.predictor.predict_many(images)
        except Exception as error:
            if len(images) == 1:
                answers[0].set_exception(error)
                return
            for image, answer in zip(images, answers, strict=True):  # one image must not spoil the others' answers
                self._predict([image], [answer])
            return
        for faces, answer in zip(results, answers, strict=True):
            answer.set_result(faces)
