"""Runs all steps from prepare to search on drawn scenes: `python -m pipelines.demo`."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import embed, evaluate, export, index, prepare, train, web
from pipelines._verb import Port, options_verb, say_files
from tf_dpce.errors import UserError
from tf_dpce.files import exclusive_lock

MARK = ".demo"
CHILDREN = ("data", "run", "saved_models", "embeddings", "index", "hits.png")

_SEED = 0
_ROWS_IN_SHEET = 4
_HITS_IN_ROW = 5


def run(out: Path = Path("runs/demo"), port: Port = web.PORT, no_web: bool = False) -> None:
    """Runs all steps from prepare to search on drawn scenes, and shows them on a page.

    Args:
        out: folder to replace.
        port: port of the page.
        no_web: end without the page, as the demo does if nobody sits at a terminal.
    """
    began = time.monotonic()
    claim(out)
    if no_web or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _run_and_show(out, began)
        return _say_how_to_open(out)
    from tf_dpce.serving.http_server import listen

    with listen("127.0.0.1", port) as listening:
        _run_and_show(out, began)
        print("Ctrl-C ends")
        web.show(*_page_of(out), listening)


def _run_and_show(out: Path, began: float) -> None:
    with exclusive_lock(out):
        _clear(out)
        reached = run_line(out)
    _show(reached)
    print(f"{time.monotonic() - began:.0f} s in all")
    say_files([out / "run", out / "saved_models", out / "index", out / "hits.png"])


def _page_of(out: Path) -> tuple[str, str]:
    """Returns index and model of the page."""
    return str(out / "index"), str(out / "saved_models" / "scenes")


def _say_how_to_open(out: Path) -> None:
    index, model = map(shlex.quote, _page_of(out))
    print(f"search them in the browser: python -m pipelines.web --index {index} --model {model}")


def claim(out: Path) -> None:
    """Marks a folder as a demo's own, so that the next demo may replace what this one leaves.

    Raises:
        UserError: it holds something already, and no demo marked it.
    """
    if out.exists() and not (out / MARK).exists() and any(out.iterdir()):
        message = f"{out} holds something else than a demo: choose another --out"
        raise UserError("demo.folder", message, out)
    out.mkdir(parents=True, exist_ok=True)
    names = ", ".join(CHILDREN)
    (out / MARK).write_text(f"The verb demo made this folder, and will replace {names} in it.\n")


def run_line(
    out: Path, prepare_options: Sequence[str] = (), train_options: Sequence[str] = ()
) -> dict[str, Any]:
    """Prepares, trains, evaluates, exports, embeds, indexes and searches, all under `out`.

    Args:
        out: folder to make.
        prepare_options: further options of `prepare`.
        train_options: further options of `train`.

    Returns:
        What `retrieval_metrics` returns for the test scenes; `images` and `captions`, how many
        there are; and what `_word_order` returns.

    Raises:
        UserError: a step failed; it said why.
    """
    data, trained, exported = out / "data", out / "run", out / "saved_models" / "scenes"
    scenes = ["--source", "scenes", "--seed", _SEED, "--out", data, *prepare_options]
    _step(prepare, *scenes)
    _step(train, "--preset", "scenes", "--data", data, "--run", trained, *train_options)
    _step(evaluate, "--run", trained, "--data", data, "--split", "test")
    _step(export, "--run", trained, "--to", exported, "--data", data)
    embedded = ["--model", exported, "--out", out / "embeddings"]
    _step(embed, "--images", *sorted(data.glob("test-*.tfrecord")), *embedded)
    _step(embed, "--texts", *sorted(data.glob("test-*.tfrecord")), *embedded)
    _step(index, "--embeddings", out / "embeddings", "--out", out / "index")

    from tf_dpce.evaluation.report import metrics_path
    from tf_dpce.files import read_json

    metrics = read_json(metrics_path(trained, data, "test", "all"))
    # The test scenes are the first of the series, and `prepare` drew them in that order.
    from tf_dpce.datasets.shapes.scene import make_scene

    scenes = [make_scene(_SEED, number) for number in range(metrics["images"])]
    queries = [scene.captions[n] for n, scene in enumerate(scenes[:_ROWS_IN_SHEET])]
    encoder = _search(out, exported, queries)
    return {**metrics, **_word_order(out, encoder, scenes)}


def _clear(out: Path) -> None:
    for item in (out / name for name in CHILDREN):
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)


def _step(verb: Any, *options: Any) -> None:
    name = verb.__name__.rsplit(".", 1)[1]
    print(f"\n$ tf-dpce {name} {' '.join(map(str, options))}", flush=True)
    if verb.main([str(option) for option in options]):
        raise UserError("demo.step", f"the demo ended at {name}, for the reason above")


def _search(out: Path, exported: Path, queries: Sequence[str]) -> Any:
    """Draws the hits of a few queries; returns the encoder."""
    from tf_dpce.drawing.contact_sheet import SheetRow, contact_sheet
    from tf_dpce.search.searcher import Searcher

    searcher = Searcher(out / "index", exported)
    rows = [SheetRow(query, searcher.by_text(query, _HITS_IN_ROW)) for query in queries]
    contact_sheet(rows, out / "hits.png")
    return searcher.encoder


def _word_order(out: Path, encoder: Any, scenes: Sequence[Any]) -> dict[str, Any]:
    """Compares the captions of scenes with false ones.

    Returns:
        The word-order accuracy, in percent, against captions with two words exchanged, as
        `word_order_accuracy`; by what was exchanged, with numbers of captions, as `swaps`; and
        against captions with every relation turned, as `turned_accuracy`.
    """
    import numpy as np

    from tf_dpce.evaluation.word_order import word_order_accuracy, word_order_by_kind

    def encoded(name: str) -> np.ndarray:
        return encoder.encode_texts([text for scene in scenes for text in getattr(scene, name)])

    shown = encoder.encode_images(sorted((out / "data" / "scenes").glob("*.png"))[: len(scenes)])
    captions, swapped = encoded("captions"), encoded("swapped_captions")
    images = np.repeat(shown, len(captions) // len(scenes), axis=0)
    swaps = [swap for scene in scenes for swap in scene.swaps]
    return {
        "word_order_accuracy": word_order_accuracy(images, captions, swapped),
        "swaps": word_order_by_kind(images, captions, swapped, swaps),
        "turned_accuracy": word_order_accuracy(images, captions, encoded("turned_captions")),
    }


def _show(reached: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    images, captions = reached["images"], reached["captions"]
    table = Table(title=f"{images} unseen scenes, {captions} captions: percent found")
    table.add_column("")
    for heading in ("R@1", "R@5", "R@10", "chance R@1"):
        table.add_column(heading, justify="right")
    for direction in ("image_to_text", "text_to_image"):
        recalls = [f"{reached[direction][key]:.1f}" for key in ("r1", "r5", "r10")]
        table.add_row(direction.replace("_", " "), *recalls, f"{100 / images:.1f}")
    Console().print(table)
    Console().print(_order_table(reached))


def _order_table(reached: dict[str, Any]) -> Any:
    from rich.table import Table

    captions = reached["captions"]
    table = Table(title="word-order accuracy: percent that rank the true caption higher")
    for heading in ("false caption", "captions", "accuracy"):
        table.add_column(heading, justify="left" if heading == "false caption" else "right")
    rows = [(f"a {kind} swapped", *found) for kind, found in reached["swaps"].items()]
    rows.append(("any two words swapped", reached["word_order_accuracy"], captions))
    rows.append(("every relation turned", reached["turned_accuracy"], captions))
    for name, accuracy, count in rows:
        table.add_row(name, f"{count:,}", f"{accuracy:.1f}")
    return table


build_parser, main = options_verb("demo", run)

if __name__ == "__main__":
    sys.exit(main())
