"""The formats of exported programs: how a part becomes bytes, and how these bytes run again.

The number of rows is free in each: ``torch.export`` is told so, and refuses a program that fixes it.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from pyro_vae.errors import InputError
from pyro_vae.export.parts import Part
from pyro_vae.files.bounded import first_line

RECORDED_ROWS = 5  # that a program is recorded with: a number that it has for nothing else
Program = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]


class Format(ABC):
    """A format of files."""

    suffix: str
    needs: tuple[str, ...] = ()  # packages of the extra of this format's name

    @abstractmethod
    def record(self, part: Part) -> bytes:
        """A part as the content of a file."""

    @abstractmethod
    def read(self, content: bytes, part: Part) -> Program:
        """What runs the content of a file, with nothing but it."""


class Torch(Format):
    """``torch.export``: read by ``torch.export.load``, with torch alone."""

    suffix = ".pt2"

    def record(self, part: Part) -> bytes:
        content = io.BytesIO()
        with _quietly():
            torch.export.save(recorded(part), content)
        return content.getvalue()

    def read(self, content: bytes, part: Part) -> Program:
        with _quietly():
            program = torch.export.load(io.BytesIO(content)).module()
        return lambda inputs: program(*inputs)


class Onnx(Format):
    """ONNX: read by ``onnxruntime`` and many others."""

    suffix = ".onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")

    def record(self, part: Part) -> bytes:
        names: dict[str, Any] = {"input_names": list(part.inputs), "output_names": list(part.outputs)}
        with _quietly():
            program = recorded(part)
            try:
                made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
            except Exception as error:  # of many kinds
                raise InputError(
                    f"operations that ONNX has, for the {type(part).__name__.lower()}",
                    _operation(error),
                    "use --to torch, or export another --part",
                ) from error
        assert made is not None
        content: bytes = made.model_proto.SerializeToString()
        return content

    def read(self, content: bytes, part: Part) -> Program:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        taken = {each.name for each in session.get_inputs()}

        def run(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
            given = {name: value.cpu().numpy() for name, value in zip(part.inputs, inputs, strict=True)}
            found = session.run(list(part.outputs), {name: value for name, value in given.items() if name in taken})
            return {name: torch.from_numpy(value) for name, value in zip(part.outputs, found, strict=True)}

        return run


FORMATS: Mapping[str, Format] = {"torch": Torch(), "onnx": Onnx()}


def recorded(part: Part) -> torch.export.ExportedProgram:
    """The program of a part, whose number of rows is free.

    Raises:
        InputError: if ``torch.export`` cannot record it, with what it says.
    """
    rows = torch.export.Dim("rows")
    inputs = tuple(value[:RECORDED_ROWS].contiguous() for value in part.inputs.values())
    free = {"inputs": tuple({0: rows} for _ in inputs)}
    try:
        with _len_left_free():
            program = torch.export.export(part, inputs, dynamic_shapes=free, strict=False)
            program = program.run_decompositions({})  # which drops what nothing depends on
    except InputError:
        raise
    except Exception as error:  # of many kinds: whatever the program does that has no graph
        raise InputError(
            f"a program that torch.export can record, for the {type(part).__name__.lower()}",
            _reason(error),
            "write it with operations of torch on tensors of any number of rows, or export another --part",
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # which has paths of this machine
    return program


@contextmanager
def _len_left_free() -> Iterator[None]:
    """Let ``len(x)`` be ``x.shape[0]``, which stays a symbol: Python itself makes a plain number of a length."""
    plain = builtins.len

    def free(value: Any) -> Any:
        return value.shape[0] if isinstance(value, FakeTensor) and value.dim() else plain(value)

    builtins.len = free
    try:
        yield
    finally:
        builtins.len = plain


def _fixes_rows(error: Exception) -> bool:
    return "Constraints violated" in str(error) or "specialized" in str(error)


def _reason(error: Exception) -> str:
    """What torch says, without the advice that follows it."""
    if _fixes_rows(error):
        return "one that fixes the number of rows, as range(len(x)) does"
    if "data-dependent" in str(error) or "GuardOnDataDependent" in type(error).__name__:
        return "one whose course depends on the values of tensors (an if, .item() or a loop over them)"
    return f"{type(error).__name__}: {first_line(error).strip()}"


def _operation(error: BaseException) -> str:
    """The operation that has no like in ONNX, or what was said."""
    while error.__cause__ is not None:
        error = error.__cause__
    found = re.search(r"aten[.:]+(\w+)", str(error))
    return f"{found[1]}, which it has not" if found else f"{type(error).__name__}: {first_line(error)}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporters tell their developers."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
