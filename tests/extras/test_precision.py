"""LiteRT in less than float32: what is written, how near it comes, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

import tf_dpce
from benchmarks import precision
from tests.errors import raises
from tests.unit.benchmarks.test_measure import compared
from tests.unit.export.tiny import CONFIG, WORDS, tiny_data, tiny_model
from tf_dpce.export.publish import export_model, write_version
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.files import read_json
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.runtimes import examples
from tf_dpce.runtimes.examples import FITTED, first_examples
from tf_dpce.runtimes.litert import write_litert
from tf_dpce.runtimes.write import write_runtimes

IMAGES = 24  # of a split, with 1 to 24 captions
CAPTIONS = 24 * 25 // 2
PRECISIONS = ("float32", "float16", "dynamic", "int8")
OPERATORS = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if name[0].isupper()
}
FLOAT = schema.TensorType.FLOAT32
# The division by the length, and what comes before it.
FLOATS = ["DEQUANTIZE", "L2_NORMALIZATION"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_data(folder, IMAGES)
    return folder


def module_of(data: Path) -> ServingModule:
    """A model of the data's words."""
    words = CaptionTokenizer(read_vocabulary(data / "vocabulary.txt"), 6, lowercase=True)
    return ServingModule(tiny_model(), words)


@pytest.fixture(scope="module")
def versions(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model exported for LiteRT, by precision."""
    root, written = tmp_path_factory.mktemp("precisions"), {}
    for each in PRECISIONS:
        written[each] = root / each / "1"
        written[each].mkdir(parents=True)
        more = partial(write_runtimes, formats=["litert"], precision=each, data=data)
        write_version(module_of(data), written[each], "tiny", more=more)
    return written


def embedded(version: Path, kind: str, rows: np.ndarray) -> np.ndarray:
    encoder = tf_dpce.load(version, runtime="litert")
    return (encoder.image_engine if kind == "image" else encoder.text_engine)(rows)


def operators(path: Path) -> Iterator[tuple[str, list[schema.TensorT], list[schema.TensorT]]]:
    """Each operator of a file with its inputs and its outputs, read without its runtime."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        inputs, outputs = (
            [graph.tensors[place] for place in places if place >= 0]
            for places in (operator.inputs, operator.outputs)
        )
        yield OPERATORS[kind], inputs, outputs


def test_int8_computes_in_whole_numbers_from_the_first_layer_to_the_last(versions):
    for kind in ("image", "text"):
        found = list(operators(versions["int8"] / "runtimes" / "litert" / f"{kind}.tflite"))
        assert [name for name, _, (result,) in found if result.type == FLOAT] == FLOATS
        # What LiteRT runs through TensorFlow ("Flex") is a custom operator. BatchNorm is folded.
        products = {"CONV_2D", "FULLY_CONNECTED"} if kind == "image" else {"FULLY_CONNECTED"}
        rest = {"QUANTIZE", "MUL", "CONCATENATION", "GATHER", "STRIDED_SLICE", "PAD"}
        rest |= {"ADD", "RESHAPE", "REDUCE_MAX", *FLOATS}
        assert products <= {name for name, _, _ in found} <= products | rest


def test_weights_are_rounded_for_each_channel_apart(versions):
    for kind, layers in (("image", ("CONV_2D", "FULLY_CONNECTED")), ("text", ("FULLY_CONNECTED",))):
        path = versions["int8"] / "runtimes" / "litert" / f"{kind}.tflite"
        weights = [inputs[1] for name, inputs, _ in operators(path) if name in layers]
        assert weights
        for each in weights:
            assert each.type == schema.TensorType.INT8
            # The first axis counts the results.
            assert len(each.quantization.scale) == each.shape[0]


def test_smaller_files_embed_nearly_alike(versions, data: Path):
    rows = first_examples(module_of(data), data, "test", IMAGES)
    wanted = {kind: embedded(versions["float32"], kind, rows[kind]) for kind in rows}
    sizes = {}
    for each, version in versions.items():
        manifest = read_json(version / "runtimes" / "manifest.json")
        fitted = {"image": IMAGES, "text": CAPTIONS} if each == "int8" else {}
        assert (manifest["precision"], manifest["examples"]) == (each, fitted)
        for kind in rows:
            found = embedded(version, kind, rows[kind])
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
            least = {"float32": 1 - 1e-6, "float16": 0.9999}.get(each, 0.95)
            assert (found * wanted[kind]).sum(axis=1).min() > least
        files = (version / "runtimes" / "litert").iterdir()
        sizes[each] = sum(path.stat().st_size for path in files)
    assert sizes["int8"] < sizes["float16"] < 0.7 * sizes["float32"]
    assert sizes["dynamic"] < sizes["float16"]


def test_int8_that_was_fitted_to_the_wrong_examples_is_not_published(
    data: Path, tmp_path: Path, monkeypatch
):
    def darkened(module, folder, split, count):
        rows = first_examples(module, folder, split, count)
        return rows | {"image": rows["image"] / 100} if split == FITTED else rows

    monkeypatch.setattr(examples, "first_examples", darkened)
    module, more = module_of(data), partial(write_runtimes, formats=["litert"], data=data)
    with raises("runtimes.differs"):
        export_model(
            module.model, module.tokenizer, tmp_path / "tiny", more=partial(more, precision="int8")
        )
    assert list((tmp_path / "tiny").iterdir()) == []


def test_data_that_int8_cannot_be_fitted_to(data: Path, tmp_path: Path):
    module = ServingModule(tiny_model(), CaptionTokenizer(WORDS[::-1], 6, lowercase=True))
    with raises("runtimes.data", data):
        write_runtimes(module, tmp_path, ["litert"], "int8", data)
    for formats, each in ((["litert"], "int8"), (["onnx"], "float16"), ([], "dynamic")):
        with raises("runtimes.precision"):
            write_runtimes(module, tmp_path, formats, each)
    assert not list(tmp_path.iterdir())


class Bessel(keras.layers.Layer):
    """What LiteRT cannot compute."""

    def call(self, inputs):
        return tf.math.bessel_i0(inputs)


def test_an_operation_that_litert_lacks_is_named_with_its_layer(tmp_path: Path):
    rows = keras.Input((4,))
    encoder = keras.Model(rows, Bessel(name="strange")(rows))
    with raises("runtimes.operation") as caught:
        write_litert(encoder, tmp_path / "image.tflite")
    assert "BesselI0" in str(caught.value) and "strange" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_precision_is_measured_beside_float32(tiny_run: Path, data: Path):
    rows = precision.measure(CONFIG, run=tiny_run, data=data, images=12, rounds=2)
    measured = ("image encoder", "text encoder", "one image", "one text", "rsum of val")
    assert compared(rows) == [
        (f"{what}, {each}", f"{what}, float32") for what in measured for each in PRECISIONS
    ]
    sizes = {row["name"]: row["ratio"]["median"] for row in rows if row["unit"] == "MiB"}
    assert sizes["image encoder, int8"] < sizes["image encoder, float16"] < 0.7
