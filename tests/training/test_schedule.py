"""Stages over steps: where each begins, which optimiser it has, what the rate is."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from small import recipe  # noqa: E402

from canthus.errors import RecipeError  # noqa: E402
from canthus.training.aligner import Stage  # noqa: E402
from canthus.training.schedule import at, plan  # noqa: E402

TERMS = {"distance": 1.0}
STAGES = tuple(Stage(name, TERMS, share=share) for name, share in (("a", 1.0), ("b", 2.0), ("c", 1.0)))


def lay_out(method=STAGES, **changes):
    return plan(recipe("swift", Path("x"), **changes), method)


def rates(scheduled, steps):
    return [at(scheduled, k).span.lr_at(k) for k in steps]


def test_stages_share_the_steps():
    a, b, c = lay_out(steps=400)
    assert [(s.first, s.last) for s in (a, b, c)] == [(0, 100), (100, 300), (300, 400)]
    assert a.span is b.span is c.span and a.span.steps == 400  # one optimiser for all
    assert at((a, b, c), 99) is a and at((a, b, c), 100) is b and at((a, b, c), 399) is c


def test_shares_of_tenths_leave_no_step_out():
    scheduled = lay_out(tuple(Stage(f"{k}", TERMS, share=0.1) for k in range(10)), steps=10)
    assert [(s.first, s.last) for s in scheduled] == [(k, k + 1) for k in range(10)]


def test_a_stage_with_a_share_of_zero_is_left_out():
    a, b, c = lay_out(steps=2, stages={"b": {"share": 0}})
    assert [(s.first, s.last) for s in (a, b, c)] == [(0, 1), (1, 1), (1, 2)]
    assert at((a, b, c), 0) is a and at((a, b, c), 1) is c


def test_a_recipe_may_give_other_shares_and_batches():
    a, b, c = lay_out(steps=100, batch=10, stages={"a": {"share": 7}, "b": {"batch": 4}})
    assert [(s.first, s.last) for s in (a, b, c)] == [(0, 70), (70, 90), (90, 100)]
    assert [s.batch for s in (a, b, c)] == [10, 4, 10]
    assert a.span is c.span  # neither needs another optimiser
    assert [s.seen for s in (a, b, c)] == [0, 700, 780]
    assert b.drawn(75) == 720


def test_the_rate_rises_then_falls_to_a_hundredth():
    scheduled = lay_out(steps=110, warmup_steps=10, lr=1.0)
    # Warm-up in tenths; at step 10 the cosine starts from the peak; halfway down (step 60) (1 + 0.01) / 2.
    assert rates(scheduled, (0, 4, 9, 10)) == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rates(scheduled, (60, 109)) == pytest.approx([0.505, 0.01], abs=1e-3)


def test_a_exponential_rate_falls_by_the_same_factor_every_step():
    scheduled = lay_out(steps=100, warmup_steps=0, lr=2.0, schedule="exponential", final_lr_ratio=0.01)
    found = rates(scheduled, range(100))
    assert found[0] == 2.0 and found[50] == pytest.approx(0.2)  # half of the two tens
    assert {round(b / a, 9) for a, b in zip(found, found[1:])} == {round(0.01**0.01, 9)}


def test_a_rate_in_steps_drops_by_ten_where_asked():
    scheduled = lay_out(steps=40, warmup_steps=0, lr=1.0, schedule="multistep", lr_milestones=(0.6, 0.85))
    # RMSprop of 40 epochs, divided at the 24th and the 34th
    assert rates(scheduled, (0, 23, 24, 33, 34, 39)) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_stage_with_a_rate_of_its_own_has_its_own_optimiser_warm_up_and_schedule():
    scheduled = lay_out(
        steps=400, warmup_steps=10, lr=1.0, stages={"b": {"lr": 0.5, "optimizer": "sgd", "weight_decay": 0.2}}
    )
    a, b, c = scheduled
    assert len({id(s.span) for s in scheduled}) == 3 and [s.span.number for s in scheduled] == [0, 1, 2]
    assert [(s.span.first, s.span.steps) for s in scheduled] == [(0, 100), (100, 200), (300, 100)]
    assert [s.span.optimizer for s in scheduled] == ["adamw", "sgd", "adamw"] and b.span.weight_decay == 0.2
    assert rates(scheduled, (99, 100, 109, 110, 300, 310)) == pytest.approx([0.01, 0.05, 0.5, 0.5, 0.1, 1.0], abs=1e-3)


def test_stages_without_go_on_together():
    four = (*STAGES, Stage("d", TERMS))
    a, b, c, d = lay_out(four, steps=500, stages={"b": {"final_lr_ratio": 0.5}})
    assert c.span is d.span and c.span.steps == 200 and a.span is not b.span is not c.span


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": {"bb": {"lr": 1.0}}}, "`stages`.*'bb'; 'b'"),
        ({"schedule": "exponential", "final_lr_ratio": 0.0}, "exponential"),
        ({"stages": {"b": {"schedule": "multistep"}}}, "`lr_milestones`"),
        ({"stages": {n: {"share": 0} for n in "abc"}}, "shares"),
        ({"steps": 2}, "the stage 'c' gets none"),  # a has steps 0 to 0.5, b to 1.5, c to 2
        ({"steps": 100, "stages": {"b": {"share": 1000}}}, "the stage 'c' gets none"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        lay_out(**changes)
