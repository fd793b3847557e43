"""Schema of the study file: typed, immutable models.

Every model rejects unknown keys and, with ``Choices`` as context, unknown names. A field that is None takes the
study's value, or a default that depends on what trains; ``resolve`` fills it in.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from unfreeze.config.choices import ChosenFrom
from unfreeze.config.units import bytes_of, pixels_of, seconds_of

Metric = Annotated[str, ChosenFrom("metrics")]
Resize = Literal["crop", "squash", "pad"]
Augmentation = Annotated[str, ChosenFrom("augmentations")]
Monitor = Literal["val_loss", "val_accuracy", "val_metric", "train_loss"]


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # an int in Python
        raise ValueError(f"should be a number, but is {value}")
    return value


Whole = Annotated[int, BeforeValidator(_not_bool)]
Real = Annotated[float, BeforeValidator(_not_bool)]
Positive = Annotated[Whole, Field(ge=1, le=1_000_000_000)]
Pixels = Annotated[Whole, Field(ge=8, le=10_000)]
Share = Annotated[Real, Field(ge=0, lt=1)]
Part = Annotated[Real, Field(gt=0, lt=1)]


class Settings(BaseModel):
    """Base model: immutable; rejects unknown keys and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Tags of a union of word, number and mapping: they select the branch whose errors are reported, and are not shown.
WORD, NUMBER, MAPPING = "\0word", "\0number", "\0mapping"


def _kind(value: Any) -> str:
    if isinstance(value, dict | BaseModel):
        return MAPPING
    return NUMBER if isinstance(value, int | float) and not isinstance(value, bool) else WORD


def _word_or_mapping(value: Any) -> str:
    return MAPPING if _kind(value) == MAPPING else WORD


def _count_or_share(value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000_000
    if is_count or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError(f"{value!r} is neither a number of stages (1, 2, ...) nor a share of them (between 0 and 1)")


class LastStages(Settings):
    """Train the last stages and the head: a number of stages (int) or a share of them (float between 0 and 1)."""

    last: Annotated[int | float, BeforeValidator(_count_or_share)]


Train = Annotated[
    Annotated[Literal["all", "head"], Tag(WORD)] | Annotated[LastStages, Tag(MAPPING)], Discriminator(_word_or_mapping)
]


class OptimizerConfig(Settings):
    """An optimiser; defaults of lr and weight_decay depend on its name and on what trains."""

    name: Annotated[str, ChosenFrom("optimizers")] = "adamw"
    lr: Annotated[Real, Field(gt=0)] | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[Real, Field(ge=0)] | None = None
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = 1.0


class ScheduleConfig(Settings):
    """Learning rate schedule of a phase, after a linear warm-up over a share of its steps."""

    name: Annotated[str, ChosenFrom("schedules")] = "cosine"
    warmup: Share = 0.05


class HeadConfig(Settings):
    """A head with hidden layers, each followed by ReLU and dropout; ``pool: own`` is the backbone's own pooling."""

    pool: Annotated[str, ChosenFrom("poolings")] = "own"
    hidden: tuple[Positive, ...] = ()
    dropout: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _a_dropout_for_each_layer(self) -> "HeadConfig":
        if self.dropout and len(self.dropout) != len(self.hidden):
            raise ValueError(f"{len(self.hidden)} hidden layers but {len(self.dropout)} dropouts; give one per layer")
        return self


Head = Annotated[
    Annotated[str, ChosenFrom("heads"), Tag(WORD)] | Annotated[HeadConfig, Tag(MAPPING)],
    Discriminator(_word_or_mapping),
]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class PhaseConfig(Settings):
    """A stretch of training with one set of trained stages and one optimiser."""

    train: Train | None = None
    epochs: Positive | None = None
    optimizer: Annotated[OptimizerConfig, BeforeValidator(_named)] = OptimizerConfig()
    schedule: Annotated[ScheduleConfig, BeforeValidator(_named)] = ScheduleConfig()
    batch_norm: Literal["frozen", "train"] = "frozen"
    reinit: bool = False
    label_smoothing: Share = 0.0


class EarlyStopping(Settings):
    """Stop after ``patience`` epochs in a row in which the monitored value improved by ``min_delta`` or less."""

    monitor: Monitor = "val_loss"
    patience: Positive = 5
    min_delta: Annotated[Real, Field(ge=0)] = 0.0
    restore_best: bool = True


class BackboneConfig(Settings):
    """A timm model and its initial weights: pretrained, none, or a safetensors file."""

    name: str
    weights: str = "pretrained"


Backbone = Annotated[BackboneConfig, BeforeValidator(_named)]

Stopping = (
    Annotated[
        Annotated[Literal[False], Tag(WORD)] | Annotated[EarlyStopping, Tag(MAPPING)], Discriminator(_word_or_mapping)
    ]
    | None
)


def _one_way_to_say_the_weights(settings: "StrategyConfig | StudyConfig") -> None:
    backbone = settings.backbone
    if settings.weights is not None and backbone is not None and "weights" in backbone.model_fields_set:
        raise ValueError("weights and backbone.weights are both given; give one")


def _seeds(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 1 <= value <= 1000:
        raise ValueError(f"{value} is not a number of seeds between 1 and 1000; list other seeds, for example [4, 7]")
    return tuple(range(value))


Seeds = Annotated[
    tuple[Annotated[Whole, Field(ge=0, le=1_000_000_000)], ...], BeforeValidator(_seeds), Field(min_length=1)
]


class StrategyConfig(PhaseConfig):
    """A way of training: trained stages, head and optimiser. Values that are None are the study's."""

    backbone: Backbone | None = None
    weights: str | None = None
    image_size: Pixels | None = None
    resize: Resize | None = None
    batch_size: Positive | None = None
    early_stopping: Stopping = None
    head: Head = "linear"
    phases: tuple[PhaseConfig, ...] = ()
    seeds: Seeds | None = None
    tune: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _one_way_to_say_what_trains(self) -> "StrategyConfig":
        alone = sorted(self.model_fields_set & (PhaseConfig.model_fields.keys() - {"epochs"}))
        _one_way_to_say_the_weights(self)
        if any(path.split(".")[0] == "tune" for path in self.tune):
            raise ValueError("tune cannot tune itself; list all paths in one mapping")
        for path, values in self.tune.items():
            twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
            if twice is not None:
                raise ValueError(f"tune: {path} lists {twice!r} twice; list each value once")
        if self.phases and alone:
            raise ValueError(f"{', '.join(alone)} beside phases; move into each phase")
        if not self.phases and self.train is None:
            raise ValueError("train is missing; set it to all, head or {last: k}, or give phases")
        missing = [str(number) for number, phase in enumerate(self.phases) if phase.train is None]
        if missing:
            raise ValueError(f"phases {', '.join(missing)} lack train")
        return self


def _bank_or_fresh(value: Any) -> Any:
    if value == "fresh" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000):
        return value
    raise ValueError(f"{value!r} is neither fresh (always new views) nor a number of views per image (1, 2, ...)")


Views = Annotated[int | Literal["fresh"], BeforeValidator(_bank_or_fresh)]


class ValidationConfig(Settings):
    """Views of the validation images in each epoch: their augmentation, and the number of draws."""

    augment: Augmentation = "none"
    examples: Positive | None = None


class SweepConfig(Settings):
    """Expands into one regime per value of training images per class."""

    train_per_class: Annotated[tuple[Positive, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_value_once(self) -> "SweepConfig":
        values = self.train_per_class
        twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
        if twice is not None:
            raise ValueError(f"train_per_class lists {twice} twice; list each value once")
        return self


class RegimeConfig(Settings):
    """The data of a cell: images per class, augmentation and its number of views, examples per epoch.

    ``sweep`` stands for several regimes; ``swept`` expands it, so no regime of a resolved study has it.
    """

    train_per_class: Positive | None = None
    val_per_class: Positive | None = None
    train_fraction: Annotated[Real, Field(gt=0, le=1)] | None = None
    augment: Augmentation = "none"
    views: Views = "fresh"
    examples_per_epoch: Positive | None = None
    balance: Literal["none", "weights", "oversample"] = "none"
    strict: bool = False
    validation: ValidationConfig = ValidationConfig()
    sweep: SweepConfig | None = None

    @model_validator(mode="after")
    def _one_way_to_say_how_many(self) -> "RegimeConfig":
        beside = [name for name in ("train_per_class", "train_fraction") if getattr(self, name) is not None]
        if self.sweep is not None and beside:
            raise ValueError(f"sweep and {beside[0]} both set the number of training images; give one")
        if self.train_per_class is not None and self.train_fraction is not None:
            raise ValueError("train_per_class and train_fraction both set the number of training images; give one")
        return self


USUAL_VAL, LARGER_VAL = 0.15, 0.25
"""Shares of ``val: auto``: the larger one where the usual one would give too few images."""


class SplitConfig(Settings):
    """Shares of all images for test and validation, or folds.

    ``val: test`` validates on the test images; ``val: given`` on the data's own validation images, even where no test
    images are left. ``val: auto`` is 0.15, or 0.25 where that would be fewer than 100 images.
    """

    test: Share = 0.2
    val: Annotated[
        Annotated[Part, Tag(NUMBER)] | Annotated[Literal["test", "given", "auto"], Tag(WORD)], Discriminator(_kind)
    ] = USUAL_VAL
    group: str | None = None
    folds: Annotated[Whole, Field(ge=2, le=1000)] | None = None

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> "SplitConfig":
        share = LARGER_VAL if self.val == "auto" else 0.0 if isinstance(self.val, str) else self.val
        if self.folds is None and self.test + share >= 1:
            raise ValueError(f"test {self.test} and val {self.val} leave nothing to train on")
        return self


def _column_or_columns(value: Any) -> Any:
    several = isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(name, str) for name in value)
    if several or value is None or isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is neither the name of a column nor a list of two or more (put quotes around numbers)")


def _column_or_false(value: Any) -> Any:
    if value is None or value is False or isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is neither the name of a column nor false (put quotes around numbers)")


class ColumnsConfig(Settings):
    """Meaning of the columns of a table; columns that are None are found by their names and values.

    ``label`` may be several columns of 0 and 1, one per class. ``split: false`` draws the splits and ignores columns
    and folders with splits. ``root`` is the folder that paths are relative to, itself relative to the table's folder;
    ``suffix`` is appended to file names.
    """

    path: str | None = None
    label: Annotated[str | tuple[str, ...] | None, BeforeValidator(_column_or_columns)] = None
    split: Annotated[str | bool | None, BeforeValidator(_column_or_false)] = None
    group: str | None = None
    root: str | None = None
    suffix: str | None = None


def _one_or_three(bands: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if bands is not None and (len(bands) not in (1, 3) or len(set(bands)) != len(bands)):
        raise ValueError(f"{list(bands)} is neither one band nor three different bands, for example [0, 1, 2]")
    return bands


def _auto_or_bits(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 16):
        return value
    raise ValueError(f"{value!r} is neither auto nor a number of bits (1 to 16)")


Bands = Annotated[tuple[Annotated[Whole, Field(ge=0, le=9_999)], ...] | None, AfterValidator(_one_or_three)]
Bits = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_bits)]
PixelCount = Annotated[int, BeforeValidator(pixels_of)]


class CheckConfig(Settings):
    """How files are read, and what a run does with problematic ones; unreadable files are always set aside.

    ``label_conflicts``: set aside or keep copies of one image with different labels. ``near_duplicates``: keep similar
    images on one side of the split, or only images with the same pixels. ``truncated``: set aside or keep incomplete
    JPEG files. ``max_set_aside``: largest share of files set aside with which a run starts. ``follow_symlinks``: follow
    links in folders to other folders and to files elsewhere. ``bands``: the band, or three bands, to read from files
    with two bands or at least four. ``bits``: number of bits to use of images with more than 8, by default as many as
    the data set uses. ``max_pixels``: largest image that is decoded.
    """

    label_conflicts: Literal["set_aside", "keep"] = "set_aside"
    near_duplicates: Literal["together", "ignore"] = "together"
    truncated: Literal["set_aside", "keep"] = "set_aside"
    max_set_aside: Share = 0.05
    follow_symlinks: bool = False
    bands: Bands = None
    bits: Bits = "auto"
    max_pixels: PixelCount = 89_478_485


def _checked_by(parse: Callable[[str], float]) -> Callable[[str], str]:
    def check(text: str) -> str:
        parse(text)
        return text

    return check


class Budget(Settings):
    """Limits of a study: disk for caches (for example 20GB) and time (for example 30m)."""

    disk: Annotated[str, AfterValidator(_checked_by(bytes_of))] = "20GB"
    time: Annotated[str, AfterValidator(_checked_by(seconds_of))] | None = None


SPLIT_NAMES = ("train", "val", "validation", "test")


class StudyConfig(Settings):
    """A study: data, strategies, regimes, seeds and the values they share.

    ``labels_from``: how to find the label in the path of an image that is not in a class folder: a regular expression,
    or ``name`` for the beginning of the file name.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "study"
    data: str
    split: SplitConfig = SplitConfig()
    check: CheckConfig = CheckConfig()
    columns: ColumnsConfig = ColumnsConfig()
    labels_from: Annotated[str, Field(min_length=1)] | None = None
    tests: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")], str] = {}
    metric: Metric = "accuracy"
    backbone: Backbone
    weights: str | None = None
    image_size: Pixels = 224
    resize: Resize = "crop"
    strategies: Annotated[dict[str, StrategyConfig], Field(min_length=1)]
    regimes: Annotated[dict[str, RegimeConfig], Field(min_length=1)]
    seeds: Seeds = (0,)
    batch_size: Positive = 32
    epochs: Positive = 10
    early_stopping: Stopping = None
    budget: Budget = Budget()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    activations: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _names_make_directories(self) -> "StudyConfig":
        _one_way_to_say_the_weights(self)
        for kind, names in (("strategies", self.strategies), ("regimes", self.regimes)):
            for name in names:
                if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
                    raise ValueError(f"{kind}: {name!r} is not a valid name; use letters, digits, _ and -")
            if len({name.lower() for name in names}) != len(names):  # one directory where a file system ignores case
                raise ValueError(f"{kind}: two of {', '.join(names)} differ only in capitals; rename one")
        taken = [name for name in self.tests if name.lower() in SPLIT_NAMES]
        if taken:
            raise ValueError(f"tests: {', '.join(taken)} is the name of a split; rename the test set")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} lists a seed twice")
        for name, strategy in self.strategies.items():
            if strategy.seeds is not None and not set(strategy.seeds) & set(self.seeds):
                raise ValueError(
                    f"strategies.{name}.seeds: none of {list(strategy.seeds)} is a seed of the study, "
                    f"{list(self.seeds)}; leave it out, or list some of these"
                )
        return self
