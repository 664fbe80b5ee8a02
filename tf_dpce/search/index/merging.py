"""Which segments of an index are written anew, so that they stay few and full."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from tf_dpce.search.index.manifest import SegmentEntry

LARGEST = 1 << 20  # rows of a segment, all of which are in memory while it is written
_MERGED = 8  # so many segments of about a size are merged; the next size is so many times larger
_SMALLEST_LEVEL = 4096  # items of a segment, below which all sizes count as one
_MOST_DELETED = 0.25  # part of the rows of a segment from which it is written anew


def segments_to_merge(segments: Sequence[SegmentEntry]) -> list[SegmentEntry]:
    """Returns the segments that are to be written anew, together.

    Those of about a size are merged once there are several, so that an item is written again only
    each time that its segment grows several times. Deleted rows go with it.
    """
    levels: dict[int, list[SegmentEntry]] = {}
    for segment in segments:
        if segment.alive < LARGEST // 2:
            size = max(segment.alive / _SMALLEST_LEVEL, 1)
            levels.setdefault(int(log(size, _MERGED)), []).append(segment)
    many = [level for level in levels.values() if len(level) >= _MERGED]
    spoilt = [part for part in segments if part.alive < (1 - _MOST_DELETED) * part.rows]
    return [part for part in segments if part in spoilt or any(part in level for level in many)]
