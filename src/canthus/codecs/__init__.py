"""Codes of landmarks: each encoder beside its decoder.

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

__all__ = [
    "crop_from_map",
    "decode_argmax",
    "decode_dark",
    "decode_local_soft_argmax",
    "decode_quarter",
    "decode_soft_argmax",
    "encode_disc",
    "encode_gaussian",
    "map_from_crop",
]
