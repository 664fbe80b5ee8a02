"""Captions in a small file beside an image: `a.txt`, or the `a.json` that img2dataset writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NOT_UTF8 = "the text beside it is not UTF-8, or holds half a character"
NOT_JSON = "the JSON beside it cannot be read"
NOT_DOWNLOADED = "its download did not succeed"
NO_IMAGE = "no image beside this text"

TEXT_ENDINGS = (".txt", ".json")
_CAPTION_KEYS = ("caption", "captions", "text", "texts")


def captions_beside(files: Mapping[str, bytes]) -> tuple[list[str], str]:
    """Returns the captions of an image, and the reason why it cannot be used, empty if it can.

    Args:
        files: contents of the files beside the image by their ending, of which `TEXT_ENDINGS`
            count. Each line of a text is a caption. JSON holds captions under a usual key, and
            counts for them only if there is no text; its `status`, if any, must be success.

    Example:
        >>> captions_beside({".txt": b"a dog\\n\\nit sleeps\\n"})
        (['a dog', 'it sleeps'], '')
        >>> captions_beside({".json": b'{"caption": "a dog", "status": "failed_to_download"}'})
        ([], 'its download did not succeed')
    """
    text = files.get(".txt")
    try:
        value = json.loads(files.get(".json", b"{}"))
        if not isinstance(value, dict):
            return [], NOT_JSON
        if value.get("status", "success") != "success":
            return [], NOT_DOWNLOADED
        captions = _captions(value) if text is None else _lines(text.decode("utf-8-sig"))
        "".join(captions).encode()
    except UnicodeError:
        return [], NOT_UTF8
    except (ValueError, RecursionError):
        return [], NOT_JSON
    return list(dict.fromkeys(filter(None, map(str.strip, captions)))), ""


def _lines(text: str) -> list[str]:
    return text.replace("\r", "\n").split("\n")


def _captions(value: Mapping[str, Any]) -> list[str]:
    found = next((value[key] for key in _CAPTION_KEYS if value.get(key)), [])
    found = found if isinstance(found, list) else [found]
    return [caption for caption in found if isinstance(caption, str)]
