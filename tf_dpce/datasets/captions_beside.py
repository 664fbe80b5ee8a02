"""Captions in a small file beside an image: `a.txt`, or the `a.json` that img2dataset writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NOT_UTF8 = "the text beside it is not UTF-8"
NOT_JSON = "the JSON beside it cannot be read"
HALF_CHARACTER = "the text beside it holds half a character"
NOT_DOWNLOADED = "its download did not succeed"
NO_IMAGE = "no image beside this text"

TEXT_ENDINGS = (".txt", ".json")
_CAPTION_KEYS = ("caption", "captions", "text", "texts")


def captions_beside(texts: Mapping[str, bytes]) -> tuple[list[str], str]:
    """Returns the captions of an image, and the reason why it cannot be used, empty if it can.

    Args:
        texts: contents of the files beside the image by their ending, of `TEXT_ENDINGS`. Each line
            of a text is a caption. JSON holds captions under a usual key, and counts for them
            only if there is no text; its `status`, if it has one, must be success.

    Example:
        >>> captions_beside({".txt": b"a dog\\n\\nit sleeps\\n"})
        (['a dog', 'it sleeps'], '')
        >>> captions_beside({".json": b'{"caption": "a dog", "status": "failed_to_download"}'})
        ([], 'its download did not succeed')
    """
    try:
        decoded = {ending: contents.decode("utf-8-sig") for ending, contents in texts.items()}
        value = json.loads(decoded[".json"]) if ".json" in decoded else {}
    except UnicodeDecodeError:
        return [], NOT_UTF8
    except (ValueError, RecursionError):
        return [], NOT_JSON
    if not isinstance(value, dict):
        return [], NOT_JSON
    if value.get("status", "success") != "success":
        return [], NOT_DOWNLOADED
    if ".txt" in decoded:
        captions = decoded[".txt"].replace("\r", "\n").split("\n")
    else:
        captions = _captions(value)
    captions = [caption.strip() for caption in captions]
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:
        return [], HALF_CHARACTER
    return list(dict.fromkeys(filter(None, captions))), ""


def _captions(value: Mapping[str, Any]) -> list[str]:
    found = next((value[key] for key in _CAPTION_KEYS if value.get(key)), [])
    found = found if isinstance(found, list) else [found]
    return [caption for caption in found if isinstance(caption, str)]
