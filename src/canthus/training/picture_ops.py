# mypy: ignore-errors
"""Functions of ONNX's operators that `picture_graph` puts around a network. onnxscript reads them: they are in a
language of their own that looks like Python, and nothing here is run as Python.
"""

from onnxscript import opset18 as op
from onnxscript import script


@script(default_opset=op)
def crop_of(picture, box, roll, scale, size):
    """Of a picture (H,W,3) uint8, the pixels (1,S,S,3) uint8 of the crop around a tight box (4,), turned by roll (1,)
    radians; the centre (2,) of the crop, the picture's pixels in one of its own, and its axes (2,2) as columns."""
    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    third = op.Constant(value_ints=[2])
    swapped = op.Constant(value_ints=[1, 0])  # rows, columns <-> x, y
    exact = op.Cast(box, to=11)  # float64, as Pillow computes
    low_corner = op.Slice(exact, first, third)
    high_corner = op.Slice(exact, third, op.Constant(value_ints=[4]))
    centre = (low_corner + high_corner) / 2.0
    zoom = op.ReduceMax(high_corner - low_corner, keepdims=0) * scale / op.Cast(size, to=11)
    c = op.Cos(op.Cast(roll, to=11))
    s = op.Sin(op.Cast(roll, to=11))
    turn = op.Reshape(op.Concat(c, op.Neg(s), s, c, axis=0), op.Constant(value_ints=[2, 2]))
    across = op.Transpose(turn * zoom)  # of points as rows
    middle = (op.Cast(size, to=11) - 1.0) / 2.0

    extent = op.Gather(op.Cast(op.Slice(op.Shape(picture), first, third), to=11), swapped)
    block = op.Min(op.Max(op.Floor(zoom + 1e-9), 1.0), op.ReduceMax(extent, keepdims=0))
    signs = op.Reshape(
        op.Constant(value_floats=[-1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]), op.Constant(value_ints=[4, 2])
    )
    corners = op.MatMul(op.Cast(signs, to=11) * middle, across) + centre
    low = op.Min(op.Max(op.Floor(op.ReduceMin(corners, first, keepdims=0)) - block, 0.0), extent)
    high = op.Min(op.Max(op.Ceil(op.ReduceMax(corners, first, keepdims=0)) + 1.0 + block, low), extent)
    starts = op.Gather(op.Cast(low, to=7), swapped)
    ends = op.Gather(op.Cast(high, to=7), swapped)
    part = op.Cast(op.Slice(picture, starts, ends, op.Constant(value_ints=[0, 1])), to=1)

    # Blocks at the far borders are means of what is there of them.
    whole = op.Cast(op.Reshape(block, op.Constant(value_ints=[1])), to=7)
    given = ends - starts
    count = (given + whole - op.Constant(value_ints=[1])) / whole
    nothing = op.Constant(value_ints=[0, 0, 0])
    padded = op.Pad(part, op.Concat(nothing, count * whole - given, first, axis=0))
    down = op.Slice(count, first, second)
    right = op.Slice(count, second, third)
    blocks = op.Reshape(padded, op.Concat(down, whole, right, whole, op.Constant(value_ints=[3]), axis=0), allowzero=1)
    sums = op.ReduceSum(op.ReduceSum(blocks, second, keepdims=0), third, keepdims=0)
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    rows_left = op.Slice(given, first, second) - op.Range(zero, op.Squeeze(down), one) * whole
    columns_left = op.Slice(given, second, third) - op.Range(zero, op.Squeeze(right), one) * whole
    rows = op.Cast(op.Min(rows_left, whole), to=1)
    columns = op.Cast(op.Min(columns_left, whole), to=1)
    pixels = op.Unsqueeze(rows, op.Constant(value_ints=[1, 2])) * op.Unsqueeze(columns, op.Constant(value_ints=[0, 2]))
    # Pillow divides by a multiplication with 24 bits of 1 / pixels.
    inverse = op.Cast(op.Floor(16777216.0 / pixels), to=11)
    rounding = op.Cast(op.Floor(pixels / 2.0), to=11)
    reduced = op.Cast(op.Floor((op.Cast(sums, to=11) + rounding) * inverse / 16777216.0), to=1)
    framed = op.Pad(reduced, op.Constant(value_ints=[1, 1, 0, 1, 1, 0]))

    side = op.Cast(size, to=7)
    steps = op.Cast(op.Range(zero, side, one), to=11) - middle
    u = op.Unsqueeze(steps, first) + op.Unsqueeze(steps, second) * 0.0
    v = op.Unsqueeze(steps, second) + op.Unsqueeze(steps, first) * 0.0
    grid = op.Concat(
        op.Reshape(u, op.Constant(value_ints=[-1, 1])), op.Reshape(v, op.Constant(value_ints=[-1, 1])), axis=1
    )
    # Pillow counts from the corner of a pixel; the rim is one more.
    places = (op.MatMul(grid, across) + centre + 0.5 - low) / block + 0.5
    before = op.Floor(places)
    share = places - before
    most = op.Gather(op.Slice(op.Shape(framed), first, third), swapped) - op.Constant(value_ints=[1])
    here = op.Min(op.Max(op.Cast(before, to=7), first), most)
    next = op.Min(op.Max(op.Cast(before + 1.0, to=7), first), most)
    width = op.Slice(most, first, second) + op.Constant(value_ints=[1])
    x0, y0 = op.Split(here, num_outputs=2, axis=1)
    x1, y1 = op.Split(next, num_outputs=2, axis=1)
    share_x, share_y = op.Split(share, num_outputs=2, axis=1)
    lines = op.Cast(op.Reshape(framed, op.Constant(value_ints=[-1, 3])), to=11)
    upper_left = op.Gather(lines, op.Squeeze(y0 * width + x0, second))
    upper_right = op.Gather(lines, op.Squeeze(y0 * width + x1, second))
    lower_left = op.Gather(lines, op.Squeeze(y1 * width + x0, second))
    lower_right = op.Gather(lines, op.Squeeze(y1 * width + x1, second))
    upper = upper_left * (1.0 - share_x) + upper_right * share_x
    lower = lower_left * (1.0 - share_x) + lower_right * share_x
    mixed = op.Cast(upper * (1.0 - share_y) + lower * share_y, to=2)  # cuts off, as Pillow does
    shape = op.Concat(
        op.Constant(value_ints=[1]),
        op.Unsqueeze(side, first),
        op.Unsqueeze(side, first),
        op.Constant(value_ints=[3]),
        axis=0,
    )
    crops = op.Reshape(mixed, shape)
    return crops, op.Cast(centre, to=1), op.Cast(zoom, to=1), op.Cast(turn, to=1)


@script(default_opset=op)
def points_of(xyz, centre, zoom, turn, size):
    """Points (L,3) of the picture, mean z 0, of those (1,L,3) in the crop."""
    first = op.Constant(value_ints=[0])
    third = op.Constant(value_ints=[2])
    columns = op.Constant(value_ints=[1])
    points = op.Squeeze(xyz, first)
    xy = op.Slice(points, first, third, columns)
    z = op.Slice(points, third, op.Constant(value_ints=[3]), columns) * zoom
    moved = op.MatMul((xy - (size - 1.0) / 2.0) * zoom, op.Transpose(turn)) + centre
    return op.Concat(moved, z - op.ReduceMean(z), axis=1)


@script(default_opset=op)
def pose_of(rotation, turn):
    """The rotation (3,3) that is seen in the picture, of that (1,3,3) in the crop."""
    corner = op.Reshape(op.Constant(value_floats=[0.0, 0, 0, 0, 0, 0, 0, 0, 1.0]), op.Constant(value_ints=[3, 3]))
    around_z = op.Pad(op.Transpose(turn), op.Constant(value_ints=[0, 0, 1, 1])) + corner  # y is up here
    return op.MatMul(around_z, op.Squeeze(rotation, op.Constant(value_ints=[0])))


@script(default_opset=op)
def seen_of(visible, points, picture):
    """Visibility (L,), 0 outside the picture."""
    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    third = op.Constant(value_ints=[2])
    extent = op.Gather(op.Cast(op.Slice(op.Shape(picture), first, third), to=1), op.Constant(value_ints=[1, 0]))
    xy = op.Slice(points, first, third, second)
    inside = op.And(op.GreaterOrEqual(xy, -0.5), op.Less(xy, extent - 0.5))
    return op.Squeeze(visible, first) * op.ReduceMin(op.Cast(inside, to=1), second, keepdims=0)


@script(default_opset=op)
def scaled_of(value, zoom):
    """Lengths (L,) in pixels of the picture."""
    return op.Squeeze(value, op.Constant(value_ints=[0])) * zoom


@script(default_opset=op)
def bounded_of(value):
    """Coefficients (K,) between 0 and 1."""
    return op.Clip(op.Squeeze(value, op.Constant(value_ints=[0])), 0.0, 1.0)


@script(default_opset=op)
def single_of(value):
    """The same of the one face, (K,)."""
    return op.Squeeze(value, op.Constant(value_ints=[0]))
