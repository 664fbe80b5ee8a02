"""Whether a trained model tells true captions from changed ones: `python -m benchmarks.word_order`.

Captions of photographs have no grammar to change them by, so a few frequent words stand for it:
those of places are turned into their opposites, and two nouns change places.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines._verb import options_verb

_OPPOSITES = (
    ("left", "right"),
    ("above", "below"),
    ("over", "under"),
    ("in front of", "behind"),
    ("up", "down"),
    ("into", "out of"),
)
_CHANGES = {f"{one} / {other}": {one: other, other: one} for one, other in _OPPOSITES}
# What photographs show most often. "On" is turned alone: its opposite is a rare word.
_CHANGES["on / under"] = {"on": "under"}
_NOUNS = "man woman boy girl child baby person dog horse ball bike car".split()

_NOUN = re.compile(rf"\b({'|'.join(_NOUNS)})\b")


def changed(caption: str) -> Iterator[tuple[str, str]]:
    """Yields a kind of change and the caption so changed, for each that the caption allows.

    Example:
        >>> dict(changed("a man left of a dog"))
        {'left / right': 'a man right of a dog', 'two nouns exchanged': 'a dog left of a man'}
        >>> list(changed("a man and a dog"))  # would stay true
        []
    """
    for kind, turned in _CHANGES.items():
        pattern = rf"\b({'|'.join(turned)})\b"
        if re.search(pattern, caption):
            yield kind, re.sub(pattern, lambda m, t=turned: t[m[0]], caption)
    nouns = list(_NOUN.finditer(caption))
    for first, second in zip(nouns, nouns[1:], strict=False):
        between = caption[first.end() : second.start()]
        if first[0] != second[0] and "and" not in between.split():
            head, tail = caption[: first.start()], caption[second.end() :]
            yield "two nouns exchanged", f"{head}{second[0]}{between}{first[0]}{tail}"
            return


def compare(run: Path, data: Path, split: str = "val") -> None:
    """Prints how often a model prefers a true caption to a changed one.

    Args:
        run: a run folder or an exported model.
        data: folder of prepared data.
        split: whose images and captions are compared.
    """
    import numpy as np

    import tf_dpce
    from tf_dpce.data.input_pipeline import parse_record, records
    from tf_dpce.evaluation.word_order import word_order_by_kind

    images, rows = [], []
    for number, serialized in enumerate(records(data, split)):
        record = parse_record(serialized)
        images.append(record["image"].numpy())
        for caption in (text.decode().lower() for text in record["captions"].numpy()):
            rows += [(number, caption, kind, false) for kind, false in changed(caption)]
    encoder = tf_dpce.load(run)
    numbers, captions, kinds, false = zip(*rows, strict=True)
    shown = encoder.encode_images(images)[np.array(numbers)]
    texts = [encoder.encode_texts(list(each)) for each in (captions, false)]
    for kind, (share, count) in word_order_by_kind(shown, *texts, kinds).items():
        print(f"{kind:20} {count:6,} captions  {share:5.1f} %")


build_parser, main = options_verb("benchmarks.word_order", compare)

if __name__ == "__main__":
    sys.exit(main())
