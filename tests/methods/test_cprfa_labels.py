"""cprfa's dense truth from the coefficients that labels such as 300W-LP's come with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import layouts_maker as make
import numpy as np
import pytest

torch = pytest.importorskip("torch")
scipy_io = pytest.importorskip("scipy.io")

from small import CONFIGS, STILL  # noqa: E402

from canthus.data.augment import Augmentation, Augmenter  # noqa: E402
from canthus.data.sample import FaceBatch  # noqa: E402
from canthus.data.sources import FaceMix, batch_of  # noqa: E402
from canthus.errors import RecipeError  # noqa: E402
from canthus.face.morphable import MorphableModel  # noqa: E402
from canthus.face.morphable_formats import read_3ddfa  # noqa: E402
from canthus.geometry.rotation import matrix_from_euler  # noqa: E402
from canthus.methods.cprfa.linear_face import LinearFace, normalised, pixels  # noqa: E402
from canthus.methods.cprfa.method import Cprfa, CprfaConfig  # noqa: E402

SIZE = 96
POSE = np.array([0.1, -0.4, 0.05, 130.0, 120.0, 5.0, 4e-4])  # pitch, yaw, roll, shift, scale


def basel(folder: Path) -> None:
    """A kit of 3DDFA: 90 vertices, of which 68 are landmarks, 5 identity and 3 expression modes, micrometres."""
    rng = np.random.default_rng(0)
    shape = {
        "mu_shape": rng.normal(size=(270, 1)) * 6e4, "w": rng.normal(size=(270, 5)) * 1e-2,
        "tri": rng.integers(1, 91, (3, 60)), "keypoints": np.arange(68)[None] + 1,
    }  # fmt: skip
    exp = {"mu_exp": rng.normal(size=(270, 1)) * 1e3, "w_exp": rng.normal(size=(270, 3)) * 1e3}
    folder.mkdir()
    scipy_io.savemat(folder / "Model_Shape.mat", shape)
    scipy_io.savemat(folder / "Model_Exp.mat", exp)


def test_all_vertices_of_a_labelled_face_are_where_its_coefficients_say(tmp_path):
    """Through reader, source, augmentation and the head in the network, whose file scales the modes otherwise: V = f R
    X + t for all 90 vertices, 22 of which no landmark tells of."""
    basel(tmp_path / "kit")
    rng = np.random.default_rng(1)
    identity, expression = rng.normal(size=5) * 1e5, rng.normal(size=3)
    make.picture(tmp_path / "set" / "AFW" / "a.jpg")
    mat = {"Pose_Para": POSE[None], "Shape_Para": identity[:, None], "Exp_Para": expression[:, None]}
    scipy_io.savemat(tmp_path / "set" / "AFW" / "a.mat", mat | {"pt2d": np.zeros((2, 68))})
    mix = FaceMix([str(tmp_path / "set")], SIZE, 1.375, 0, head_model=str(tmp_path / "kit"))
    chance = torch.Generator().manual_seed(0)
    batch = batch_of(mix.fetch(0, 1, 0), Augmenter(Augmentation(**{**STILL, "rotation": 20.0}), SIZE, 1.375), chance)
    assert batch.modes.shape == (1, 8)
    model = read_3ddfa(tmp_path / "kit", deviations=(np.linspace(1e4, 9e4, 5), np.array([0.5, 2.0, 4.0])))
    face = LinearFace(model, 1.375)
    state = face.laid(normalised(batch.xyz, SIZE), batch.rotation, batch.modes)
    ours = pixels(face.project(face.shape(state, slice(0, 90)), state), SIZE)[0].numpy()

    plain = read_3ddfa(tmp_path / "kit", deviations=(np.ones(1), np.ones(1)))
    head = plain.mean + np.tensordot(
        np.concatenate([identity, expression]), np.concatenate([plain.identity, plain.expression]), 1
    )
    placed = POSE[6] * head @ matrix_from_euler(POSE[:3], "aflw").T * [1, -1, 1]  # of the picture, up to a shift
    turn = batch.rotation[0].numpy() @ matrix_from_euler(POSE[:3], "aflw").T  # what the augmentation turned it by
    turned = (placed * [1, -1, 1]) @ turn.T * [1, -1, 1]
    zoom = np.ptp(ours[:, 0]) / np.ptp(turned[:, 0])
    expected = zoom * turned
    expected += (ours - expected)[:68].mean(0)
    np.testing.assert_allclose(ours, expected, atol=0.05)
    np.testing.assert_allclose(ours[:68, :2], batch.xyz[0, :, :2].numpy(), atol=0.05)
    mirrored = batch_of(mix.fetch(0, 1, 0), Augmenter(Augmentation(**{**STILL, "flip": 1.0}), SIZE, 1.375), chance)
    assert mirrored.modes.isnan().all()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> tuple[Cprfa, torch.Tensor, FaceBatch]:
    """A network with the shipped head as a head of one's own, states, and the truth that labels would give of them."""
    path = tmp_path_factory.mktemp("head") / "head.npz"
    MorphableModel.default().save(path)
    torch.manual_seed(0)
    aligner = Cprfa(CprfaConfig(**{"size": SIZE, **CONFIGS["cprfa"], "model": str(path)}))
    face = aligner.face
    states = face.start(4)
    states[:, :-6] = torch.randn(4, face.coefficients) * 0.7
    states[:, -6:] += 0.2 * torch.randn(4, 6)
    lengths = face.basis[:, -68:].flatten(1).norm(dim=1) * face.unit
    states[:, :-6] *= lengths > 0  # tongue and the like move no landmark
    xyz = aligner.landmarks(states)
    seen = torch.ones(4, 68)
    truth = FaceBatch(
        xyz, seen, face.rotation(states), modes=states[:, :-6] * lengths, crops=torch.rand(4, 3, SIZE, SIZE)
    )
    return aligner, states, truth


def test_the_truth_is_the_labels_where_they_tell_and_a_fit_elsewhere(labelled):
    """Exact coefficients and vertices; of a mirrored face, whose labels do not hold, what the landmarks tell, which is
    off by more than a tenth of a deviation."""
    aligner, states, truth = labelled
    torch.testing.assert_close(aligner.true_state(truth), states, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        aligner._true_vertices(truth, aligner.true_state(truth))[..., :2],
        aligner._true_vertices(truth, states)[..., :2], atol=0.05, rtol=0,
    )  # fmt: skip
    modes = truth.modes.clone()
    modes[0] = torch.nan
    partial = aligner.true_state(replace(truth, modes=modes))
    fitted = aligner.true_state(replace(truth, modes=None))
    torch.testing.assert_close(partial, torch.cat([fitted[:1], aligner.true_state(truth)[1:]]))
    assert (fitted - states)[:, :-6].abs().mean() > 0.1


def test_labels_of_another_head_are_refused(labelled):
    aligner, _, truth = labelled
    with pytest.raises(RecipeError, match="the labels have 8 coefficients, the head in .* 132; the head of the labels"):
        aligner.true_state(replace(truth, modes=torch.zeros(4, 8)))


def test_labels_train_every_stage(labelled):
    aligner, _, truth = labelled
    for stage in aligner.stages():
        terms = aligner.train().training_terms(truth, stage)
        assert all(torch.isfinite(terms[name]).all() for name in stage.terms)
