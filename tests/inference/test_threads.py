"""An aligner in several Python threads and in other processes, and the CPU threads it may use."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from photos import BOX, aligner, photo
from threadpoolctl import threadpool_info, threadpool_limits

import canthus
from canthus.errors import CanthusError
from canthus.inference.predictor import Predictor
from canthus.threads import blas_threads


def blas() -> set[int]:
    """The threads of the BLAS libraries of this process."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


needs_blas = pytest.mark.skipif(not blas(), reason="NumPy here has no BLAS whose threads can be set")


@pytest.mark.parametrize("threads", [0, -5, 1.5, "2", True, np.nan, 1025, 10**6])
def test_threads_that_are_no_number_of_threads_are_refused(threads):
    with pytest.raises(CanthusError, match="want a positive integer"):
        canthus.load(threads=threads)


def test_threads_reach_the_network_and_the_detector():
    for threads in (1, np.int64(2), None):
        loaded = canthus.load(threads=threads)
        assert loaded.session.threads == threads and loaded.detector.session.threads == threads


@needs_blas
def test_threads_limit_linear_algebra_during_a_call_and_not_after(monkeypatch):
    loaded, seen = canthus.load(threads=2), []
    run = loaded.run
    monkeypatch.setattr(loaded, "run", lambda crops: seen.append(blas()) or run(crops))
    with threadpool_limits(3, "blas"):
        loaded.predict(photo(), BOX)
        assert blas() == {3}
    assert seen == [{2}]


@needs_blas
def test_a_mesh_is_fitted_on_one_thread(monkeypatch):
    faces, seen = aligner().predict(photo(), BOX), []
    model = canthus.MorphableModel.default()
    fit = type(model).fit
    monkeypatch.setattr(type(model), "fit", lambda *given, **options: seen.append(blas()) or fit(*given, **options))
    with threadpool_limits(3, "blas"):
        faces.mesh()
        assert blas() == {3}
    assert seen == [{1}]


@needs_blas
def test_limits_that_overlap_are_undone_when_the_last_ends():
    with threadpool_limits(3, "blas"):
        first, second = blas_threads(1), blas_threads(2)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas() == {1}
        second.__exit__(None, None, None)
        assert blas() == {3}


@needs_blas
def test_a_limit_holds_in_every_thread_until_the_last_block_ends():
    inside, leave = threading.Barrier(3), threading.Event()
    seen = []

    def first():
        with blas_threads(1):
            inside.wait()

    def last():
        with blas_threads(1):
            inside.wait()
            leave.wait()
            seen.append(blas())

    with threadpool_limits(3, "blas"):
        threads = [threading.Thread(target=work) for work in (first, last)]
        for thread in threads:
            thread.start()
        inside.wait()
        threads[0].join()
        leave.set()
        threads[1].join()
        assert seen == [{1}] and blas() == {3}


def answers(predictor: Predictor, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Everything that is said of the faces in an image."""
    faces = predictor.predict(image)
    mesh = faces.mesh()
    return faces.xyz, faces.sigma, faces.visible, faces.pose.matrix, faces.detection_scores, mesh.vertices


def views() -> list[np.ndarray]:
    return [photo(), photo()[:, ::-1], photo()[::-1, ::-1], photo()[20:, 30:], photo()[:60]]


def same(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_eight_threads_that_share_an_aligner_get_the_answers_of_one():
    shared = canthus.load(threads=1)
    images = views() * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: answers(shared, image), images))
    wanted = [answers(canthus.load(threads=1), image) for image in views()] * 4
    assert all(same(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_pickled_aligner_gives_the_same_answers():
    used = canthus.load(threads=1, min_face=40)
    wanted = answers(used, photo())
    data = pickle.dumps(used)
    assert len(data) < 20_000  # the weights stay in their folder
    back = pickle.loads(data)
    assert (back.threads, back.min_face, back.card) == (1, 40.0, used.card)
    assert same(answers(back, photo()), wanted)


@pytest.mark.parametrize(
    "method",
    [pytest.param("spawn", marks=pytest.mark.slow), "fork"],
)
def test_an_aligner_goes_into_a_pool_of_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    used = canthus.load(threads=1)
    wanted = answers(used, photo())
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = [pool.submit(answers, used, photo()) for _ in range(3)]
        assert all(same(f.result(timeout=60), wanted) for f in found)
