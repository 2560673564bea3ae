"""tools/readme.py: the tables of the pages are those of the results and cards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("scipy.io")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def readme(monkeypatch) -> ModuleType:
    """The script, as a module; what it imports from benchmarks/ is forgotten again, and so is what bears its names."""
    for name in ("common", "accuracy", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_pages_hold_what_was_measured(readme):
    texts = readme.tables()
    for page in readme.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert readme.filled(text, texts) == text, f"{page} is out of date: python tools/readme.py"


def test_the_tables_follow_the_results(tmp_path, monkeypatch, readme):
    monkeypatch.setattr(readme.common, "RESULTS", tmp_path)
    monkeypatch.setattr(readme.common.subprocess, "check_output", lambda *a, **k: "0" * 40)
    row = {"0-30": 1.0, "30-60": 2.0, "60-90": 3.0, "mean of bins": 2.0, "gte": 4.0, "missed": 1, "faces": 9}
    step = {"swift, 1 threads": {"detect": {"median": 7.0}}, "jvcr-small, 1 threads": {"detect": {"median": 8.0}}}
    readme.common.write("accuracy", {"swift, true boxes": row, "jvcr-small, true boxes": row})
    readme.common.write("speed", {"steps_ms": step, "cold_start_s": 0.7})
    texts = readme.tables()
    assert "| swift, true boxes | 1.00 | 2.00 | 3.00 | 2.00 | 4.00 | 1 |" in texts["accuracy"]
    assert texts["methods"] == texts["peers"] == "" and "| detect | 7.00 |" in texts["speed"]
    recipe = {"parameters": 2.5e6, "GMAC": 1.25, "ms": 30.0}
    readme.common.write("methods", {"threads": 1, "recipes": {"jvcr-paper": recipe, "jvcr-small-synth": recipe}})
    cost = {"system": "peer 1", "ms": 9.0, "peak MB": 5, "installed MB": 6, "ratio to ours": {"ms": 1.5}}
    found = {"peer 1": row | {"gte": 5.0}}
    readme.common.write("beside", {"cost": {"one core": [cost]}, "accuracy": found})
    texts = readme.tables()
    assert "mean 3.64; GTE 7.28 | 2.5 M, 1.2 | 1.00, 2.00, 3.00" in texts["methods"]
    assert "| peer 1, own detector | 1.00" in texts["accuracy"] and "| peer 1, one core | 9 (1.5x) |" in texts["cost"]
    assert "| peer 1 | 2.00 | 1 of 9 | 9.0 | 5 | 6 |" in texts["peers"]


def test_only_what_stands_between_its_marks_is_replaced(readme):
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert readme.filled(page, {"x": "new", "y": "no"}) == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n"


def test_the_tables_of_scale_are_products_of_what_was_measured(tmp_path, monkeypatch, readme):
    monkeypatch.setattr(readme.common, "RESULTS", tmp_path)
    monkeypatch.setattr(readme.common.subprocess, "check_output", lambda *a, **k: "0" * 40)
    step = {"detect": {"ms": 9.0, "cpu_ms": 7.25}}
    ways = {"before, parquet": {"cpu_ms": 72.0}, "one core, parquet": {"cpu_ms": 36.0}}
    found = {"steps": {"9 x 9": step}, "ways": {"9 x 9": ways}, "bytes_a_face": {"parquet": 2000}}
    assert "| detect | 7.25 |" in "\n".join(readme.photo_steps(found))
    assert "| photos a second a core | 28 |" in "\n".join(readme.photo_steps(found))  # 1000 / 36 = 27.8
    # 1e8 photos of 36 ms are 3.6e6 s, that is 1000 hours: 40 of money, and 1000 / 512 / 24 = 0.08 days on 512 cores
    bill = "\n".join(readme.bill(found))
    assert all(row in bill for row in ("| core-hours | 1000 |", "cores | 0.08 |", "core-hour | 40 |", "| 200 GB |"))
    ratio = {"median": 1.85, "least": 1.7, "most": 1.9}
    assert "| 2 lanes | 1.85 | 1.70 to 1.90 |" in "\n".join(readme.core_ratios({"speed_up": {"2 lanes": ratio}}))
    one = {"photos": 10, "faces": 3, "list_us": 5.0, "cpu_ms": 2.5, "start_mb": 90.2, "peak_mb": 240.0,
           "mb": [[[4, 200.0], [8, 240.0]], [[9, 230.4]]]}  # fmt: skip
    assert "| 10 | 3 | 5.0 | 2.5 | 90 | 230 | 240 |" in "\n".join(readme.many_photos({"folders": [one]}))
