"""What a run shows of itself."""

from __future__ import annotations

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from canthus.errors import OutputError
from canthus.training import monitor


def row(step: int, loss: float, **terms: float) -> dict:
    return {"step": step, "stage": "a" if step < 50 else "b", "lr": 1e-3, "faces": 8, "loss": loss, **terms}


def open_png(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(int)


def near(pixels: np.ndarray, colour: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of a colour."""
    return np.nonzero(np.abs(pixels - colour).max(-1) <= 2)


def test_a_falling_loss_is_a_falling_curve(tmp_path):
    pytest.importorskip("matplotlib")
    log = monitor.Log(tmp_path, ["points", "maps"], 0, tensorboard=False)
    for k in range(1, 101):  # `maps` counts in the second stage alone
        log.write(row(k, np.exp(-k / 20), points=2.0, **({"maps": 0.5} if k >= 50 else {})))
    log.close()
    (axes,) = monitor.learning_figure(tmp_path).axes
    loss, points, maps = axes.lines[:3]
    assert [line.get_label() for line in (loss, points, maps)] == ["loss", "points", "maps"]
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "step"
    np.testing.assert_array_equal(loss.get_xdata(), np.arange(1, 101))  # 100 steps: each is a point of its own
    np.testing.assert_allclose(loss.get_ydata(), np.exp(-np.arange(1, 101) / 20), rtol=1e-5)
    assert set(points.get_ydata()) == {2.0}
    assert np.isnan(maps.get_ydata()[:49]).all() and (np.asarray(maps.get_ydata()[49:]) == 0.5).all()
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("a", 1.0), ("b", 50.0)]


def test_a_long_run_is_averaged(tmp_path):
    pytest.importorskip("matplotlib")
    log = monitor.Log(tmp_path, [], 0, tensorboard=False)
    for k in range(1, 401):
        log.write(row(k, float(k)))
    log.close()
    line = monitor.learning_figure(tmp_path).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), np.arange(1.5, 400, 2))  # 200 means of two steps each


def test_a_curve_below_zero_or_of_one_step_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    for losses in ([1.0, 0.5, -0.5, -1.0], [1.0]):
        log = monitor.Log(tmp_path, [], 0, tensorboard=False)
        for k, loss in enumerate(losses, 1):
            log.write(row(k, loss))
        log.close()
        assert open_png(monitor.learning_curve(tmp_path)).shape == (500, 900, 3)


def test_a_log_goes_on_after_the_steps_that_are_kept(tmp_path):
    for kept, steps in ((0, range(1, 6)), (3, range(4, 6)), (0, range(1, 3))):
        log = monitor.Log(tmp_path, ["points"], kept, tensorboard=False)
        for k in steps:
            log.write(row(k, 1.0, points=2.0, other=3.0))
        log.close()
        text = (tmp_path / monitor.LOG).read_bytes().decode().splitlines()
        assert text[0] == "step,stage,lr,loss,points"
        assert [line.split(",")[0] for line in text[1:]] == [str(k) for k in range(1, steps.stop)]
        assert text[1] == "1,a,0.001,1,2"


def test_a_log_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    resource = pytest.importorskip("resource")
    log = monitor.Log(tmp_path, [], 0, tensorboard=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"log\.csv"):
            for k in range(20000):
                log.write(row(k, 1.0))
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()


def test_points_are_drawn_where_they_are():
    crops = np.zeros((2, 10, 10, 3), np.uint8)
    true = np.array([[[2.0, 7.0, 0]], [[4.0, 4.0, 0]]])
    predicted = np.array([[[8.0, 1.0, 0]], [[np.nan, 4.0, 0]]])
    pixels = open_png(monitor.picture(crops, true, predicted, None))
    scale = monitor.TILE / 10
    assert pixels.shape == (monitor.TILE, 2 * monitor.TILE, 3)
    y, x = near(pixels[:, : monitor.TILE], monitor.TRUE)
    assert (x.mean(), y.mean()) == pytest.approx((2.5 * scale - 0.5, 7.5 * scale - 0.5), abs=0.6)
    y, x = near(pixels, monitor.PREDICTED)
    assert (x.mean(), y.mean()) == pytest.approx((8.5 * scale - 0.5, 1.5 * scale - 0.5), abs=0.6)


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    code = tmp_path / "monitor.py"
    code.write_text("a = 1")
    monkeypatch.setattr(monitor, "__file__", str(code))

    def git(*words: str) -> str:
        names = "-c", "user.name=a", "-c", "user.email=a@b"
        call = ["git", *names, "-C", str(tmp_path), *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    assert monitor.commit() == ""  # a repository that merely holds an installation
    git("add", "monitor.py")
    git("commit", "--message", "a")
    assert monitor.commit() == git("rev-parse", "HEAD")
    code.write_text("a = 2")
    assert monitor.commit() == git("rev-parse", "HEAD") + "-dirty"
