"""What the page shows, as HTML: the template escapes every text that is not its own."""

from __future__ import annotations

import base64
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from tf_dpce.search.answer import Hit
from tf_dpce.templates import read_template
from tf_dpce.web.answers import PAGE_SIZE, Answer

LIKELY = 50  # percent from which a hit counts as found


def gallery_html(answer: Answer, query_image: bytes | None = None) -> str:
    """Returns an answer as HTML.

    Args:
        answer: what to show.
        query_image: the image of the request, as a small JPEG.
    """
    request, found = answer.request, answer.found
    first = (request.page - 1) * PAGE_SIZE
    return read_template(__package__, "hits.html").render(
        answer=answer,
        request=request,
        found=found,
        hits=[_shown(hit) for hit in found.hits],
        first=first + 1,
        last=first + len(found.hits),
        like_image=image_link(request.like, "small"),
        query_image=query_image and base64.b64encode(query_image).decode(),
        highest=None if found.highest is None else round(100 * found.highest),
        likely=LIKELY,
        # By it the page notices an answer that equals the one before.
        token=time.monotonic_ns(),
    )


def image_link(image_id: str, size: str, content: str | None = None) -> str:
    """Returns the address of an indexed image, which changes with its content if that is known."""
    return "thumbnail?" + urlencode({"id": image_id, "size": size, "v": (content or "")[:16]})


def facts_of(hit: Hit) -> list[str]:
    """Returns what is known of an image, as short texts for a caption."""
    known, facts = hit.metadata, []
    if known.get("width") and known.get("height"):
        facts.append(f"{known['width']} × {known['height']}")
    if isinstance(moment := known.get("taken"), datetime):
        facts.append(f"{moment:%Y-%m-%d}")
    if copies := len(hit.duplicates):
        facts.append(f"{copies + 1} copies")
    return facts


def _shown(hit: Hit) -> dict[str, Any]:
    content = hit.metadata.get("content")
    return {
        "id": hit.id,
        "rank": hit.rank,
        "name": hit.metadata.get("name") or hit.id.rpartition("/")[2],
        "folder": hit.metadata.get("folder") or "",
        "score": f"{hit.score:.3f}",
        "percent": None if hit.probability is None else round(100 * hit.probability),
        "facts": facts_of(hit),
        "small": image_link(hit.id, "small", content),
        "large": image_link(hit.id, "large", content),
    }
