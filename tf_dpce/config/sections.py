"""The sections of a configuration: typed, frozen, each key with what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type

# The types whose ranges jsonargparse checks, in files and on command lines alike.
Amount = restricted_number_type("Amount", float, [(">=", 0), ("<", math.inf)])
PositiveAmount = restricted_number_type("PositiveAmount", float, [(">", 0), ("<", math.inf)])
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
# A residual block squeezes to a quarter of its width.
Width = restricted_number_type("Width", int, (">=", 4))

Angle = restricted_number_type("Angle", float, [(">=", 0), ("<=", 180)])

Resize = Literal["center_crop", "stretch"]
TokenKind = Literal["words", "wordpiece", "characters"]


@dataclass(frozen=True)
class ImageConfig:
    """The image tower and the preprocessing of images.

    Attributes:
        backbone: The name of a `keras.applications` model, "EfficientNetLite0" to
            "EfficientNetLite4", or "small".
        input_size: The width and height S of the images, in pixels.
        head_dim: The width of the head's hidden layer; 0 leaves the layer out.
        resize: How an image becomes a square: "center_crop" cuts out its largest centred square;
            "stretch" changes its aspect ratio, which suits tall images of persons. If an image is
            longer than 16 times its shorter side, its ends are cut off before it is stretched.
        crop: Whether training crops images at random.
        flip: Whether training mirrors half of the images.
        rotation: The largest angle in degrees by which training turns images, either way.
        colour: The largest change of saturation, of contrast and of brightness in training, as a
            share: 0.2 multiplies each by 0.8 to 1.2.
        cutout: The side of the grey square that training puts anywhere on an image, as a share of
            the image's side.
    """

    backbone: str = "ResNet50"
    input_size: PositiveInt = 224
    head_dim: NonNegativeInt = 2048
    resize: Resize = "center_crop"
    crop: bool = True
    flip: bool = True
    rotation: Angle = 0.0
    colour: Share = 0.0
    cutout: Share = 0.0


@dataclass(frozen=True)
class TextConfig:
    """The text tower and the preprocessing of captions.

    Attributes:
        tower: "convolutional" (the recipe's); "small", a few plain and wide convolutions; or for
            comparison "recurrent" (GRUs) or "bag_of_words" (ignores the order of words).
        tokenizer: What a token is: "words", which end at white space and punctuation (the
            recipe's); "wordpiece", the pieces of these words that are learnt from the training
            captions; or "characters", single ones of scripts without spaces between words
            (Chinese, Japanese, Thai, Lao, Khmer, Burmese) beside words of other scripts.
        pieces: About how many pieces "wordpiece" learns.
        max_length: The number T of token positions.
        word_dim: The width of a word vector.
        blocks: The number of residual blocks in each group.
        widths: The width of each group, of each convolution of the small tower, of each GRU, or
            of each hidden layer of the bag of words.
        shift: Whether training moves captions to random token positions; otherwise captions are
            aligned left.
        caption_pool: The captions from which training draws one for an image: those of the "image"
            itself, or those of all images of its "instance", such as a person.
        word_dropout: The share of words that training drops at random.
        opposites: Pairs of opposite words, such as "left" and "right". If given, every second
            row of a batch is a turned copy of the row before it: its image turned by 180 degrees,
            with the opposites of these words in its caption.
    """

    tower: Literal["convolutional", "small", "recurrent", "bag_of_words"] = "convolutional"
    tokenizer: TokenKind = "words"
    pieces: PositiveInt = 4000
    max_length: PositiveInt = 32
    word_dim: PositiveInt = 300
    blocks: tuple[PositiveInt, ...] = (3, 4, 6, 1)
    widths: tuple[Width, ...] = (256, 512, 1024, 2048)
    shift: bool = True
    caption_pool: Literal["image", "instance"] = "image"
    word_dropout: Share = 0.0
    opposites: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """The layers between the towers and the losses.

    Attributes:
        output_dim: The width D of an embedding.
        dropout: The dropout rate before the classifier.
        tower_dropout: The dropout rate after the backbone and after the text tower's pooling (0
            in the recipe).
        classifier_bias: "shared" gives the classifier a bias for both modalities, "none" no bias.
        relu_before_losses: Whether a ReLU is applied before the classifier and the pair loss.
        sampled_negatives: The number S of classes that a step samples for the instance loss beside
            those of its batch; 0 uses all classes. If classes are sampled, 8,192 is a good number;
            for a rate S/C, give that share of the C training instances.
    """

    output_dim: PositiveInt = 2048
    dropout: Share = 0.75
    tower_dropout: Share = 0.0
    classifier_bias: Literal["shared", "none"] = "shared"
    relu_before_losses: bool = True
    sampled_negatives: NonNegativeInt = 0


@dataclass(frozen=True)
class LossConfig:
    """Weights and settings of the losses; a weight of 0 turns a loss off.

    Attributes:
        image_instance: The weight of the instance loss of images.
        text_instance: The weight of the instance loss of captions.
        pair: The weight of the pair loss, which compares images with captions.
        pair_loss: The pair loss: "ranking", or "contrastive" (in-batch softmax).
        negatives: The negatives of the ranking loss. "paired" uses every second pair of the batch
            as the negative of the pair before it; "mined" does so too, but replaces the negative
            captions by the hardest of `candidates`; "batch" uses the hardest pairs of the batch.
            "paired" and "mined" need a batch of an even size on each replica.
        candidates: The number of captions that each step draws for mining.
        margin: The margin of the ranking loss.
        temperature: The temperature of the contrastive loss and of the student's similarities.
        prefixes: The lengths at which embeddings can be cut, such as 256 and 128: the pair loss
            then is its mean over whole embeddings and these first numbers of them.
        distillation: The weight of the distillation loss, which needs a `teacher`; None is 1 if
            there is one.
        teacher_temperature: The temperature of the teacher's similarities.
    """

    image_instance: Amount = 1.0
    text_instance: Amount = 1.0
    pair: Amount = 0.0
    pair_loss: Literal["ranking", "contrastive"] = "ranking"
    negatives: Literal["paired", "mined", "batch"] = "paired"
    candidates: PositiveInt = 256
    margin: Amount = 1.0
    temperature: PositiveAmount = 0.05
    prefixes: tuple[PositiveInt, ...] = ()
    distillation: Amount | None = None
    teacher_temperature: PositiveAmount = 0.05

    @property
    def pairs_negatives(self) -> bool:
        """Whether every second pair of a batch is the negative of the one before it."""
        return self.pair > 0 and self.pair_loss == "ranking" and self.negatives != "batch"

    @property
    def mines_negatives(self) -> bool:
        """Whether the captions of these negatives are mined."""
        return self.pairs_negatives and self.negatives == "mined"


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        epochs: The number of passes over the training images; 0 leaves the stage out.
        batch_size: The batch size B, summed over all replicas.
        backbone: "cached" (frozen, its features are computed once), "frozen" or "trained".
        finetune_from: The first layer of the backbone that is trained. The layers before it stay
            frozen, which saves much time, because their feature maps are large. None trains all
            layers.
        cached_augmentations: The number of augmented versions of each image in the feature cache,
            the plain one included.
        optimizer: The recipe's "sgd" (Nesterov, weight decay in the gradient) or "adamw"
            (decoupled weight decay).
        learning_rate: The highest learning rate.
        lr_multipliers: Factors of the learning rate, by patterns of variables. A variable is named
            PART/LAYER/VARIABLE, such as "image_backbone/conv1_conv/kernel",
            "text_tower/text_embedding/embeddings" or "image_head/image_fc1_bn/gamma"; those of the
            classifier are "instance_classifier/kernel" and "instance_classifier/bias". In a
            pattern, "*" stands for any characters. The last pattern that matches a variable wins;
            without a match the factor is 1.
        schedule: "steps" (a tenth at each of `decay_epochs`) or "cosine" (down to 0).
        decay_epochs: The epochs at whose start the learning rate falls to a tenth.
        warmup_epochs: The number of epochs in which the learning rate rises from 0.
        weight_decay: The weight decay of matrices and filters, and with "sgd" of all variables (the
            recipe).
        ema_momentum: The momentum of the running average of the weights. If it is above 0,
            validation and the best checkpoint use the average instead of the weights.
        validate_every: The number of epochs from one validation to the next.
        loss: Weights and settings of the losses.

    Example:
        >>> stage = StageConfig(lr_multipliers={"image_backbone/*": 0.1, "*/bias": 2.0})
        >>> stage.backbone
        'trained'
    """

    epochs: NonNegativeInt = 0
    batch_size: PositiveInt = 32
    backbone: Literal["cached", "frozen", "trained"] = "trained"
    finetune_from: str | None = None
    cached_augmentations: PositiveInt = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Amount = 0.01
    lr_multipliers: dict[str, Amount] = field(default_factory=dict)
    schedule: Literal["steps", "cosine"] = "steps"
    decay_epochs: tuple[NonNegativeInt, ...] = ()
    warmup_epochs: Amount = 0.0
    weight_decay: Amount = 1e-4
    ema_momentum: Share = 0.0
    validate_every: PositiveInt = 1
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run.

    Attributes:
        seed: The seed of initial weights, data order, augmentation and dropout.
        weights: The initial weights of the backbone: "imagenet", "none" (random) or a file (of
            Keras, or `.npz`).
        vectors: Files of initial word vectors (GloVe, word2vec or .npz), which stand side by side,
            or None (random).
        teacher: Embeddings of the training images, of their captions, or of both by another model,
            whose similarities the model learns too: Parquet, `.npz` or a folder of `embed`.
        precision: The precision in which layers compute; weights, embeddings and losses stay
            float32.
        checkpoint_minutes: The minutes from one checkpoint to the next within an epoch.
        image: The image tower and the preprocessing of images.
        text: The text tower and the preprocessing of captions.
        model: The layers between the towers and the losses.
        stage1: The first stage.
        stage2: The second stage.
    """

    seed: Seed = 0
    weights: str = "imagenet"
    vectors: tuple[str, ...] | None = None
    teacher: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_minutes: Amount = 5.0
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    stage1: StageConfig = field(default_factory=StageConfig)
    stage2: StageConfig = field(default_factory=StageConfig)

    def stage(self, number: int) -> StageConfig:
        """Returns the settings of stage 1 or 2, with the weight that a teacher has."""
        stage = self.stage1 if number == 1 else self.stage2
        if self.teacher and stage.loss.distillation is None:
            return replace(stage, loss=replace(stage.loss, distillation=1.0))
        return stage
