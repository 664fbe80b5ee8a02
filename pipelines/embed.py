"""Turns images or texts into embeddings: `python -m pipelines.embed`."""

from __future__ import annotations

import sys
from typing import Literal

from jsonargparse.typing import PositiveInt, restricted_string_type

from pipelines._verb import options_verb, say_files
from tf_dpce.runtimes import AnyRuntime
from tf_dpce.search.embedding.store import SHARD_SIZE

Part = restricted_string_type("Part", r"^[1-9]\d*/[1-9]\d*$")


def run(
    model: str,
    out: str,
    images: list[str] | None = None,
    texts: list[str] | None = None,
    shard: Part | None = None,
    shard_size: PositiveInt = SHARD_SIZE,
    engine: Literal["local", "ray"] = "local",
    runtime: AnyRuntime = "tensorflow",
) -> None:
    """Turns images or texts into embeddings.

    Args:
        model: exported model, or run folder.
        out: folder of embeddings to write; an address such as s3://bucket/embeddings writes to an
            object store, here as for the inputs.
        images: folders, of which all images below are taken; or globs, such as 'photos/**/*.jpg';
            or a prepared folder, or its *.tfrecord.
        texts: files with one text in each line, or .jsonl with text and id; or shards.
        shard: embed the I-th of N parts (1/N to N/N), so that N processes with the same --out share
            the work; the last one completes it.
        shard_size: number of embeddings in a file.
        engine: this process, or the machines of a Ray cluster.
        runtime: what embeds; all but tensorflow must have been exported.
    """
    from tf_dpce.search.embedding.embed import embed
    from tf_dpce.search.embedding.fingerprint import model_digest
    from tf_dpce.search.embedding.inputs import find_images, find_texts
    from tf_dpce.search.embedding.shard_writer import check_store
    from tf_dpce.search.embedding.store import StoreManifest, manifest_file, rejected_file
    from tf_dpce.search.probabilities import copy_calibration
    from tf_dpce.storage import check_place, local_folder

    check_place(out)
    if engine == "ray":
        _check_ray(shard, runtime)
    folder = local_folder(model)
    digest = model_digest(folder)
    inputs = find_images(images) if images else find_texts(texts)
    part = tuple(map(int, shard.split("/"))) if shard else (1, 1)
    inputs.check_part(*part)
    check_store(out, digest, inputs)
    kind = inputs.kind
    if engine == "ray":
        from tf_dpce.search.embedding.ray_engine import RayEngine

        encoder = RayEngine(model, digest)
    else:
        from tf_dpce.runtimes.load import load

        encoder = load(folder, runtime)
    before, done = embed(encoder, inputs, out, digest, shard_size, part)
    copy_calibration(folder, out)
    if before == done.total:
        print(f"nothing to do: {out} already holds these {kind}")
    elif before:
        print(f"continued after {before:,} of {done.total:,} {kind}")
    print(f"{done.embedded:,} {kind} embedded, {done.rejected:,} rejected")
    if StoreManifest.load(out).kinds[kind].complete:
        say_files([f"{out}/{name}" for name in (manifest_file(kind), rejected_file(kind))])
    else:
        print(f"{out} is complete once the other parts are embedded")


def _check_ray(shard: str | None, runtime: str) -> None:
    from tf_dpce.ray_tasks import check_cluster

    if shard:
        build_parser().error("--engine ray takes no --shard: it shares the work out itself")
    if runtime != "tensorflow":
        build_parser().error("--engine ray embeds with TensorFlow alone")
    check_cluster()


build_parser, main = options_verb("embed", run, {("images", "texts"): True})


if __name__ == "__main__":
    sys.exit(main())
