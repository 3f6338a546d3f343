"""One validated, frozen configuration per run: JSON in and out, defaults that are real, unknown fields refused.

The fields come in groups, and each room takes the group that it needs; ``FitConfig`` is their sum, flat for its users.
The command line makes its flags from these fields, so a new one is declared here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pyro_vae.errors import InputError, nearest
from pyro_vae.files.bounded import first_line, read_json
from pyro_vae.option_types import LARGEST_SEED, Name, Positive, Share, Whole, Wholes, shown, wanted


def _none_by_name(value: Any) -> Any:
    return "none" if value is None else value  # as it was written before it had a name


def _number_if_it_is(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _by_column(value: Any) -> Any:
    """Likelihoods by column, of a mapping, the path of a JSON file that holds one, or a text."""
    if not isinstance(value, str):
        return value
    if value.endswith(".json"):
        try:
            return read_json(Path(value).expanduser())
        except (OSError, ValueError) as error:
            raise PydanticCustomError("columns", "a JSON file ({reason})", {"reason": first_line(error)}) from None
    pairs = [each.partition("=") for each in value.split(";") if each.strip() and value != "none"]
    if not all(sign for _, sign, _ in pairs):
        raise PydanticCustomError(
            "columns", "a text such as 'age=poisson;color=categorical', or the path of a .json file"
        )
    return {column.strip(): likelihood.strip() for column, _, likelihood in pairs}


def _split_at_commas(value: Any) -> Any:
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",") if value != "none"]
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def _memory(value: str) -> str:
    if value != "all" and not _bytes(value):
        raise PydanticCustomError("memory", "all, or a number of bytes above 0 such as 512MB")
    return value


def _bytes(value: str) -> int:
    """The bytes that a text such as ``512MB`` means, 0 for any other text."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([kmgt]?)b?", value.lower())
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Settings):
    """The data, and how much of them the training may see.

    Example:
        >>> from pyro_vae.config import DataConfig
        >>> config = DataConfig(data="toy", labels="none")
        >>> config.binarization, config.augmentation
        ('auto', 'auto')
    """

    data: Name = Field(
        "digits", description="a data set by name, or the path of a file of arrays, of a table or a folder of images"
    )
    columns: Annotated[dict[Name, Name], BeforeValidator(_by_column)] = Field(
        {},
        description="likelihoods of a table's columns: 'age=poisson;color=categorical', or drop, or a JSON file",
    )
    covariates: Annotated[tuple[Name, ...], BeforeValidator(_split_at_commas)] = Field(
        (), description="columns of a table that model and guide are given, separated by commas"
    )
    labels: Whole | Literal["all", "none"] = Field(
        100, description="how many labels training sees, spread over the classes; or all, or none"
    )
    label_column: Name = Field("auto", description="the column of labels in a table; auto: the one named so; or none")
    scale: Positive | Literal["auto"] = Field(
        "auto",
        description="what the numbers of arrays are divided by; auto: 255 for bytes of pictures, else 1",
    )
    channels: Literal["auto", "first", "last"] = Field(
        "auto", description="where the channels of the images in a file lie; auto: by their number"
    )
    memory: Annotated[Name, AfterValidator(_memory)] = Field(
        "all",
        description="memory that rows may take, as 512MB, of a file or folder where the others stay; all: loaded",
    )
    unreadable: Literal["leave_out", "refuse"] = Field(
        "leave_out",
        description="what becomes of images in a folder that cannot be read: leave_out names them, refuse ends the run",
    )
    missing: Literal["refuse", "mask"] = Field(
        "refuse", description="what becomes of missing values: mask leaves them out of the likelihood"
    )
    binarization: Literal["auto", "dynamic", "threshold", "none"] = Field(
        "auto", description="auto: dynamic for gray pixels with a Bernoulli likelihood, else none"
    )
    augmentation: Name = Field(
        "auto", description="how images are changed for the classification terms; auto: affine, for vectors none"
    )

    @property
    def memory_bytes(self) -> int | None:
        """The memory that rows may take; None: they are loaded."""
        return None if self.memory == "all" else _bytes(self.memory)


class ProgramConfig(_Settings):
    """The programs, and how large they are.

    A part is chosen by its name, with options if it takes any: ``iaf`` or ``iaf:num_transforms=4``.

    Example:
        >>> from pyro_vae.config import ProgramConfig
        >>> config = ProgramConfig(model="ss_vae", guide="iaf:num_transforms=4")
        >>> config.prior, config.latent_dim
        ('auto', 32)
    """

    model: Name = Field("vae", description="the generative program p")
    guide: Name = Field("mean_field", description="the amortized program q")
    prior: Name = Field("auto", description="p(z); auto: what the model asks for, normal for most")
    likelihood: Name = Field("auto", description="p(x | z); auto: the model's own, or what the pixels are")
    standardize: bool = Field(
        False, description="take each column or pixel in standard deviations from its mean over the training rows"
    )
    latent_dim: Whole = Field(32, description="the dimension of z")
    network: Name = Field("mlp", description="encoders and decoders")
    classifier: Name = Field("auto", description="the network of q(y | x); auto: conv for images, mlp for vectors")
    hidden: Wholes | None = Field(None, description="the widths of an mlp's hidden layers, separated by commas")


class TrainingConfig(_Settings):
    """The settings of the training.

    Example:
        >>> from pyro_vae.config import TrainingConfig
        >>> TrainingConfig(epochs=20).num_epochs
        20
        >>> TrainingConfig(beta="0.5").beta, TrainingConfig(beta="linear:0:1:10").beta
        (0.5, 'linear:0:1:10')
    """

    objective: Name = Field("elbo", description="what is maximized")
    beta: Annotated[Annotated[float, Field(ge=0)] | str, BeforeValidator(_number_if_it_is)] = Field(
        "auto",
        description="weight of the KL: a number, linear:START:END:EPOCHS or cyclical:START:END:EPOCHS:CYCLES; "
        "auto: from 0 to 1 over the first quarter of the epochs",
    )
    classification_weight: float = Field(
        30.0, ge=0, description="weight of -log q(y | x) on labelled rows, in nats per datum"
    )
    consistency_weight: float = Field(
        30.0, ge=0, description="weight of answering alike for changed unlabelled images; 0: plain M2"
    )
    marginal_weight: float = Field(
        0.0, ge=0, description="weight of the mean answer's divergence from p(y); for classes as frequent as p(y) says"
    )
    resampling: Name = Field("auto", description="how rows are drawn; auto: what the model asks for, uniform for most")
    epochs: Whole | Literal["auto"] = Field(
        "auto", description="passes over the training rows; auto: 80, but from 3,000 to 40,000 steps"
    )
    batch_size: Whole = Field(100, description="rows per step, of unlabelled and of labelled ones")
    optimizer: Name = Field("adam", description="what a step makes of the gradient")
    lr: float = Field(2e-3, gt=0, description="the optimizer's learning rate")
    lr_schedule: Literal["decay", "constant", "cosine"] = Field(
        "decay",
        description="decay: down to 0 over the last 30 % of training; cosine: over all of it",
    )
    lr_warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from 0 to what it is")
    clip_norm: float = Field(100.0, gt=0, description="largest norm of the gradient")
    skip_norm: Positive | Literal["none"] = Field(
        "none", description="leave out steps whose gradient has a norm above this; the history counts them"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="the share of every parameter that a step takes off, times the learning rate (AdamW)"
    )
    ema: Share = Field(
        0.0, description="judge, save and use weights averaged over training, each step keeping this much; 0: the last"
    )
    patience: Annotated[Whole | Literal["auto", "none"], BeforeValidator(_none_by_name)] = Field(
        "auto", description="stop after this number of epochs without progress; auto: a quarter of them"
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="of every random choice")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="one compiled graph per step; auto: where there are enough steps to gain from it"
    )
    precision: Literal["32", "bf16"] = Field("32", description="of the networks; distributions are always in float32")

    @property
    def num_epochs(self) -> int:
        """The number of epochs, of a configuration that has one in the place of ``auto``."""
        assert self.epochs != "auto", "the trainer settles what auto means"
        return self.epochs

    @property
    def largest_norm(self) -> float:
        """The norm of the gradient above which a step is left out; infinite where none is."""
        return math.inf if self.skip_norm == "none" else self.skip_norm


class FitConfig(TrainingConfig, DataConfig, ProgramConfig):
    """The settings of a run.

    Example:
        >>> from pyro_vae.config import FitConfig
        >>> config = FitConfig.from_settings(model="ss_vae", data="digits", epochs=20)
        >>> FitConfig.model_validate_json(config.model_dump_json()) == config
        True
        >>> try:
        ...     FitConfig.from_settings(latent_dims=2)
        ... except ValueError as error:
        ...     print(error)
        expected a setting that exists; got 'latent_dims'; did you mean 'latent_dim'?
    """

    @model_validator(mode="before")
    @classmethod
    def _likelihoods_of_columns(cls, settings: Any) -> Any:
        """A mapping from columns to likelihoods, or ``mixed:age=poisson;…``, in the place of the likelihood."""
        chosen = settings.get("likelihood", "auto")
        told = chosen.removeprefix("mixed:") if isinstance(chosen, str) else chosen
        if not isinstance(told, Mapping) and told == chosen:
            mixed = {"likelihood": "mixed"} if settings.get("columns") and chosen == "auto" else {}
            return settings | mixed
        return settings | {"likelihood": "mixed", "columns": told}

    @classmethod
    def from_settings(cls, **settings: Any) -> Self:
        """Build a configuration, with every fault said in one line.

        Raises:
            InputError: if a field is unknown or its value out of range.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise _input_error(error) from None

    @classmethod
    def from_layers(cls, *layers: Mapping[str, Any]) -> Self:
        """Build a configuration of several layers of settings, each of which wins over those before it.

        Raises:
            InputError: as ``from_settings`` does.
        """
        return cls.from_settings(**{name: value for layer in layers for name, value in layer.items()})

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """The settings in a JSON file: a plain object of fields, or the ``config.json`` of a run.

        Raises:
            InputError: if there is no such file or it holds no JSON object.
        """
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"a JSON file of settings at {path}", first_line(error), "copy config.json from a run and edit it"
            ) from None
        settings = content.get("config", content) if isinstance(content, dict) else content
        if not isinstance(settings, dict):
            raise InputError(f"a JSON object in {path}", type(settings).__name__, 'write {"model": "ss_vae", …}')
        return settings


def _input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return InputError("a setting that exists", repr(name), nearest(name, FitConfig.model_fields))
    default = FitConfig.model_fields[name].get_default()
    usable = _EXAMPLES.get(name, 10 if default is None else default)
    return InputError(
        f"{name.replace('_', ' ')} to be {wanted(e for e in error.errors() if e['loc'][0] == name)}",
        repr(first["input"]),
        f"leave out --{name.replace('_', '-')} or use {shown(usable)}, for example",
    )


_EXAMPLES: dict[str, object] = {
    "hidden": (256, 256),
    "columns": "'age=poisson;color=categorical'",
    "covariates": "age,sex",
}
