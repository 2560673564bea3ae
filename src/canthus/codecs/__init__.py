"""Codes of landmarks and of faces: each encoder beside its decoder.

What is here runs on NumPy arrays and torch tensors alike and imports no torch. The volumes, whose scatter
needs torch, are imported from `canthus.codecs.volumes`.
"""

from canthus.codecs.heatmaps import (
    crop_from_map,
    decode_argmax,
    decode_dark,
    decode_local_soft_argmax,
    decode_quarter,
    decode_soft_argmax,
    encode_disc,
    encode_gaussian,
    map_from_crop,
)
from canthus.codecs.pncc import encode_vertices, lookup_forward, lookup_reverse, nearest_code

__all__ = [
    "crop_from_map",
    "decode_argmax",
    "decode_dark",
    "decode_local_soft_argmax",
    "decode_quarter",
    "decode_soft_argmax",
    "encode_disc",
    "encode_gaussian",
    "encode_vertices",
    "lookup_forward",
    "lookup_reverse",
    "map_from_crop",
    "nearest_code",
]
