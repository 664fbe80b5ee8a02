"""EfficientNet-Lite: the published sizes, a plain reference, its files of weights, photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras import layers

from examples.convert_efficientnet_lite import converted
from tests.blocked import WITHOUT_TENSORFLOW
from tests.errors import raises
from tests.unit.models.lite_reference import Arrays, features, random_arrays
from tf_dpce.models.backbone_weights import load_weights
from tf_dpce.models.efficientnet_lite import efficientnet_lite
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.image_tower import freeze_before, image_backbone, image_tower, network_of

# Published, with the classifier of 1,000 classes on 1,280 features.
PARAMETERS = (4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568)
CLASSIFIER = 1_280 * 1_000 + 1_000
# ImageNet's breeds of dogs.
DOGS = range(151, 269)

# Keras's own saving converts variables in a way that NumPy 2 deprecates.
DEPRECATED = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# 50, 25, 13, 7, 4 and 2 positions: both even and odd sides are halved.
SIZE = 50


def pixels(count: int = 2, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def saved(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return random_arrays(0)


@pytest.mark.parametrize(
    "number", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.full) for n in (3, 4))]
)
def test_a_network_has_the_published_number_of_parameters(number: int):
    network = efficientnet_lite(f"EfficientNetLite{number}", 32)
    counts = [int(np.prod(variable.shape)) for variable in network.trainable_variables]
    assert sum(counts) + CLASSIFIER == PARAMETERS[number]
    assert network.output_shape == (None, 1280)


@pytest.mark.parametrize("number", [0, pytest.param(2, marks=pytest.mark.full)])
def test_the_features_are_those_of_a_plain_reference(number: int, tmp_path: Path):
    arrays = random_arrays(number)
    path = saved(tmp_path / "lite.npz", arrays)
    backbone = image_backbone(f"EfficientNetLite{number}", str(path), SIZE)
    expected = features(arrays, number, pixels())
    # Both ends of ReLU6 are reached, and most of what lies between.
    assert np.ptp(expected) > 3 and 0.01 < (expected == 0).mean() < 0.9
    np.testing.assert_allclose(backbone(pixels(), training=False), expected, atol=2e-4)
    # Every BatchNorm is fused, which changes nothing.
    fast = folded(backbone)
    assert not [x for x in fast._flatten_layers() if isinstance(x, layers.BatchNormalization)]
    np.testing.assert_allclose(fast(pixels(), training=False), expected, atol=2e-4)


JAX = """
import keras, numpy as np, sys
from tf_dpce.models.image_tower import image_backbone
given = np.load("GIVEN")
backbone = image_backbone("EfficientNetLite0", "WEIGHTS", given["pixels"].shape[1])
np.testing.assert_allclose(backbone.predict(given["pixels"]), given["expected"], atol=1e-3)
assert keras.backend.backend() == "jax"
"""


@pytest.mark.process
def test_under_jax_it_computes_the_same(run_program, arrays: Arrays, tmp_path: Path):
    weights, given = saved(tmp_path / "lite.npz", arrays), tmp_path / "given.npz"
    np.savez(given, pixels=pixels(), expected=features(arrays, 0, pixels()))
    program = JAX.replace("GIVEN", str(given)).replace("WEIGHTS", str(weights))
    run_program(WITHOUT_TENSORFLOW + program, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")


def test_training_can_start_at_a_named_layer():
    backbone = image_backbone("EfficientNetLite0", None, 32)
    every = len(backbone.trainable_variables)
    freeze_before(backbone, "block6a_expand_conv")
    trained = [variable.path for variable in backbone.trainable_variables]
    assert 0 < len(trained) < every and trained[0] == "block6a_expand_conv/kernel"
    assert not [path for path in trained if path[:6] in ("stem_c", "stem_b") or path[5] in "12345"]


# --- files of weights -----------------------------------------------------------------------------


@DEPRECATED
def test_a_file_of_keras_gives_the_same_weights(tmp_path: Path, arrays: Arrays):
    path = saved(tmp_path / "lite.npz", {**arrays, "classifier/bias": np.zeros(1000)})
    network = network_of(image_backbone("EfficientNetLite0", str(path), 32))
    network.save_weights(tmp_path / "lite.weights.h5")
    again = image_backbone("EfficientNetLite0", str(tmp_path / "lite.weights.h5"), 64)
    for one, other in zip(network.weights, network_of(again).weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # Lite1 has the layers of Lite0 and more: a file that fills a part of it does not fit.
    with raises("model.weights", path=tmp_path / "lite.weights.h5"):
        image_backbone("EfficientNetLite1", str(tmp_path / "lite.weights.h5"), 32)


def test_arrays_of_another_network_or_damaged_ones_do_not_fit(tmp_path: Path, arrays: Arrays):
    name, path = "block3a_dwconv/kernel", tmp_path / "lite.npz"
    kernel, network = arrays[name], efficientnet_lite("EfficientNetLite0", 32)
    before = network.get_weights()
    less = {key: values for key, values in arrays.items() if key != name}
    for wrong in (
        random_arrays(1),
        less,
        {**arrays, "block3c_dwconv/kernel": kernel},
        # PyTorch's layout; whole numbers; a number that is none.
        {**arrays, name: kernel.transpose(2, 3, 0, 1)},
        {**arrays, name: kernel.astype(int)},
        {**arrays, name: kernel * np.float32(np.nan)},
        {**arrays, name: kernel.astype(object)},
    ):
        with raises("model.weights", path=saved(path, wrong)):
            load_weights(network, path, "EfficientNetLite0")
    for contents in (b"", b"no archive", saved(path, arrays).read_bytes()[:-40]):
        path.write_bytes(contents)
        with raises("model.weights", path=path):
            load_weights(network, path, "EfficientNetLite0")
    for one, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_keras_does_not_publish_and_sizes_that_leave_nothing_are_refused():
    with raises("model.imagenet"):
        image_tower("EfficientNetLite0", "imagenet")
    for backbone, size in (("EfficientNetLite0", 31), ("MobileNetV2", 31), ("InceptionV3", 74)):
        with raises("model.image_size"):
            image_tower(backbone, input_size=size)
    with raises("model.backbone"):
        image_tower("EfficientNetLite5")


# The name and the shape in PyTorch; the name here, and the order of the axes.
CONVERTED = (
    ("_conv_stem.weight", (8, 3, 2, 5), "stem_conv/kernel", (2, 3, 1, 0)),
    ("_bn0.running_var", (8,), "stem_bn/variance", (0,)),
    ("_blocks.0._depthwise_conv.weight", (8, 1, 2, 5), "block1a_dwconv/kernel", (2, 3, 0, 1)),
    ("_blocks.0._project_conv.weight", (4, 8, 1, 1), "block1a_project_conv/kernel", (2, 3, 1, 0)),
    # A width that is repeated is another block of the same stage.
    ("_blocks.1._project_conv.weight", (6, 9, 1, 1), "block2a_project_conv/kernel", (2, 3, 1, 0)),
    ("_blocks.2._project_conv.weight", (6, 7, 1, 1), "block2b_project_conv/kernel", (2, 3, 1, 0)),
    ("_blocks.2._expand_conv.weight", (7, 6, 1, 1), "block2b_expand_conv/kernel", (2, 3, 1, 0)),
    ("_blocks.2._bn0.weight", (7,), "block2b_expand_bn/gamma", (0,)),
    ("_blocks.2._bn1.bias", (7,), "block2b_dwconv_bn/beta", (0,)),
    ("_blocks.2._bn2.running_mean", (6,), "block2b_project_bn/mean", (0,)),
    ("_conv_head.weight", (9, 6, 1, 1), "top_conv/kernel", (2, 3, 1, 0)),
    ("_bn1.weight", (9,), "top_bn/gamma", (0,)),
    ("_fc.weight", (10, 9), "classifier/kernel", (1, 0)),
    ("_fc.bias", (10,), "classifier/bias", (0,)),
)


def test_a_checkpoint_of_pytorch_is_converted():
    draw = np.random.default_rng(0)
    state = {name: draw.normal(size=shape) for name, shape, *_ in CONVERTED}
    found = converted({**state, "_bn1.num_batches_tracked": np.array(7)})
    assert list(found) == [name for *_, name, _ in CONVERTED]
    for theirs, _, ours, axes in CONVERTED:
        np.testing.assert_array_equal(found[ours], state[theirs].transpose(axes), err_msg=ours)
    with pytest.raises(ValueError, match=r"_blocks\.0\._se_reduce"):
        converted({**state, "_blocks.0._se_reduce.weight": np.zeros(3)})


# --- photographs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "size"), [(0, 224), (2, 260)])
def test_the_published_weights_see_dogs(number: int, size: int, lite_weights, flickr8k_root: Path):
    from tf_dpce.preprocessing.image import evaluation_pixels

    lines = (flickr8k_root / "Flickr8k_text" / "Flickr8k.token.txt").read_text().splitlines()
    captions: dict[str, list[str]] = {}
    for name, caption in (line.split("\t") for line in lines):
        captions.setdefault(name.split("#")[0], []).append(caption.lower())
    folder = flickr8k_root / "Flicker8k_Dataset"
    names = [n for n, texts in sorted(captions.items()) if all(" dog " in t for t in texts)]
    photographs = [folder / name for name in names if (folder / name).exists()][:32]
    images = [evaluation_pixels(path.read_bytes(), size) for path in photographs]
    arrays = np.load(lite_weights[number])
    backbone = image_backbone(f"EfficientNetLite{number}", str(lite_weights[number]), size)
    logits = backbone.predict(np.stack(images), verbose=0) @ arrays["classifier/kernel"]
    best = np.argmax(logits + arrays["classifier/bias"], axis=1)
    # Of 118 breeds among 1,000 classes chance would find four.
    assert len(photographs) == 32 and sum(each in DOGS for each in best) >= 26
