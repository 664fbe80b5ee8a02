"""The sections of a configuration: typed, frozen, each key with what it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ImageConfig:
    """The image tower and what images go through before it.

    Attributes:
        backbone: a `keras.applications` model, or "small".
        input_size: side of the square images, in pixels.
        head_dim: width of the head's hidden layer; 0 leaves it out.
        squash: whether images are squashed to squares instead of cut, for tall ones of persons.
            Of one longer than 16 times its shorter side the ends are cut off before.
        crop: whether training takes random rectangles.
        flip: whether training mirrors half of the images.
    """

    backbone: str = "ResNet50"
    input_size: int = 224
    head_dim: int = 2048
    squash: bool = False
    crop: bool = True
    flip: bool = True


@dataclass(frozen=True)
class TextConfig:
    """The text tower and what captions go through before it.

    Attributes:
        tower: "convolutional"; "recurrent" (GRUs) and "bag_of_words" (blind to the order of
            words) are there to measure what it is worth.
        max_length: T, the number of places.
        embedding_dim: width of a word vector.
        blocks: residual blocks in each group.
        widths: width of each group (of each GRU, or hidden layer of a bag of words).
        shift: whether training moves captions to random places.
        captions_of: whose captions training pairs with an image: its own, or those of all images
            of its "instance", such as a person.
        word_dropout: share of words hidden in training.
    """

    tower: Literal["convolutional", "recurrent", "bag_of_words"] = "convolutional"
    max_length: int = 32
    embedding_dim: int = 300
    blocks: tuple[int, ...] = (3, 4, 6, 1)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    shift: bool = True
    captions_of: Literal["image", "instance"] = "image"
    word_dropout: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """What joins the towers.

    Attributes:
        output_dim: D, width of an embedding.
        dropout: rate on the classifier's path.
        tower_dropout: dropout rate after backbone and the text tower's pooling (0 in the recipe).
        shared_bias: whether the classifier has a bias.
        rectify: whether a ReLU stands before the classifier and the pair losses.
        sampled_negatives: S, classes that a step draws for the instance loss beside those of its
            batch; 0 takes all classes, exactly. Where classes are sampled 8,192 is recommended; a
            rate S/C is given as that share of the C training instances.
        members: M, heads over the backbone and text towers over the word vectors. Each
            gives D / M of an embedding and meets the pair loss by itself, by its whole weight: an
            ensemble that shares what is dear. 1 in the recipe.
    """

    output_dim: int = 2048
    dropout: float = 0.75
    tower_dropout: float = 0.0
    shared_bias: bool = True
    rectify: bool = True
    sampled_negatives: int = 0
    members: int = 1


@dataclass(frozen=True)
class LossConfig:
    """Weights and settings of the losses; a weight of 0 turns a loss off.

    Attributes:
        image_instance: weight of the instance loss of images.
        text_instance: weight of the instance loss of captions.
        pair: weight of the loss between images and captions.
        pair_loss: which one that is.
        negatives: of the ranking loss: "given" (half of the batch lends them), "mined" (so too,
            but captions are the hardest of `candidates`) or "batch" (the hardest there). The
            first two need a batch of an even size on each replica.
        candidates: captions drawn each step to mine from.
        margin: of the ranking loss.
        temperature: of the contrastive loss.
    """

    image_instance: float = 1.0
    text_instance: float = 1.0
    pair: float = 0.0
    pair_loss: Literal["ranking", "contrastive"] = "ranking"
    negatives: Literal["given", "mined", "batch"] = "given"
    candidates: int = 256
    margin: float = 1.0
    temperature: float = 0.05

    @property
    def lends_negatives(self) -> bool:
        """Whether every second pair of a batch is the negative of the one before it."""
        return self.pair > 0 and self.pair_loss == "ranking" and self.negatives != "batch"

    @property
    def mines_negatives(self) -> bool:
        """Whether the captions that are lent are mined ones."""
        return self.lends_negatives and self.negatives == "mined"


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        epochs: passes over the training images; 0 leaves the stage out.
        batch_size: B, over all replicas.
        backbone: "cached" (frozen, its features computed once), "frozen" or "trained".
        backbone_from: first layer of the backbone that is trained; those before stay as they are,
            which saves most of the time that the large early maps cost. None trains all.
        views: augmented views of each image in the feature cache, the plain one included.
        optimizer: the recipe's "sgd" (Nesterov, decay coupled) or "adamw" (decay decoupled).
        learning_rate: at its highest.
        schedule: "steps" (a tenth at each of `decay_epochs`) or "cosine" (down to 0).
        decay_epochs: epochs at whose start the rate falls to a tenth.
        warmup_epochs: epochs of linear rise from 0.
        weight_decay: on matrices and filters, and under sgd on BatchNorm too (the recipe).
        backbone_multiplier: learning rate of the backbone, relative to `learning_rate`.
        backbone_bias_multiplier: the same for its biases and shifts of BatchNorm; like the
            next two, `backbone_multiplier` where it is None.
        backbone_gamma_multiplier: the same for its scales of BatchNorm.
        backbone_first_multiplier: the same for the filters of its first convolution.
        word_multiplier: the same for word vectors.
        classifier_multiplier: the same for the instance classifier's matrix.
        classifier_bias_multiplier: the same for its bias.
        gamma_multiplier: the same for the scales of BatchNorm outside the backbone.
        average: share of a running average of the weights that a step keeps; the average is what is
            validated and kept. 0 does without.
        validate_every: epochs from one validation to the next.
        loss: weights and settings of the losses.
    """

    epochs: int = 0
    batch_size: int = 32
    backbone: Literal["cached", "frozen", "trained"] = "trained"
    backbone_from: str | None = None
    views: int = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    schedule: Literal["steps", "cosine"] = "steps"
    decay_epochs: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    backbone_multiplier: float = 1.0
    backbone_bias_multiplier: float | None = None
    backbone_gamma_multiplier: float | None = None
    backbone_first_multiplier: float | None = None
    word_multiplier: float = 1.0
    classifier_multiplier: float = 1.0
    classifier_bias_multiplier: float = 1.0
    gamma_multiplier: float = 1.0
    average: float = 0.0
    validate_every: int = 1
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class Config:
    """A run, whole: with the data and the weight files it makes the model.

    Attributes:
        seed: of initial weights, data order, augmentation and dropout.
        weights: of the backbone: "imagenet", "none" or a file.
        vectors: file of word vectors to start from (GloVe, word2vec or .npz), or None (random).
        precision: of the layers' arithmetic; weights, unit vectors and losses stay float32.
        checkpoint_minutes: minutes from one checkpoint to the next within an epoch.
        image: the image tower.
        text: the text tower.
        model: what joins them.
        stage1: the first stage.
        stage2: the second stage.
    """

    seed: int = 0
    weights: str = "imagenet"
    vectors: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_minutes: float = 5.0
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    stage1: StageConfig = field(default_factory=StageConfig)
    stage2: StageConfig = field(default_factory=StageConfig)

    def stage(self, number: int) -> StageConfig:
        """Returns the settings of stage 1 or 2."""
        return self.stage1 if number == 1 else self.stage2
