"""Replaying CUDA graphs: what surrounds the graph, on a stand-in for it, and all of it where there is a GPU."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from pyro_vae.compiled import lowering
from pyro_vae.compiled.cuda import CudaReplay, uses_cuda
from pyro_vae.config import TrainingConfig
from pyro_vae.data import Batches, Images
from pyro_vae.runs.display import listening
from pyro_vae.training import Trainer
from tests.conftest import make_pair

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Stream:
    def wait_stream(self, other):
        pass


class Graph:
    """What a CUDA graph does: it repeats what was run on the same memory, and writes the same results."""

    def __init__(self):
        self.runs = []

    def replay(self):
        for run, inputs, results in self.runs:
            for result, value in zip(results, run(inputs), strict=True):
                result.copy_(value)


@pytest.fixture
def stand_in(monkeypatch):
    """Stands in for torch's CUDA graphs; gives what makes a function one that can be captured."""
    capturing = []

    @contextmanager
    def graph(graph, stream):
        capturing.append(graph)
        yield
        capturing.pop()

    def capturable(run):
        def wrapped(inputs):
            if not capturing:
                return run(inputs)
            results = tuple(torch.empty_like(value) for value in shapes(run, inputs))
            capturing[-1].runs.append((run, inputs, results))
            return results

        return wrapped

    for name, value in {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return capturable


def shapes(run, inputs):
    """The results of a run that leaves nothing behind: a capture runs nothing."""
    before = [value.detach().clone() for value in inputs]
    with torch.random.fork_rng():
        results = run(inputs)
    with torch.no_grad():
        for value, kept in zip(inputs, before, strict=True):
            value.copy_(kept)
    return results


def add(inputs):
    total, row = inputs
    total.add_(row)
    return (total * 2,)


def test_state_is_changed_where_it_is_and_the_rest_is_copied(stand_in):
    total, row = torch.zeros(3), torch.ones(3)
    replayed = CudaReplay(stand_in(add), [total, row], [total])
    total.zero_()  # of the runs before the capture
    (first,) = replayed([total, torch.tensor([1.0, 2.0, 3.0])])
    (second,) = replayed([total, torch.tensor([10.0, 10.0, 10.0])])
    assert total.tolist() == [11, 12, 13]
    assert row.tolist() == [1, 1, 1]
    assert first.tolist() == [2, 4, 6]  # the second call has not written over it
    assert second.tolist() == [22, 24, 26]


def test_a_copied_input_may_be_a_parameter(stand_in):
    parameter = torch.ones(2, requires_grad=True)
    replayed = CudaReplay(stand_in(lambda inputs: (inputs[0] * 3,)), [parameter])
    with torch.no_grad():
        parameter.fill_(2)
    (result,) = replayed([parameter])
    assert result.tolist() == [6, 6]
    assert not result.requires_grad


def test_a_tensor_on_the_cpu_keeps_a_program_from_being_captured():
    on_meta = torch.zeros(2, device="meta")
    assert not uses_cuda([torch.zeros(2)])
    assert not uses_cuda([on_meta])


def trained(compiled="on", capture=None, monkeypatch=None, device="cpu"):
    torch.manual_seed(0)
    pair = make_pair("vae")
    for module in pair.modules().values():
        module.to(device)
    images = Images((torch.rand(60, 1, 4, 4) < 0.5).float()).to(device)
    probed = pair.probe(images.pixels[:2])
    config = TrainingConfig(epochs=3, lr=0.01, batch_size=10, compile=compiled, lr_schedule="cosine")
    trainer = Trainer(probed, Batches(images, torch.arange(0), 10, "none", seed=0), images, config)
    torch.manual_seed(9)
    notes: list[str] = []
    with listening(notes.append):
        rows = list(trainer.epochs())
    return [row["train_loss"] for row in rows], notes


@pytest.mark.usefixtures("graph")
def test_a_replayed_training_is_the_compiled_one(stand_in, monkeypatch):
    """Learning rate, rows, moments and noise of every step: none of them is a constant of the graph."""
    expected, _ = trained()
    compile_recording = lowering.compile_recording
    monkeypatch.setattr(lowering, "uses_cuda", lambda tensors: True)
    monkeypatch.setattr(lowering, "compile_recording", lambda *given: stand_in(compile_recording(*given)))
    replayed, notes = trained()
    assert replayed == pytest.approx(expected, rel=1e-6)
    assert not any("one by one" in line for line in notes)


@pytest.mark.usefixtures("graph")
def test_what_cannot_be_captured_is_said_and_runs_compiled(stand_in, monkeypatch):
    expected, _ = trained()

    def refuse(*given):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(lowering, "uses_cuda", lambda tensors: True)
    monkeypatch.setattr(lowering, "CudaReplay", refuse)
    losses, notes = trained()
    assert losses == pytest.approx(expected, rel=1e-6)
    said = "no CUDA graph, kernels are launched one by one: operation not permitted when stream is capturing"
    assert said in notes


@needs_gpu
def test_a_gpu_replays_what_it_would_compute_one_by_one(monkeypatch):
    replayed, notes = trained(device="cuda")
    assert not any("one by one" in line for line in notes)
    monkeypatch.setattr(lowering, "uses_cuda", lambda tensors: False)
    launched, _ = trained(device="cuda")
    assert replayed == pytest.approx(launched, rel=1e-5)
    eager, _ = trained(compiled="off", device="cuda")
    assert replayed[-1] == pytest.approx(eager[-1], rel=0.05)  # other noise
