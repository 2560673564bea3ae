"""Bytes from outside to data: one door for whatever decoders raise, and strict readers of JSON, NPZ, NPY and MATLAB."""

from canthus.decode.arrays import open_npz, read_npy, read_npz
from canthus.decode.door import decoding, encodable, one_line, read_bytes, read_text
from canthus.decode.files import listed, sha256, verified
from canthus.decode.values import check_plain, fits, numbers, parse_json, read_json

__all__ = [
    "check_plain", "decoding", "encodable", "fits", "listed", "numbers", "one_line", "open_npz", "parse_json",
    "read_bytes", "read_json", "read_npy", "read_npz", "read_text", "sha256", "verified",
]  # fmt: skip
