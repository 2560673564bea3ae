"""Readers of data sets as their authors lay them out. Everything is converted here, at the door, to the house's
conventions: 0-based pixels, y down, z nearer = larger with mean zero, rotation matrices."""

from canthus.data.formats.face import FaceSample, Faults
from canthus.data.formats.files import read_array_pairs, read_coco, read_dlib_xml, read_ljson, read_pts, read_pts_pairs
from canthus.data.formats.fitted import read_300wlp, read_aflw2000
from canthus.data.formats.layouts import Layout, recognise
from canthus.data.formats.marked import (
    read_300vw,
    read_300w,
    read_aflw21,
    read_aflw_full,
    read_cofw29,
    read_cofw68,
    read_wflw,
)
from canthus.data.formats.rendered import read_clips, read_renders
from canthus.data.formats.spatial import read_3dfaw, read_biwi, read_menpo3d

__all__ = [
    "FaceSample", "Faults", "Layout", "read_300vw", "read_300w", "read_300wlp", "read_3dfaw", "read_aflw2000",
    "read_aflw21", "read_aflw_full", "read_array_pairs", "read_biwi", "read_clips", "read_coco", "read_cofw29",
    "read_cofw68", "read_dlib_xml", "read_ljson", "read_menpo3d", "read_pts", "read_pts_pairs", "read_renders",
    "read_wflw", "recognise",
]  # fmt: skip
