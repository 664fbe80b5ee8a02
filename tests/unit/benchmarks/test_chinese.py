"""Captions of drawn scenes in Chinese say what the English ones say."""

from __future__ import annotations

import pytest

from benchmarks.chinese import in_chinese
from tf_dpce.datasets.shapes.scene import make_scene


def test_each_template_says_the_same_of_the_same_groups():
    a, b, c = "two big red squares", "a small blue cross", "one little green circle"
    one, two, three = "两个大号红方块", "一个小蓝十字", "单个小号绿圆圈"
    for english, chinese in (
        # Where A lies: left of B and above C.
        (
            f"in this image {a} are to the left of {b} and also above {c}",
            f"图里{one}在{two}的左边，也在{three}的上面",
        ),
        # A left of B, which is below C.
        (
            f"in the image there are {a} left of {b} which is below {c}",
            f"图中{one}在{two}的左侧，后者在{three}的下面",
        ),
        (
            f"somewhere under {b} and also to the right of {c} there are {a}",
            f"在{two}的下方、又在{three}的右边有{one}",
        ),
        # B above A, C right of A.
        (
            f"you can see {a} with {b} over them and with {c} right of them",
            f"可以看到{one}，{two}在它的上方，{three}在它的右侧",
        ),
        # A over B, B left of C.
        (f"over {b} which is left of {c} you can see {a}", f"{three}的左侧有{two}，其上方是{one}"),
    ):
        assert in_chinese(english) == chinese
    with pytest.raises(ValueError):
        in_chinese("a dog")


def test_false_captions_differ_as_the_english_ones_do():
    for scene in map(make_scene, [0] * 20, range(20)):
        rows = scene.captions, scene.swapped_captions, scene.turned_captions
        for true, swapped, turned in zip(*(map(in_chinese, row) for row in rows), strict=True):
            # The same characters in another order; and left for right, or above for below.
            assert sorted(true) == sorted(swapped) and true not in (swapped, turned)
            assert turned.translate(str.maketrans("左右上下", "右左下上")) == true
            assert " " not in true
