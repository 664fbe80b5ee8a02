"""Embeds input shards on the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from tf_dpce.errors import UserError
from tf_dpce.export.encoder import Encoder
from tf_dpce.ray_tasks import call_all, connected, limit_threads
from tf_dpce.search.embedding.embed import Advance, embed_shard
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.search.embedding.input_shards import InputShard
from tf_dpce.search.embedding.shard_writer import ShardWriter
from tf_dpce.storage import local_folder


@dataclass(frozen=True)
class RayEngine:
    """An engine for `embed`. Every machine must reach the model, the inputs and the output.

    Attributes:
        model: path or address of the model.
        digest: its digest, which each machine compares with that of the model that it loads.
    """

    model: str
    digest: str

    def __call__(
        self, shards: Iterable[InputShard], writer: ShardWriter, advance: Advance
    ) -> Iterator[UserError]:
        """Embeds each shard, and yields the mistakes."""
        started: dict[int, InputShard] = {}

        def calls() -> Iterator[tuple[object, ...]]:
            for place, shard in enumerate(shards):
                started[place] = shard
                yield self.model, self.digest, writer.place, writer.kind, shard

        with connected():
            for place, mistake in call_all(_embed_shard, calls()):
                shard = started.pop(place)
                advance(shard.count)
                if mistake is not None and mistake.code == "ray.worker_died":
                    message = f"{shard.source}: {mistake.message}"
                    mistake = UserError("ray.worker_died", message, shard.source)
                if mistake is not None:
                    yield mistake


def _embed_shard(
    threads: int, model: str, digest: str, place: str, kind: str, shard: InputShard
) -> None:
    embed_shard(_encoder(threads, model, digest), shard, ShardWriter(place, kind))


@lru_cache(maxsize=1)
def _encoder(threads: int, model: str, digest: str) -> Encoder:
    """Loads the model once in a process, which computes with as many threads as it has cores."""
    from tf_dpce.runtimes.load import load

    limit_threads(threads)
    folder = local_folder(model)
    if model_digest(folder) != digest:
        message = f"{model} is another model on a machine of the cluster: copy the same to all"
        raise UserError("embeddings.other_model", message, model)
    return load(folder)
