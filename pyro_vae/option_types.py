"""What a value has to be, as pydantic says it and as a person reads it.

The annotated types are for the fields of the configuration and for the options of registered things alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError


def _split_at_commas(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


def _none_if_said(value: Any) -> Any:
    return None if value == "none" else value


def _height_and_width(value: Any) -> Any:
    if not isinstance(value, str) or value == "none":
        return _none_if_said(value)
    if not (sides := re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)):
        raise PydanticCustomError("size", "one side, such as 64, or height x width, such as 56x46")
    return int(sides[1]), int(sides[2] or sides[1])


LARGEST_SEED = 2**62  # a generator takes 64 bits, and some seeds are this one with a little added
Name = Annotated[str, StringConstraints(min_length=1)]
Whole = Annotated[int, Field(ge=1)]
Wholes = Annotated[tuple[Whole, ...], Field(min_length=1), BeforeValidator(_split_at_commas)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
WholeOrNone = Annotated[Whole | None, BeforeValidator(_none_if_said)]
NameOrNone = Annotated[Name | None, BeforeValidator(_none_if_said)]
SizeOrNone = Annotated[tuple[int, int] | None, BeforeValidator(_height_and_width)]


def wanted(errors: Iterable[Mapping[str, Any]]) -> str:
    """The value that was wanted, from pydantic's errors about another.

    Example:
        >>> from pydantic import TypeAdapter, ValidationError
        >>> from pyro_vae.option_types import Whole, wanted
        >>> try:
        ...     TypeAdapter(Whole).validate_python("0")
        ... except ValidationError as error:
        ...     print(wanted(error.errors()))
        at least 1
    """
    found = list(dict.fromkeys(filter(None, map(_wanted, errors))))
    if len(found) > 1 and _EMPTY in found:  # what is left of a list when its faulty items are gone
        found.remove(_EMPTY)
    return " or ".join(found)


_EMPTY = "at least one value"


def _wanted(error: Mapping[str, Any]) -> str:
    kind, context, message = error["type"], error.get("ctx", {}), error["msg"]
    if kind.startswith("int"):
        return "a whole number"
    if kind.startswith("bool"):
        return "true or false"
    if kind in ("float_type", "float_parsing", "finite_number"):
        return "a number"
    if kind == "string_type":  # the text form of beta, which a number never is
        return ""
    words = {
        "greater_than_equal": "at least {ge:g}",
        "greater_than": "more than {gt:g}",
        "less_than": "less than {lt:g}",
        "less_than_equal": "at most {le:g}",
        "literal_error": "{expected}",
    }
    if kind in words:
        return words[kind].format(**context)
    return _EMPTY if kind == "too_short" else message[0].lower() + message[1:]


def shown(value: object) -> str:
    """The text by which a value is typed: 256,256 for a tuple, true for a truth, none for None.

    Example:
        >>> from pyro_vae.option_types import shown
        >>> shown((256, 256)), shown(True), shown(None)
        ('256,256', 'true', 'none')
    """
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool | None) else str(value)
