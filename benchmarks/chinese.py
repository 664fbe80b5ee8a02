"""Drawn scenes with captions in Chinese: `python -m benchmarks.chinese --out DIR`.

Trains on characters, on words (which are half a sentence each, because nothing separates them), and
a bag of characters, and measures the marks that the demo reaches in English.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from jsonargparse.typing import PositiveInt

from pipelines import train
from pipelines._verb import options_verb

_SEED, _TEST, _VAL, _SIDE = 0, 500, 500, 48
_TEMPLATES = (
    "图里{A}在{B}的{AB}，也在{C}的{AC}",
    "图中{A}在{B}的{AB}，后者在{C}的{BC}",
    "在{B}的{AB}、又在{C}的{AC}有{A}",
    "可以看到{A}，{B}在它的{BA}，{C}在它的{CA}",
    "{C}的{BC}有{B}，其{AB}是{A}",
)
_WORDS = {
    **{"a": "一个", "one": "单个", "two": "两个", "three": "三个"},
    **{"small": "小", "little": "小号", "large": "大", "big": "大号"},
    **{"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄", "purple": "紫", "orange": "橙"},
    **{"circle": "圆圈", "square": "方块", "triangle": "三角", "cross": "十字"},
    **{"circles": "圆圈", "squares": "方块", "triangles": "三角", "crosses": "十字"},
    **{"to the left of": "左边", "left of": "左侧", "above": "上面", "over": "上方"},
    **{"to the right of": "右边", "right of": "右侧", "below": "下面", "under": "下方"},
}
_RELATION = "(?:to the )?(?:left|right) of|above|over|below|under"
# A group has twice as many characters as words: a third convolution sees as far.
_OPTIONS = "--preset scenes --stage 1 --text.max_length 40 --text.opposites".split()
_OPPOSITES, _WIDTHS = "[[左, 右], [上, 下]]", (128, 192, 192)


def run(out: Path, train_images: PositiveInt = 16_000, epochs: PositiveInt = 5) -> None:
    """Draws scenes, trains three times and prints the marks on 500 unseen scenes.

    Args:
        out: folder for the data and the runs; what is there is not made again.
        train_images: number of scenes to train on.
        epochs: number of epochs.
    """
    data = out / "data"
    if not (data / "manifest.json").is_file():
        _prepare(data, train_images)
    print("| tokens | text tower | R@1 | two words swapped | relations turned |")
    print("|---|---|---|---|---|")
    for tokens, tower in (("characters", "small"), ("words", "small"), ("characters", "bag")):
        folder = out / f"{tokens}-{tower}"
        if not folder.exists():
            chosen = ["--text.tokenizer", tokens, "--stage1.epochs", str(epochs), *_tower(tower)]
            places = ["--data", str(data), "--run", str(folder)]
            if status := train.main([*_OPTIONS, _OPPOSITES, *chosen, *places]):
                sys.exit(status)
        print(f"| {tokens} | {tower} | {_marks(folder, data / 'scenes')} |", flush=True)


def in_chinese(caption: str) -> str:
    """Returns a caption of a drawn scene in Chinese, without spaces.

    Example:
        >>> english = "over two big red squares which are left of a big blue cross "
        >>> in_chinese(english + "you can see three little green circles")
        '一个大号蓝十字的左侧有两个大号红方块，其上方是三个小号绿圆圈'
    """
    from tf_dpce.datasets.shapes import grammar

    for english, chinese in zip(grammar.TEMPLATES, _TEMPLATES, strict=True):
        pattern = re.sub(r"\{(\w)\}", r"(?P<\1>\\w+ \\w+ \\w+ \\w+)", english)
        pattern = re.sub(r"\{(\w)>(\w)\}", rf"(?P<\1\2>{_RELATION})", pattern)
        pattern = re.sub(r"\{\w (is|it)\}", r"\\w+", pattern)
        if found := re.fullmatch(pattern, caption):
            fields = found.groupdict()
            groups = {name: "".join(map(_WORDS.get, fields[name].split())) for name in "ABC"}
            others = {name: _WORDS[text] for name, text in fields.items() if name not in groups}
            return chinese.format(**groups, **others)
    raise ValueError(f"{caption!r} is no caption of a scene")


def _prepare(folder: Path, train_images: int) -> None:
    from tf_dpce.data.prepare import prepare
    from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

    numbers = scene_numbers(train_images, _VAL, _TEST)
    drawn = draw_scenes(folder / "scenes", _SEED, numbers, _SIDE, workers=2)
    scenes = (replace(image, captions=[*map(in_chinese, image.captions)]) for image in drawn)
    prepare(scenes, folder, source="scenes", seed=_SEED)


def _tower(name: str) -> list[str]:
    """Returns the options of a text tower; a bag of words is as large as the convolutions."""
    from tf_dpce.ablations.variants import of_equal_size, text_parameters
    from tf_dpce.config import from_dict, preset_values
    from tf_dpce.models.build import text_tower_of

    config = from_dict(preset_values("scenes"))
    config = replace(config, text=replace(config.text, widths=_WIDTHS))
    if name == "bag":
        blind = replace(config, text=replace(config.text, tower="bag_of_words"))
        config = of_equal_size(blind, text_parameters(text_tower_of(config, 1)))
    return ["--text.tower", config.text.tower, "--text.widths", str(list(config.text.widths))]


def _marks(trained: Path, scenes: Path) -> str:
    import tf_dpce
    from tf_dpce.datasets.shapes.scene import make_scene
    from tf_dpce.evaluation.metrics import retrieval_metrics
    from tf_dpce.evaluation.word_order import word_order_accuracy

    encoder = tf_dpce.load(trained)
    drawn = [make_scene(_SEED, number) for number in range(_TEST)]
    images = encoder.encode_images([scenes / f"{number:06d}.png" for number in range(_TEST)])

    def embedded(name: str) -> np.ndarray:
        texts = [in_chinese(text) for scene in drawn for text in getattr(scene, name)]
        # A caption without a known word has an embedding of zeros, which finds nothing.
        return encoder.encode_with_status("texts", texts)[0]

    captions, swapped = embedded("captions"), embedded("swapped_captions")
    turned = embedded("turned_captions")
    of_captions = np.repeat(np.arange(_TEST), len(captions) // _TEST)
    found = retrieval_metrics(images, captions, np.arange(_TEST), of_captions)
    recalls = (found[way]["r1"] for way in ("image_to_text", "text_to_image"))
    order = (word_order_accuracy(images[of_captions], captions, x) for x in (swapped, turned))
    return "{:.1f} / {:.1f} | {:.1f} | {:.1f}".format(*recalls, *order)


build_parser, main = options_verb("benchmarks.chinese", run)


if __name__ == "__main__":
    sys.exit(main())
