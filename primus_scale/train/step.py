"""One training step, with the encoder run over the batch at once or in several passes.

The contrastive loss of a batch is not the sum of the losses of its chunks: each chunk would have
only its own negatives. So with more than one chunk (``train.accumulation``) the step does what
GradCache does (arXiv 2101.06983):

1. embed all chunks without a graph;
2. compute the loss L of the whole global batch and its gradient g = dL/dz at the embeddings z;
3. embed each chunk again, with a graph, and differentiate sum(g * z), whose gradient in the weights
   is that of L.

This costs one more forward pass, and the gradient is exactly that of the whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from primus_scale.config import ObjectiveConfig
from primus_scale.distributed.collectives import sum_over_ranks
from primus_scale.encoders import Embeddings
from primus_scale.engine.engine import Engine
from primus_scale.objective.exchange import gather_batch
from primus_scale.objective.loss import LossOutput, primus_loss
from primus_scale.objective.model import ModelOutput
from primus_scale.objective.neighbours import PendingNeighbours, find_neighbours, support_entries
from primus_scale.sample import Batch
from primus_scale.support import Neighbours, SupportSet

# The squares of larger samples overflow float32. The loss may be finite all the same, after the
# normalisation, but its gradients are NaN. So the loss of a batch with such a sample counts as not
# finite.
LARGEST_SAMPLE = 1e18


@dataclass(frozen=True)
class StepResult:
    """The result of a step on this rank's rows; tensors carry no gradient.

    temperatures: by family of terms. views: embeddings of view 0 and view 1. neighbours: None
    without a support set. finite: whether the loss was finite on every rank. Where it was not, the
    step was skipped: weights and support set did not change. grad_norm: norm of the global gradient
    before clipping; NaN where the step was skipped.
    """

    loss: LossOutput
    temperatures: dict[str, torch.Tensor]
    views: tuple[Embeddings, Embeddings]
    neighbours: Neighbours | None
    finite: bool
    grad_norm: float


def train_step(
    engine: Engine,
    views: tuple[torch.Tensor, torch.Tensor],
    batch: Batch,
    support: SupportSet | None,
    objective: ObjectiveConfig,
    lr: float,
    pending: PendingNeighbours | None = None,
) -> StepResult:
    """Find neighbours, compute the loss, update the weights, add the batch to the support set.

    views: view 0 and view 1 of the rank's B rows, each ``(B, C, T)``. support: None where the
    objective has no neighbour term. lr: learning rate of the update. pending: see
    ``find_neighbours``. Every rank calls this at the same time. FloatingPointError as
    ``Engine.step``.
    """
    imu = torch.cat(views)
    encoding = OnePass(engine, imu) if engine.passes == 1 else SeveralPasses(engine, imu)
    view0, view1 = encoding.output.embeddings.chunk(2)
    temperatures = encoding.output.temperatures
    neighbours = None
    if support is not None:
        neighbours = find_neighbours(view0, batch, support, objective.neighbours, pending)
    gathered = gather_batch(view0, batch, neighbours, objective)
    loss = primus_loss(
        view0,
        view1,
        temperatures,
        batch,
        neighbours,
        objective,
        biases=encoding.output.biases,
        gathered=gathered,
    )
    overflows = imu.abs().amax() > LARGEST_SAMPLE
    loss = replace(loss, total=loss.total.masked_fill(overflows, math.nan))

    finite = _finite_on_all_ranks(loss.total)
    grad_norm = math.nan
    if finite:
        encoding.backward(loss.total)
        grad_norm = engine.step(lr)
        if support is not None:
            support.enqueue(support_entries(view0, batch, gathered))
    return StepResult(
        loss=loss,
        temperatures={name: value.detach() for name, value in temperatures.items()},
        views=(view0.map(torch.Tensor.detach), view1.map(torch.Tensor.detach)),
        neighbours=neighbours,
        finite=finite,
        grad_norm=grad_norm,
    )


class OnePass:
    """One forward pass over the batch. Its graph stays in memory until ``backward``."""

    def __init__(self, engine: Engine, imu: torch.Tensor) -> None:
        self._engine = engine
        self.output = engine(imu)

    def backward(self, loss: torch.Tensor) -> None:
        """Differentiate ``loss``, a function of ``output``, down to the weights."""
        self._engine.backward(loss)


class SeveralPasses:
    """The same output and gradient, with the graph of only one chunk in memory at a time."""

    def __init__(self, engine: Engine, imu: torch.Tensor) -> None:
        self._engine = engine
        # A chunk may hold rows of both views: the encoder treats each row by itself.
        self._chunks = imu.chunk(engine.passes)
        with torch.no_grad():
            outputs = [engine(chunk) for chunk in self._chunks]
        embeddings = Embeddings.cat([output.embeddings for output in outputs])
        _, temperatures, biases = outputs[0]
        self.output = ModelOutput(
            embeddings.map(_leaf),
            {name: _leaf(value) for name, value in temperatures.items()},
            {name: _leaf(value) for name, value in biases.items()},
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Differentiate ``loss``, a function of ``output``, down to the weights."""
        loss.backward()
        gradients = self.output.embeddings.map(_gradient).chunk(len(self._chunks))
        for chunk, gradient in zip(self._chunks, gradients, strict=True):
            output = self._engine(chunk)
            surrogate = _inner_product(output.embeddings.features, gradient.features)
            surrogate = surrogate + _inner_product(output.embeddings.ss, gradient.ss)
            if output.embeddings.near is not None and gradient.near is not None:
                surrogate = surrogate + _inner_product(output.embeddings.near, gradient.near)
            for modality, embedding in output.embeddings.mm.items():
                surrogate = surrogate + _inner_product(embedding, gradient.mm[modality])
            # Every pass computes the same temperatures and biases, so each gets a share of their
            # gradient.
            for name, temperature in output.temperatures.items():
                share = _gradient(self.output.temperatures[name]) / len(self._chunks)
                surrogate = surrogate + _inner_product(temperature, share)
            for name, bias in output.biases.items():
                share = _gradient(self.output.biases[name]) / len(self._chunks)
                surrogate = surrogate + _inner_product(bias, share)
            self._engine.backward(surrogate)


def _leaf(value: torch.Tensor) -> torch.Tensor:
    """A copy without graph, at which ``backward`` stops and leaves the gradient."""
    return value.detach().requires_grad_()


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    """The gradient that ``backward`` left; zeros where the loss does not use the tensor."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _inner_product(value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """sum(gradient * value): a scalar whose derivative in ``value`` is ``gradient``."""
    return (value.float() * gradient.float()).sum()


def _finite_on_all_ranks(loss: torch.Tensor) -> bool:
    """Whether the loss is finite on every rank, so that all ranks skip a step or none does."""
    return not bool(sum_over_ranks((~torch.isfinite(loss)).to(torch.float32)))
