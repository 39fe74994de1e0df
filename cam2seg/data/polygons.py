"""Polygons, as other tools draw them, turned into masks."""

import numpy as np


def polygon_mask(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask, bool (H, W), of a polygon with corners float (n, 2), each (x, y)  (DEV-71).

    The pixel in row r and column c covers c to c + 1 and r to r + 1. It is mask where its centre
    is inside: where an odd number of edges crosses the line from the centre to the left border. An
    edge has its upper end, but not its lower one, and a centre on an edge lies to its right. So
    every pixel belongs to just one of two polygons which share an edge.
    """
    H, W = size
    turns = np.zeros((H, W + 1), np.uint8)  # 1 where the inside begins or ends, row by row
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        top, bottom = (int(np.clip(np.ceil(y - 0.5), 0, H)) for y in sorted((y0, y1)))
        rows = np.arange(top, bottom)
        if not len(rows):
            continue
        crossing = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        turns[rows, np.clip(np.ceil(crossing - 0.5), 0, W).astype(np.int64)] ^= 1
    return np.bitwise_xor.accumulate(turns, axis=1)[:, :W].astype(bool)
