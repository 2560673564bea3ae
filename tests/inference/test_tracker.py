"""Following faces: exact logic on discs that a made-up network sees, and the default weights on a moving photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_face import face
from photos import BOX, aligner, photo
from PIL import Image

from canthus.errors import CanthusError, ImageError, LandmarkError
from canthus.evaluation.metrics import jitter, nme_box
from canthus.face.faces import Alignment, TrackedFaces
from canthus.geometry.crop import Crop
from canthus.geometry.rotation import matrix_from_vector
from canthus.inference.detect import Detections, FunctionDetector
from canthus.inference.predictor import Predictor
from canthus.inference.smooth import OneEuro, Smoother
from canthus.inference.tracker import Tracker
from canthus.io.card import Card

SIZE = 48  # of the discs' crops
FRAME = (160, 240, 3)
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])
CARD = Card("discs", "1", "discs", SIZE, 1.5, "", True, "", "", "")
SHAPE = face()
SHAPE = (SHAPE - (SHAPE.min(0) + SHAPE.max(0)) / 2) / np.ptp(SHAPE[:, :2], axis=0).max()  # box: 1 wide, 0.88 high


def detections(boxes, score=0.9) -> Detections:
    """Faces in boxes, all with one score."""
    return Detections.of_boxes(boxes, np.full(len(boxes), score, np.float32))


class Detector:
    """The coloured discs of a picture as boxes of faces as wide as they are; counts its thorough searches."""

    def __init__(self):
        self.calls, self.blind = 0, False

    def __call__(self, image):
        self.calls += 1
        return self.quick(image)

    def quick(self, image):
        boxes = []
        for colour in COLOURS:
            y, x = np.nonzero((image == colour).all(-1))
            if len(x) and not self.blind:
                low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
                boxes.append(np.concatenate(whole((low + high) / 2, (high - low).max())))
        return detections(np.array(boxes, np.float32).reshape(-1, 4), 0.8)


class Discs(Predictor):
    """Sees the disc in the middle of a crop: the face fills it. Its score is low where there is none.

    batches: how many crops each call had. crops: what they showed.
    """

    def __init__(self, own_score: bool = True):
        self.card, self.own_score = CARD, own_score
        self.batches: list[int] = []
        self.crops: list[np.ndarray] = []
        self.detector = Detector()  # type: ignore[misc]

    def run(self, crops):
        self.batches.append(len(crops))
        self.crops.append(crops)
        xyz, score = zip(*(self._one(c.astype(int)) for c in crops))
        rotation = np.tile(np.eye(3), (len(crops), 1, 1))
        return Alignment(np.stack(xyz), score=np.array(score) if self.own_score else None, rotation=rotation)

    def _one(self, crop):
        near = np.stack([np.abs(crop - colour).sum(-1) < 200 for colour in COLOURS])
        middle = near[:, SIZE // 3 : -SIZE // 3, SIZE // 3 : -SIZE // 3].sum((1, 2))
        if not middle.any():
            return SHAPE * SIZE / 1.5 + [SIZE / 2, SIZE / 2, 0], np.full(68, 0.1)
        y, x = np.nonzero(near[middle.argmax()])
        low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
        centre = [*(low + high) / 2, 0]
        return (high - low).max() * SHAPE + centre, np.full(68, 0.9)


def whole(centre, width):
    half = np.ptp(SHAPE[:, :2], axis=0) * width / 2
    return centre - half, centre + half


def scene(*discs):
    """A grey picture with discs (number of the colour, x, y, radius); the later ones lie in front."""
    image = np.full(FRAME, 90, np.uint8)
    y, x = np.mgrid[: FRAME[0], : FRAME[1]]
    for colour, cx, cy, radius in discs:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = COLOURS[colour]
    return image


def centres(faces):
    return (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2


def walk(tracker, path, radius=20):
    """Ids and centres of one disc on a path [(x, y)] through the frames; None: it is hidden."""
    out = []
    for point in path:
        tracked = tracker.step(scene() if point is None else scene((0, *point, radius)))
        out.append((tracked.ids.tolist(), centres(tracked.faces)))
    return out


# One face


def test_a_moving_face_is_followed_and_never_detected_again():
    tracker = Tracker(Discs(), detect_every=0)
    path = [(40 + 4 * k, 60 + 2 * k) for k in range(25)]
    for (ids, centre), point in zip(walk(tracker, path), path):
        assert ids == [0]
        np.testing.assert_allclose(centre, [point], atol=1.5)  # a pixel of the crop is 1.25 px
    assert tracker.aligner.detector.calls == 1 and tracker.reinitialisations == 0


def test_after_ten_black_frames_the_face_is_back_in_one():
    tracker = Tracker(Discs(), detect_every=0)
    path = [(100, 70)] * 3 + [None] * 10 + [(104, 72)] * 2
    seen = [ids for ids, _ in walk(tracker, path)]
    assert seen == [[0]] * 3 + [[]] * 10 + [[0]] * 2
    assert tracker.reinitialisations == 1


def test_a_face_gone_for_longer_than_the_memory_is_another():
    for gone, number in ((6, 1), (5, 0)):
        tracker = Tracker(Discs(), memory=5, recall=0)
        seen = [ids for ids, _ in walk(tracker, [(100, 70)] + [None] * gone + [(100, 70)])]
        assert seen[-1] == [number]


def test_a_hidden_face_is_expected_where_its_motion_takes_it():
    # 8 frames at 6 px: 48 px, more than the face's size of 37 px, from where it was last seen
    path = [(40 + 6 * k, 60) for k in range(22)]
    path[8:15] = [None] * 7
    seen = [ids for ids, _ in walk(Tracker(Discs()), path)]
    assert seen == [[0]] * 8 + [[]] * 7 + [[0]] * 7
    # one that stands elsewhere then is somebody else
    assert walk(Tracker(Discs()), [*path[:8], *[None] * 7, (40, 60)])[-1][0] == [1]


def test_a_face_that_leaves_the_picture_is_lost():
    class Leaving(Discs):
        def run(self, crops):
            xyz = np.tile(SIZE / 1.5 * SHAPE + [SIZE / 2 - 12, SIZE / 2, 0], (len(crops), 1, 1))
            return Alignment(xyz, rotation=np.tile(np.eye(3), (len(crops), 1, 1)))

    tracker = Tracker(Discs(), Leaving(), detect_every=0)
    tracker.step(scene((0, 30, 60, 20)))
    tracker.aligner.detector.blind = True
    places = [centres(tracker.step(scene()).faces) for _ in range(4)]
    assert [len(p) for p in places] == [1, 1, 0, 0]  # 15 px a step: at 15, at 0, gone
    assert all((p > -0.5).all() for p in places)


def test_a_leap_is_noticed_and_the_face_found_in_the_same_frame():
    tracker = Tracker(Discs(), detect_every=0)
    tracker.step(scene((0, 40, 40, 20)))
    leapt = tracker.step(scene((0, 190, 110, 20)))
    np.testing.assert_allclose(centres(leapt.faces), [[190, 110]], atol=1.5)
    assert leapt.ids.tolist() == [1] and leapt.followed.tolist() == [False]  # 4 face sizes away: who knows who it is?
    tracker = Tracker(Discs(), detect_every=0)
    (_, (ids, centre)) = walk(tracker, [(60, 60), (60, 90)])  # too far to be followed, near enough to be known again
    assert ids == [0] and tracker.reinitialisations == 1
    np.testing.assert_allclose(centre, [[60, 90]], atol=1.5)


def test_a_jump_of_the_size_is_unhealthy():
    # exp(-0.4) = 0.67: 20 -> 14 px is followed, 20 -> 12 is not
    for radius, again in ((14, 0), (12, 1)):
        tracker = Tracker(Discs(), detect_every=0)
        for r in (20, radius):
            tracked = tracker.step(scene((0, 100, 80, r)))
        assert tracker.reinitialisations == again and tracked.followed.tolist() == [not again]
        assert tracked.ids.tolist() == [0]


def test_an_unsure_face_that_the_detector_does_not_see_is_lost():
    model = Discs()
    tracker = Tracker(model, detect_every=0)
    tracker.step(scene((0, 60, 60, 20)))
    tracked = tracker.step(scene())
    assert len(tracked) == 0 and tracked.faces.image_size == (240, 160) and tracked.ids.tolist() == []


def test_without_scores_the_size_still_tells():
    tracker = Tracker(Discs(own_score=False), detect_every=0)
    seen = walk(tracker, [(60, 60), (62, 60), (64, 60)])
    assert [ids for ids, _ in seen] == [[0]] * 3 and tracker.reinitialisations == 0


def test_a_detection_that_disagrees_puts_a_drifting_face_right():
    # Each step shrinks the face by 0.85, too little to be a jump; its box has 0.85^(2 k) of the detection's: below 0.3
    # in the fourth step. Looking at every second frame finds that in frame 4, counted from 0.
    tracker = Tracker(Discs(), tracking=Shrinking(), detect_every=2)
    seen = [tracker.step(scene((0, 100, 80, 20))) for _ in range(5)]
    sizes = [float(tracked.faces.sizes[0]) for tracked in seen]
    assert sizes[3] < 0.7 * sizes[0] and sizes[4] > 0.95 * sizes[0]
    assert tracker.reinitialisations == 1 and [tracked.ids.tolist() for tracked in seen] == [[0]] * 5


def test_of_two_on_one_face_the_one_that_looks_otherwise_than_before_is_lost():
    # The second disc comes nearer by 6 px a frame and is then gone; the first one starts by 3 px to just where the
    # second is expected: the place surprises of the first, the colour of the second.
    tracker = Tracker(Discs(), detect_every=0)
    for x in range(145, 108, -6):
        tracked = tracker.step(scene((0, 100, 80, 10), (1, x, 80, 10)))
    assert tracked.ids.tolist() == [0, 1]
    tracked = tracker.step(scene((0, 103, 80, 10)))
    assert tracked.ids.tolist() == [0]
    np.testing.assert_allclose(centres(tracked.faces), [[103, 80]], atol=1.5)


class Shrinking(Discs):
    """Says that the face is 0.85 of what the crop was made for."""

    def run(self, crops):
        self.batches.append(len(crops))
        xyz = np.tile(0.85 * SIZE / 1.5 * SHAPE + [(SIZE - 1) / 2, (SIZE - 1) / 2, 0], (len(crops), 1, 1))
        return Alignment(xyz, rotation=np.tile(np.eye(3), (len(crops), 1, 1)))


def test_one_model_places_found_faces_and_the_other_followed_ones():
    first, second = Discs(), Discs()
    tracker = Tracker(first, second, detect_every=0)
    for _ in range(5):
        tracker.step(scene((0, 60, 60, 20)))
    assert first.batches == [1] and second.batches == [1] * 4
    assert first.detector.calls == 1 and second.detector.calls == 0


def test_a_detection_gives_its_score_and_a_followed_face_has_none():
    tracker = Tracker(Discs(), detect_every=2)
    scores = [float(tracker.step(scene((0, 60, 60, 20))).faces.detection_scores[0]) for _ in range(4)]
    np.testing.assert_allclose(scores, [0.8, np.nan, 0.8, np.nan])


# Several faces


def test_newcomers_are_found_when_it_is_time_to_look():
    model = Discs()
    tracker = Tracker(model, detect_every=5)
    seen = []
    for k in range(8):
        seen.append(tracker.step(scene((0, 60, 60, 20), *[(1, 170, 80, 25)] * (k >= 2))).ids.tolist())
    assert seen == [[0]] * 5 + [[0, 1]] * 3  # looks at frames 0 and 5
    assert model.detector.calls == 1  # thorough in frame 0 alone
    assert model.batches == [1, 1, 1, 1, 1, 1, 1, 2, 2]  # frame 5: one followed and one found; then both in one call


def test_one_of_four_searches_beside_a_tracked_face_is_thorough():
    model, looked = Discs(), []

    class Spy(Detector):
        def __call__(self, image):
            looked.append(("thorough", frame))
            return super().__call__(image)

        def quick(self, image):
            if looked[-1:] != [("thorough", frame)]:
                looked.append(("quick", frame))
            return super().quick(image)

    model.detector = Spy()
    tracker = Tracker(model, detect_every=3)
    for frame in range(28):  # noqa: B007
        tracker.step(scene((0, 60, 60, 20)))
    assert [k for kind, k in looked if kind == "thorough"] == [0, 12, 24]
    assert [k for kind, k in looked if kind == "quick"] == [3, 6, 9, 15, 18, 21, 27]


def test_two_faces_that_pass_each_other_keep_their_ids():
    tracker = Tracker(Discs())
    for k in range(30):
        left, right = (30 + 6 * k, 50), (210 - 6 * k, 110)
        tracked = tracker.step(scene((0, *left, 20), (1, *right, 20)))
        assert tracked.ids.tolist() == [0, 1]
        np.testing.assert_allclose(centres(tracked.faces), [left, right], atol=1.6)


@pytest.mark.parametrize("front", [0, 1])
def test_a_face_that_goes_behind_another_comes_out_with_its_id(front):
    tracker = Tracker(Discs())
    seen = []
    for k in range(36):
        discs = [(0, 30 + 5 * k, 80, 20), (1, 210 - 5 * k, 80, 20)]
        tracked = tracker.step(scene(*(discs if front else discs[::-1])))
        seen.append(tracked.ids.tolist())
        if k < 10 or k > 28:
            assert seen[-1] == [0, 1]
            np.testing.assert_allclose(centres(tracked.faces), [d[1:3] for d in discs], atol=1.6)
    assert [front] in seen  # the other was out of sight


def test_a_batch_of_faces_is_followed_in_one_call():
    model = Discs()
    tracker = Tracker(model, detect_every=0)
    for _ in range(3):
        tracked = tracker.step(scene((0, 40, 60, 20), (1, 120, 60, 18), (2, 200, 60, 22)))
    assert model.batches == [3, 3, 3] and len(tracked) == 3 and tracked.ids.tolist() == [0, 1, 2]
    assert tracked.faces.weights == "discs 1"


# State and input


def test_reset_forgets_everyone():
    tracker = Tracker(Discs())
    walk(tracker, [(60, 60), None, (60, 60)])
    assert tracker.reinitialisations == 1
    tracker.reset()
    assert tracker.reinitialisations == 0
    assert walk(tracker, [(180, 90)])[0][0] == [0]


@pytest.mark.parametrize("recall", [0, 250])
def test_a_frame_of_another_size_ends_every_track(recall):
    tracker = Tracker(Discs(), recall=recall)
    tracker.step(scene((0, 60, 60, 20)))
    tracked = tracker.step(scene((0, 60, 60, 20))[:, :200])
    assert tracked.ids.tolist() == [int(recall == 0)] and tracked.followed.tolist() == [False]


def test_who_is_hidden_for_long_behind_another_is_remembered():
    # red stands; green passes so slowly that red is hidden for longer than the memory
    tracker = Tracker(Discs(), memory=5)
    path = [60 + 4 * k for k in range(36)]
    seen = numbers(tracker, [scene((0, 120, 80, 20), (1, x, 80, 24)) for x in path])
    assert seen[0] == seen[-1] == [0, 1] and sum(ids == [1] for ids in seen) > 10
    # where nothing hides it, it is forgotten
    tracker = Tracker(Discs(), memory=5, recall=0)
    seen = numbers(tracker, [scene((0, 120, 80, 20), (1, 30, 80, 20)), *[scene((1, 30, 80, 20))] * 11])
    assert numbers(tracker, [scene((0, 120, 80, 20), (1, 30, 80, 20))] * 12)[-1] == [1, 2]


# Looks


def before(wall, *discs):
    """Discs in front of one of several patterned walls."""
    grey = np.random.default_rng(wall).integers(40, 216, (FRAME[0] // 20, FRAME[1] // 20, 1), np.uint8)
    image = np.repeat(grey.repeat(20, 0).repeat(20, 1), 3, 2)
    seen = scene(*discs)
    disc = (seen != 90).any(-1)
    image[disc] = seen[disc]
    return image


def numbers(tracker, pictures):
    return [tracker.step(picture).ids.tolist() for picture in pictures]


def test_who_returns_elsewhere_is_recognised_by_appearance_and_another_is_not():
    gone = [scene((1, 60, 60, 20))] * 2 + [scene()] * 12
    assert numbers(Tracker(Discs(), memory=5), [*gone, scene((1, 170, 100, 24))])[-1] == [0]
    assert numbers(Tracker(Discs(), memory=5), [*gone, scene((2, 60, 60, 20))])[-1] == [1]
    # of two at once each is the one that it looks like
    both = [scene((0, 60, 60, 20), (1, 170, 80, 20))] * 2 + [scene()] * 12
    tracker = Tracker(Discs(), memory=5)
    last = [tracker.step(picture) for picture in [*both, scene((1, 50, 60, 20), (0, 170, 80, 20))]][-1]
    assert last.ids.tolist() == [0, 1] and tracker.reinitialisations == 2
    np.testing.assert_allclose(centres(last.faces), [(170, 80), (50, 60)], atol=1.6)


def test_appearance_is_forgotten_too():
    for gone, number in ((9, 0), (10, 1)):  # it is back in the frame after these
        tracker = Tracker(Discs(), memory=5, recall=10)
        assert numbers(tracker, [scene((0, 60, 60, 20)), *[scene()] * gone, scene((0, 60, 60, 20))])[-1] == [number]


def test_at_a_cut_everyone_is_looked_for_anew():
    tracker = Tracker(Discs())
    shots = [before(1, (0, 100, 80, 20))] * 3 + [before(2, (1, 100, 80, 20))] * 3 + [before(1, (0, 104, 80, 20))] * 2
    assert numbers(tracker, shots) == [[0]] * 3 + [[1]] * 3 + [[0]] * 2
    assert tracker.aligner.detector.calls == 3  # at the start, and at each cut


def test_neither_a_flash_nor_the_dark_is_a_cut():
    tracker = Tracker(Discs(), detect_every=0)
    disc = 0, 100, 80, 20
    bright = (before(1, disc) * 0.5 + 127).astype(np.uint8)
    bright[(scene(disc) != 90).any(-1)] = COLOURS[0]
    black = np.zeros(FRAME, np.uint8)
    seen = [tracker.step(picture) for picture in (before(1, disc), bright, before(1, disc), black, before(1, disc))]
    assert [s.ids.tolist() for s in seen] == [[0], [0], [0], [], [0]]
    assert [s.followed.tolist() for s in seen[:3]] == [[False], [True], [True]]
    assert tracker.reinitialisations == 1 and tracker.aligner.detector.calls == 1


def test_a_restored_tracker_remembers_appearance_and_the_shot():
    first = [before(1, (0, 60, 60, 20), (1, 170, 80, 20))] * 2 + [before(1, (0, 60, 60, 20))] * 8
    rest = [before(1, (0, 60, 60, 20), (1, 170, 80, 20)), before(2, (2, 60, 60, 20), (1, 170, 80, 20))]
    whole = numbers(Tracker(Discs(), memory=5, detect_every=1), first + rest)
    tracker, other = (Tracker(Discs(), memory=5, detect_every=1) for _ in range(2))
    numbers(tracker, first)
    other.restore(tracker.state())
    assert numbers(other, rest) == whole[-2:]
    assert whole[-2] == [0, 1] and 0 not in whole[-1]  # red is gone at the cut, and blue is new


@pytest.mark.parametrize(
    "given", [{"aligner": "swift"}, {"tracking": "swift"}, {"initial": "swift"}, {"aligner": None}]
)
def test_what_is_no_aligner_is_refused(given):
    with pytest.raises(CanthusError, match="as an aligner, want what `canthus.load` gives"):
        Tracker(**{"aligner": aligner(), **given})


@pytest.mark.parametrize("name", ["detect_every", "memory", "recall"])
@pytest.mark.parametrize("value", [-1, 1.5, "2", None, True])
def test_numbers_of_frames_that_are_none_are_refused(name, value):
    with pytest.raises(CanthusError, match=f"got {name}={value!r}, want a number of frames"):
        Tracker(Discs(), **{name: value})


def test_frames_are_checked_as_photos_are():
    with pytest.raises(ImageError, match="want uint8"):
        Tracker(Discs()).step(np.zeros(FRAME, bool))


def test_a_mean_shape_on_the_card_aligns_the_crops():
    model = Discs()
    model.card = replace(CARD, mean_shape=(SHAPE[:, :2] / 2).tolist())  # the box half as wide as the crop
    plain = Discs()
    tracker = Tracker(plain, model, detect_every=0)
    for _ in range(2):
        tracker.step(scene((0, 100, 80, 24)))
    for crops, share in ((plain.crops[0], 1 / 1.5), (model.crops[0], 0.5)):
        width = np.ptp(np.nonzero((np.abs(crops[0].astype(int) - COLOURS[0]).sum(-1) < 200).any(0))[0]) + 1
        assert abs(width / SIZE - share) < 0.05


def test_shape_aligned_training_uses_the_mean_shape_and_its_card_carries_it(made_shards, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from small import config, recipe

    import canthus.training.train
    from canthus.training.aligner import Aligner

    seen = []

    class Spy(canthus.training.train.Augmenter):
        def __init__(self, *args):
            seen.append(args[3])
            super().__init__(*args)

    monkeypatch.setattr(canthus.training.train, "Augmenter", Spy)
    alone = {"shape_aligned": True, "details": False, "heatmaps": 0}  # points start from the mean shape
    plan = recipe("swift", made_shards, config=config("swift") | alone, steps=2)
    for _ in canthus.training.train.train(plan, tmp_path):
        pass
    model = Aligner.load(tmp_path / "weights")
    shape = np.array(model.card.mean_shape)
    assert seen == [model.card.mean_shape] and shape.shape == (68, 2)
    # from the front: the box in the middle, 1 / 1.4 of the crop high or wide; eyes level and above the mouth
    np.testing.assert_allclose(shape.min(0), -shape.max(0), atol=1e-4)
    np.testing.assert_allclose(np.ptp(shape, axis=0).max(), 1 / 1.4, atol=1e-4)
    assert abs(shape[36:42, 1].mean() - shape[42:48, 1].mean()) < 0.005 and shape[36:48, 1].max() < shape[48:, 1].min()
    # the network starts from the mean of what it is shown: turned heads laid on that shape
    assert np.abs(model.mean_shape[:, :2].numpy() - shape).mean() < 0.03
    tracker = Tracker(aligner(), model, min_score=0.0)
    tracker.step(photo())
    assert tracker.step(photo()).followed.tolist() == [True]


# The default weights on a photo that moves


def moved(scale, angle, x, y):
    """The astronaut's head over a backdrop of 360 x 300 px, and its affine (2,3): photo -> frame."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    middle = (BOX[:2] + BOX[2:]) / 2
    shift = np.array([x, y]) - linear @ middle
    back = np.linalg.inv(linear)
    start = back @ ([0.5, 0.5] - shift) + 0.5 - back @ [0.5, 0.5]  # Pillow: half-pixel corners
    data = [*back[0], start[0] - back[0] @ [0.5, 0.5], *back[1], start[1] - back[1] @ [0.5, 0.5]]
    rgb = Image.fromarray(np.array(photo()))
    head = rgb.transform((360, 300), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    mask = Image.new("L", rgb.size)
    mask.paste(255, (130, 10, 320, 250))
    mask = mask.transform((360, 300), Image.Transform.AFFINE, data)
    backdrop = Image.fromarray(np.array(photo()[200:500, 100:460][::-1]))
    return np.asarray(Image.composite(head, backdrop, mask)), np.concatenate([linear, shift[:, None]], 1)


def motion(frames):
    t = np.arange(frames) / 25
    scale, angle = 1 + 0.3 * np.sin(2 * t), 0.5 * np.sin(1.5 * t)
    return [moved(*m) for m in zip(scale, angle, 170 + 60 * np.sin(2.2 * t), 140 + 30 * np.sin(3 * t))]


def test_on_an_affine_moving_face_the_error_stays_at_the_static_level():
    rest = aligner().predict(photo(), boxes=BOX).xy[0]
    tracker = Tracker(aligner(), detect_every=0)
    clip = motion(60)
    truth = np.stack([rest @ affine[:, :2].T + affine[:, 2] for _, affine in clip])
    followed = []
    for frame, _ in clip:
        tracked = tracker.step(frame)
        followed.append(tracked.faces.xy[0])
        assert tracked.ids.tolist() == [0] and tracked.followed.all() == (len(followed) > 1)
    assert tracker.reinitialisations == 0
    boxes = np.concatenate([truth.min(1), truth.max(1)], 1)
    static = np.stack([aligner().predict(f, boxes=b).xy[0] for (f, _), b in zip(clip, boxes)])
    ours, theirs = nme_box(np.stack(followed), truth), nme_box(static, truth)
    # crops turned upright are nearer to the photo's own than the unturned ones from true boxes
    assert ours.mean() < 1.1 * theirs.mean() and ours.max() < 0.04
    still = [affine[:, :2].T for _, affine in clip]
    wobble = np.stack([(f - t) @ np.linalg.inv(s) for f, t, s in zip(followed, truth, still)])
    assert jitter(wobble) < 0.01 * np.sqrt(np.prod(BOX[2:] - BOX[:2]))


def test_followed_crops_are_upright():
    # the head is rolled by 40 degrees: seen from a crop turned with it, it is not
    rolls = []

    class Spy(type(aligner())):
        def run(self, crops):
            out = super().run(crops)
            rolls.append(np.rad2deg(np.arctan2(-out.rotation[0, 0, 1], out.rotation[0, 1, 1])))
            return out

    spy = Spy.__new__(Spy)
    spy.__dict__.update(aligner().__dict__)
    frame, _ = moved(1.2, np.deg2rad(40), 170, 140)
    found = aligner().detector(frame)
    spy.detector = FunctionDetector(lambda image: (found.boxes[:1], found.scores[:1]))  # that does not know the roll
    upright = aligner().run_batches(crop_of(photo(), BOX)).rotation[0]
    natural = np.rad2deg(np.arctan2(-upright[0, 1], upright[1, 1]))
    tracker = Tracker(spy)
    for _ in range(3):
        tracker.step(frame)
    assert abs(rolls[0] + 40 - natural) < 8 and abs(rolls[2]) < 4


def crop_of(image, box):
    from canthus.io.images import crop_image

    card = aligner().card
    return crop_image(image, Crop.around_boxes(box[None].astype(float), card.crop_scale, card.crop_size))


def test_after_a_black_out_the_photo_is_found_in_one_frame():
    clip = [frame for frame, _ in motion(20)]
    tracker = Tracker(aligner(), detect_every=0)
    for frame in clip[:5]:
        tracker.step(frame)
    for _ in range(10):
        assert len(tracker.step(np.zeros_like(clip[0]))) == 0
    tracked = tracker.step(clip[5])
    assert tracked.ids.tolist() == [0] and tracked.followed.tolist() == [False] and tracker.reinitialisations == 1


def test_a_far_newcomer_beside_a_near_face_is_found_by_the_thorough_search():
    head = Image.fromarray(photo()[:240, 100:340])
    near = Image.new("RGB", (1800, 1200), (90, 110, 100))
    near.paste(head.resize((1040, 1040)), (40, 80))
    both = near.copy()
    both.paste(head.resize((50, 50)), (1400, 600))  # a face of 19 px; the near one has 400
    tracker = Tracker(aligner(), detect_every=4)
    counts = [len(tracker.step(np.asarray(both if k >= 2 else near))) for k in range(18)]
    assert counts == [1] * 16 + [2] * 2  # every fourth search is thorough


def test_a_face_upside_down_is_followed_upside_down():
    frames = [frame[::-1, ::-1] for frame, _ in motion(8)]
    tracker = Tracker(aligner())
    for frame in frames:
        tracked = tracker.step(frame)
        assert tracked.ids.tolist() == [0]
        assert tracked.faces.xy[0, 8, 1] < tracked.faces.xy[0, 36:48, 1].mean() - 20  # the chin is above the eyes
    assert tracked.followed.tolist() == [True] and tracker.reinitialisations == 0


def test_an_empty_frame_takes_one_quick_search():
    searches = []

    class Spy:
        def __call__(self, image):
            searches.append("thorough")
            return detections(np.zeros((0, 4), np.float32))

        def quick(self, image):
            searches.append("quick")
            return detections(np.zeros((0, 4), np.float32))

    model = Discs()
    model.detector = Spy()
    for detect_every in (4, 0):
        searches.clear()
        tracker = Tracker(model, detect_every=detect_every)
        for _ in range(9):
            tracker.step(scene())
        assert searches[:4] == ["thorough"] + ["quick"] * 3
        assert searches.count("thorough") == (3 if detect_every else 1)  # frames 0, 4, 8; without: 0 and 12


def test_a_lost_face_is_searched_for_where_it_should_be_while_others_are_there():
    regions = []

    class Spy(Detector):
        def quick(self, image):
            regions.append(image.shape[:2])
            return super().quick(image)

    model = Discs()
    model.detector = Spy()
    tracker = Tracker(model, detect_every=0)
    tracker.step(scene((0, 60, 80, 12), (1, 180, 80, 12)))
    regions.clear()
    lost = tracker.step(scene((0, 60, 80, 12)))
    # 2.2 face sizes each way of 24 px * sqrt(0.88): about 99 px, the face's own place in the middle
    assert lost.ids.tolist() == [0] and len(regions) == 1 and max(regions[0]) <= 101
    found = tracker.step(scene((0, 60, 80, 12), (1, 184, 84, 12)))
    assert found.ids.tolist() == [0, 1] and found.followed.tolist() == [True, False]
    np.testing.assert_allclose(centres(found.faces)[1], [184, 84], atol=1.5)


# Smoothing


def test_one_euro_by_hand():
    # Two steps of 0.5 s from 0 to 1, cutoff 1 Hz, beta 0.5, speed cutoff 1 Hz. A low pass of f Hz gives weight
    # w(f) = r / (1 + r), r = 2 pi f 0.5. Speed: w(1) * 2 = 1.5170; cutoff 1 + 0.5 * 1.5170 = 1.7585.
    smooth = OneEuro(1.0, 0.5, 1.0)
    assert smooth(np.zeros(1), 0.0) == 0
    r = np.pi * (1 + 0.5 * 2 * np.pi / (1 + np.pi))
    np.testing.assert_allclose(smooth(np.ones(1), 0.5), r / (1 + r))


def test_one_euro_quietens_rest_and_follows_motion():
    rng, times = np.random.default_rng(0), np.arange(200) / 25
    noise, smooth = rng.normal(0, 0.01, 200), OneEuro(1.0, 1.0)
    rest = np.array([smooth(np.array(v), t) for v, t in zip(noise, times)])
    assert rest[50:].std() < 0.5 * noise.std()
    smooth = OneEuro(1.0, 5.0)
    lag = [5 * t - smooth(np.array(5 * t), t) for t in times]
    assert lag[-1] < 0.05  # a cutoff of 26 Hz trails by 1 / (2 pi 26) s of 5 units a second


def test_a_smoothed_track_is_calmer_and_a_lost_one_starts_anew():
    rng, faces = np.random.default_rng(0), aligner().predict(photo(), boxes=BOX)
    smooth, raw, calm = Smoother(), [], []
    for k in range(40):
        shaken = replace(faces, xyz=faces.xyz + rng.normal(0, 0.5, faces.xyz.shape))
        raw.append(shaken.xyz[0])
        calm.append(smooth(TrackedFaces(shaken, [3], [k > 0]), k / 25).faces.xyz[0])
    assert jitter(np.stack(calm)) < 0.4 * jitter(np.stack(raw))
    far = replace(faces, xyz=faces.xyz + [100, 0, 0])
    again = smooth(TrackedFaces(far, [3], [False]), 2.0).faces
    np.testing.assert_array_equal(again.xyz, far.xyz)
    R = again.pose.matrix
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.eye(3)[None], atol=1e-9)


def test_a_tracker_goes_on_from_its_state_as_if_it_had_not_been_stopped() -> None:
    """Two discs of which one is hidden for some frames: tracks, speeds, numbers and the next search are all in it."""
    places = [[(60 + 2 * k, 50), None if 5 <= k < 9 else (160, 100 - k)] for k in range(16)]
    frames = [np.zeros(FRAME, np.uint8) for _ in places]
    for frame_, centres in zip(frames, places):
        for colour, centre in zip(COLOURS, centres):
            if centre is not None:
                y, x = np.indices(FRAME[:2])
                frame_[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 20**2] = colour

    def said(tracker: Tracker, some: list[np.ndarray]) -> list[tuple]:
        steps = [tracker.step(one) for one in some]
        return [(s.ids.tolist(), s.followed.tolist(), s.faces.xyz.tolist(), s.faces.weights) for s in steps]

    whole = Tracker(Discs(), detect_every=6)
    expected = said(whole, frames)
    assert [len(one[0]) for one in expected[4:10]] == [2, 1, 1, 1, 1, 2] and whole.reinitialisations == 1
    for stop in (3, 6, 7, 12):
        first, second = Tracker(Discs(), detect_every=6), Tracker(Discs(), detect_every=6)
        before = said(first, frames[:stop])
        second.restore(first.state())
        assert before + said(second, frames[stop:]) == expected
        assert second.reinitialisations == 1
    with pytest.raises(LandmarkError, match="want that of a tracker"):
        second.restore({"size": np.zeros(2)})


class Unsure(Discs):
    """Always as sure of a face as it is told: by the peaks of its maps, or by a sigma that gives such scores."""

    def __init__(self, confidence: float, by_sigma: bool, yaw: float = 0.0):
        super().__init__()
        self.confidence, self.by_sigma, self.yaw = confidence, by_sigma, yaw

    def run(self, crops):
        out = super().run(crops)
        if not self.by_sigma:
            return replace(out, score=np.full((len(crops), 68), self.confidence))
        # 1 - (1 + a) exp(-a) = confidence is solved by bisection; sigma = sqrt(3) 0.05 size / a
        low, high = np.zeros(len(crops)), np.full(len(crops), 50.0)
        for _ in range(60):
            a = (low + high) / 2
            under = 1 - (1 + a) * np.exp(-a) < self.confidence
            low, high = np.where(under, a, low), np.where(under, high, a)
        extent = np.ptp(out.xyz[..., :2], axis=1).prod(1) ** 0.5
        sigma = np.sqrt(3) * 0.05 * extent / low
        rotation = matrix_from_vector(np.array([[0, self.yaw, 0]])).repeat(len(crops), 0)
        return replace(out, sigma=np.repeat(sigma[:, None], 68, 1), score=None, rotation=rotation)


@pytest.mark.parametrize(
    ("by_sigma", "confidence", "is_followed"), [(False, 0.27, True), (False, 0.24, False), (True, 0.27, False)]
)
def test_peaks_of_heatmaps_have_a_lower_limit_than_scores_of_points(by_sigma, confidence, is_followed):
    tracker = Tracker(Discs(), Unsure(confidence, by_sigma))
    tracker.step(scene((0, 100, 80, 20)))
    assert tracker.step(scene((0, 102, 80, 20))).followed.tolist() == [is_followed]
    lenient = Tracker(Discs(), Unsure(confidence, by_sigma), min_score=0.2)
    lenient.step(scene((0, 100, 80, 20)))
    assert lenient.step(scene((0, 102, 80, 20))).followed.tolist() == [True]


@pytest.mark.parametrize(("degrees", "found"), [(0, 0), (30, 0), (60, 1), (90, 1), (-90, 1)])
def test_of_a_profile_less_is_wanted(degrees, found):
    # 0.1 from the side, 0.2 from the front, at 30 degrees 0.1 (1 + cos 30) = 0.187, at 60 degrees 0.15.
    tracker = Tracker(Unsure(0.17, by_sigma=True, yaw=np.deg2rad(degrees)), Discs())
    quick = tracker.aligner.detector.quick
    tracker.aligner.detector.quick = lambda image: quick(image)._replace(
        least_score=np.full(1, 0.1), facing_score=np.full(1, 0.2)
    )
    assert len(tracker.step(scene((0, 100, 80, 20)))) == found


def test_no_face_is_looked_for_where_the_detector_doubts_too_much():
    # Places are looked at up to a wanted score of 0.6.
    tracker = Tracker(Discs())
    found = tracker.aligner.detector.quick
    tracker.aligner.detector.quick = lambda image: found(image)._replace(facing_score=np.full(1, 0.61))
    assert len(tracker.step(scene((0, 100, 80, 20)))) == 0
    assert tracker.aligner.batches == []
    tracker.aligner.detector.quick = lambda image: found(image)._replace(facing_score=np.full(1, 0.59))
    assert tracker.step(scene((0, 100, 80, 20))).ids.tolist() == [0]


class Crooked(Discs):
    """Weights that learnt crops aligned to a mean shape; keeps how the crops that it is given were cut."""

    def __init__(self):
        super().__init__()
        self.card = replace(CARD, mean_shape=(SHAPE[:, :2] / 1.5).tolist())


def test_the_first_crop_is_aligned_by_the_points_of_other_weights():
    first, found = Crooked(), Discs()
    tracker = Tracker(first, initial=found, detect_every=0)
    tracked = tracker.step(scene((0, 100, 80, 20)))
    np.testing.assert_allclose(centres(tracked.faces), [(100, 80)], atol=1.5)
    assert tracked.faces.weights == first.card.title and tracked.faces.detection_scores == pytest.approx([0.8])
    # both saw the disc once, and the similarity to the mean shape fills as much of the crop as the box does
    assert found.batches == [1] and first.batches == [1]
    red = [(np.abs(c[0].astype(int) - COLOURS[0]).sum(-1) < 200).mean() for c in (found.crops[0], first.crops[0])]
    assert red[1] == pytest.approx(red[0], rel=0.1)


def test_weights_with_a_mean_shape_see_the_crops_that_they_learnt_from_in_photos_too():
    first = Crooked()
    first.tells_sigma, first.judge = False, Discs()  # so that others find the face
    first.card = replace(CARD, mean_shape=(SHAPE[:, :2] / 3).tolist())
    faces = first.predict(scene((0, 100, 80, 20)))
    np.testing.assert_allclose(centres(faces), [(100, 80)], atol=2.5)
    # the face of the mean shape is a third of the crop's side, and that of crops around boxes 1 / 1.5 of it
    red = [(np.abs(c[0].astype(int) - COLOURS[0]).sum(-1) < 200).mean() for c in (first.judge.crops[0], first.crops[0])]
    assert red[1] == pytest.approx(red[0] / 4, rel=0.2)


@pytest.mark.parametrize("value", ["0.5", float("nan"), [0.5]])
def test_a_least_score_that_is_no_number_is_refused(value):
    with pytest.raises(CanthusError, match="got min_score=.*, want a number, or None"):
        Tracker(Discs(), min_score=value)


@pytest.mark.parametrize(("factor", "followed"), [(1.45, True), (1.55, False)])  # exp(0.4) = 1.49
def test_a_face_that_grows_too_fast_is_not_followed(factor, followed):
    class Growing(Discs):
        def run(self, crops):
            xyz = np.tile(factor * SIZE / 1.5 * SHAPE + [(SIZE - 1) / 2, (SIZE - 1) / 2, 0], (len(crops), 1, 1))
            return Alignment(xyz, rotation=np.tile(np.eye(3), (len(crops), 1, 1)))

    tracker = Tracker(Discs(), tracking=Growing(), detect_every=0)
    tracker.step(scene((0, 100, 80, 20)))
    assert tracker.step(scene((0, 100, 80, 20))).followed.tolist() == [followed]
