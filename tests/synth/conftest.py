"""What tests of rendered people share: the heads that they are made of."""

from __future__ import annotations

import pytest
from rendering import ASSETS, need_assets


@pytest.fixture(scope="module", params=["shipped", "assets"])
def assets(request):
    """The shipped head, and the head assets where they lie."""
    pytest.importorskip("scipy")
    from canthus.synth.heads import HeadAssets
    from canthus.synth.shipped import ShippedHead

    if request.param == "shipped":
        return ShippedHead()
    need_assets()
    return HeadAssets(ASSETS)
