"""What a word of a caption is, in plain Python: `vocabulary.split_words` does it in the graph.

A word ends at white space and at punctuation. An underscore is no punctuation, and neither is an
apostrophe inside a word (`don't`, `o'clock`). Apostrophes around a word are quotation marks, except
in the endings that tokenised captions cut off: of `the man 's hat` the third word is `'s`. What
resembles an apostrophe is one, and accents are written in one way (NFC).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Container

ENDINGS = ("s", "d", "m", "t", "re", "ll", "ve")
LIKE_APOSTROPHES = "‘’ʼ`´"

_LINE_ENDS = "\0\t\n\v\f\r\x85"

# Of characters of scripts without spaces between words; the last is the long vowel of Japanese.
_SPACELESS = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER")
_SPACELESS += ("MYANMAR", "IDEOGRAPHIC", "KATAKANA-HIRAGANA PROLONGED")

# Marks a piece that is not the first of its word.
JOINER = "##"
# A longer word has no pieces.
MAX_WORD_BYTES = 100


def plain_words(text: str) -> list[str]:
    """Returns the words of a caption or query, as the tokenizer of a model splits them.

    Example:
        >>> plain_words("'A red square!' isn't left of: the dog's (blue) ball")
        ['A', 'red', 'square', "isn't", 'left', 'of', 'the', "dog's", 'blue', 'ball']
    """
    text = unicodedata.normalize("NFC", text).translate(_SIGNS)
    words = map(_without_quotes, text.split(" ")) if "'" in text else text.split(" ")
    return [word for word in words if word]


def plain_characters(word: str) -> list[str]:
    """Returns the parts of a word for a model that reads the characters of scripts without spaces.

    A mark stays with its character, and what is written in other scripts stays whole.

    Example:
        >>> plain_characters("两dogs和猫")
        ['两', 'dogs', '和', '猫']
    """
    spaced = ""
    for sign in word:
        is_mark = unicodedata.category(sign)[0] == "M"
        space = " " * unicodedata.name(sign, "").startswith(_SPACELESS)
        spaced = (spaced.rstrip() if is_mark else spaced + space) + sign + space
    return spaced.split()


def plain_pieces(word: str, pieces: Container[str]) -> list[str]:
    """Returns the pieces of a word, the longest first piece, then the longest next one, and so on.

    It has none if a part of it is no piece, or if it has more than 100 bytes.

    Example:
        >>> plain_pieces("dogs", {"do", "dog", "##s", "##gs"})
        ['dog', '##s']
        >>> plain_pieces("dogma", {"do", "dog", "##s"})
        []
    """
    found: list[str] = []
    start = 0
    while start < len(word) and len(word.encode()) <= MAX_WORD_BYTES:
        joiner = JOINER if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if joiner + word[start:end] in pieces), None)
        if end is None:
            return []
        found.append(joiner + word[start:end])
        start = end
    return found


def _without_quotes(word: str) -> str:
    is_ending = word[:1] == "'" and word[1:].lower() in ENDINGS
    return word if is_ending else word.strip("'")


class _Signs(dict[int, str]):
    """What a character counts as, by its code: a space if it ends a word."""

    def __missing__(self, code: int) -> str:
        sign = "'" if chr(code) in LIKE_APOSTROPHES else chr(code)
        punctuation = unicodedata.category(sign)[0] in "PZ" and sign not in "'_"
        self[code] = " " if punctuation or sign in _LINE_ENDS else sign
        return self[code]


_SIGNS = _Signs()
