"""Turns images or texts into embeddings: `python -m pipelines.embed`."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse.typing import PositiveInt, restricted_string_type

from pipelines._verb import options_verb, say_files
from tf_dpce.search.embedding_store import SHARD_SIZE

Part = restricted_string_type("Part", r"^[1-9]\d*/[1-9]\d*$")


def run(
    model: Path,
    out: Path,
    images: list[str] | None = None,
    texts: list[str] | None = None,
    shard: Part | None = None,
    shard_size: PositiveInt = SHARD_SIZE,
) -> None:
    """Turns images or texts into embeddings.

    Args:
        model: exported model, or run folder.
        out: folder of embeddings to write.
        images: folders, of which all images below are taken; or globs, such as 'photos/**/*.jpg';
            or a prepared folder, or its *.tfrecord.
        texts: files with one text in each line, or .jsonl with text and id; or shards.
        shard: embed the I-th of N equal parts (1/N to N/N), so that N machines share the work; each
            part has a folder --out of its own, and index takes them all.
        shard_size: number of embeddings in a file.
    """
    from tf_dpce.files import check_writable
    from tf_dpce.search.embed import check_store, embed
    from tf_dpce.search.embedding_store import MANIFEST, rejected_file
    from tf_dpce.search.fingerprint import model_digest
    from tf_dpce.search.inputs import find_images, find_texts

    check_writable(out)
    digest = model_digest(model)
    inputs = find_images(images) if images else find_texts(texts)
    if shard:
        inputs = inputs.part(*map(int, shard.split("/")))

    check_store(out, digest, inputs)

    from tf_dpce.export.encoder import load

    kind = inputs.kind
    before, done = embed(load(model), inputs, out, digest, shard_size)
    if before == done.total:
        print(f"nothing to do: {out} already holds these {kind}")
    elif before:
        print(f"continued after {before:,} of {done.total:,} {kind}")
    print(f"{done.embedded:,} {kind} embedded, {done.rejected:,} rejected")
    say_files([out / MANIFEST, rejected_file(out, kind)])


build_parser, main = options_verb("embed", run, {("images", "texts"): True})


if __name__ == "__main__":
    sys.exit(main())
