"""The files of what papers print: they name what exists, and their numbers agree with each other."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from canthus.errors import CanthusError
from canthus.evaluation.protocols import PROTOCOLS
from canthus.papers.published import PAPERS, PaperTable, published


@pytest.fixture(params=PAPERS)
def paper(request):
    return published(request.param)


def table(method: str, name: str) -> PaperTable:
    return next(t for t in published(method).tables if t.name == name)


def test_another_paper_is_refused():
    with pytest.raises(CanthusError, match="no paper 'swift': one of local_global, "):
        published("swift")


def test_every_name_in_a_file_exists(paper):
    assert set(paper.protocols) <= set(PROTOCOLS)
    for wanted in paper.weights.values():
        assert set(wanted.of) <= set(paper.weights)
    for t in paper.tables:
        for row in t.rows:
            assert len(row.printed) == len(t.columns), row.name
            assert {row.weights, row.tracking} - {""} <= set(paper.weights)
        assert bool(t.impossible) != any(row.weights for row in t.rows)
        for column in t.columns:
            names = {e for p in column.protocols for e in PROTOCOLS[p].errors}
            by_name = column.at[1] and column.at[0] != "video"
            assert t.impossible or not by_name or column.at[1] in names, column.name
    for figure in paper.figures:
        for curve in figure.curves:
            assert curve.weights in paper.weights and curve.protocols
            assert figure.kind == "pictures" or curve.error in PROTOCOLS[curve.protocols[0]].errors


def test_configs_of_weights_are_keys_of_the_method_and_tell_them_apart(paper):
    pytest.importorskip("torch")
    from canthus.training.aligner import method_class

    keys = {f.name for f in fields(method_class(paper.method).Config)}
    for name, wanted in paper.weights.items():
        assert set(wanted.config) | set(wanted.change) <= keys, name
    plain = {k: v[0] if isinstance(v, list) else v for k, v in next(iter(paper.weights.values())).config.items()}
    others = [w for w in list(paper.weights.values())[1:] if w.config]
    assert all(w.misfit(plain) for w in others)


@pytest.mark.parametrize(
    ("method", "name", "ddof"),
    [("jvcr", "Table IV", 1), ("cprfa", "Table 2, AFLW2000-3D", None), ("cprfa", "Table 1, NME", 0)],
)
def test_printed_means_and_deviations_follow_from_the_printed_bins(method, name, ddof):
    # means of three numbers rounded to 0.01 are off by up to 0.005 + 0.005, deviations by a little more
    for row in table(method, name).rows:
        if np.isfinite(row.printed[:5]).all():
            bins, mean, std = row.printed[:3], row.printed[3], row.printed[4]
            assert np.mean(bins) == pytest.approx(mean, abs=0.011), row.name
            if ddof is not None:
                assert np.std(bins, ddof=ddof) == pytest.approx(std, abs=0.02), row.name


def test_the_printed_full_set_of_300w_is_the_mean_over_its_images():
    # 554 common and 135 challenging faces; three rows that the paper quotes from others do not agree
    quoted = (("LAB", 3), ("CFSS", 0), ("CFAN", 0))
    for row in table("pose_aware", "Table 1").rows:
        for first in (0, 3):
            common, challenge, full = row.printed[first : first + 3]
            if np.isfinite(full) and (row.name, first) not in quoted:
                assert (554 * common + 135 * challenge) / 689 == pytest.approx(full, abs=0.02), row.name
