"""Files as nobody wrote them: good ones with bytes changed, cut, doubled, or put in each other's place."""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path

from hypothesis import strategies as st

VALUES = [None, True, -1, 0, 2**70, 1e308, "", "x" * 1000, "[red]", "../../etc/passwd", [], {}, [[]], "NaN"]
_ANY_VALUE = st.sampled_from(VALUES).map(copy.deepcopy)  # or a list that is put into itself would be no JSON


@st.composite
def bytes_changed(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes of a file changed, cut off, taken out or put in."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "drop", "insert", "double"])):
            case "flip" if changed:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if changed:
                changed[place] = draw(st.sampled_from([0, 255, 127, 128, 10, 44]))
            case "cut":
                del changed[place:]
            case "drop":
                del changed[place : place + draw(st.integers(1, 64))]
            case "insert":
                changed[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "double":
                changed[place:place] = changed[place : place + 512]
    return bytes(changed)


@st.composite
def json_changed(draw: st.DrawFn, content: bytes) -> bytes:
    """A value of a JSON file replaced, or a name taken out or put in, so that it stays JSON."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        place = value
        for _ in range(draw(st.integers(0, 3))):
            inner = [
                each
                for each in (place.values() if isinstance(place, dict) else place)
                if isinstance(each, dict | list) and each
            ]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            continue
        key = draw(st.sampled_from(keys))
        match draw(st.sampled_from(["replace", "replace", "drop", "add"])):
            case "replace":
                place[key] = draw(st.one_of(_ANY_VALUE, st.text(max_size=5), st.integers(), st.floats()))
            case "drop":
                del place[key]
            case "add" if isinstance(place, dict):
                place[draw(st.text(max_size=5))] = draw(_ANY_VALUE)
    return json.dumps(value).encode()


def changed(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """A file that is not what it was."""
    kinds = [bytes_changed(content), st.binary(max_size=64)]
    if name.endswith(".json"):
        kinds.append(json_changed(content))
    return st.one_of(*kinds)


def kinds_of(run: Path) -> dict[str, tuple[Path, list[list[str]]]]:
    """A file of each kind, and the commands that open it."""

    def first(pattern: str) -> Path:
        return min(run.rglob(pattern))

    info, evaluate = ["info", "run"], ["evaluate", "run", "--samples", "2"]
    resume = ["fit", "--resume", "run", "--epochs", "3"]
    return {
        "config": (run / "config.json", [info, ["info", "run", "--json"], evaluate, resume]),
        "pointer": (run / "checkpoints/current.json", [info, resume]),
        "history": (run / "history.csv", [info, resume]),
        "evaluation": (run / "evaluation.json", [info, ["info", "run", "--json"]]),
        "weights": (first("*.safetensors"), [info, evaluate, resume]),
        "training": (first("*.pt"), [resume]),
        "frame": (first("frames/*.png"), [["animate", "run"]]),
    }


def data_kinds(folder: Path) -> dict[str, Path]:
    """Files of data, of each kind that ``--data`` reads."""
    return {"npz": folder / "toy.npz", "npy": folder / "toy.npy", "csv": folder / "toy.csv"}


def mend_checksums(run: Path) -> None:
    """Have the pointer of a run name the checksums that its files have, as somebody would who means harm."""
    path = run / "checkpoints/current.json"
    pointer = json.loads(path.read_text())
    for saved in (pointer["last"], pointer["best"]):
        for kind in ("weights", "training"):
            if saved[kind]:
                saved[f"{kind}_crc32"] = zlib.crc32((path.parent / saved[kind]).read_bytes())
    path.write_text(json.dumps(pointer))
