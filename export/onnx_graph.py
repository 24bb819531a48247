"""A torch tower → an ONNX graph with a batch of any size, its L2 norm inside, and nothing of the machine that made it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import onnx_ir as ir
import torch
from onnx_ir.passes.common import NameFixPass
from torch import Tensor
from torch.export import Dim

from training.towers.tower import Tower

OUTPUT = "embedding"


def to_onnx(tower: Tower, example: Mapping[str, Tensor], limits: Mapping[str, int], *, version: int | None = None) -> ir.Model:
    """The graph of ``tower`` in eval mode; its weights are the tower's own, not copies.

    ``example``: batched inputs, every varying axis longer than 1 (torch would otherwise take it for constant).
    ``limits``: the largest size of each varying axis by its name in ``tower.inputs``. ``version``: of the operators (opset);
    default: the exporter's own.
    """
    axes = {name: Dim(name, min=1, max=limit) for name, limit in limits.items()}
    shapes = {i.name: {n: axes[axis] for n, axis in enumerate(i.shape) if isinstance(axis, str)} for i in tower.inputs}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            tower.eval(),
            (),
            kwargs=dict(example),
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=version,
            input_names=[i.name for i in tower.inputs],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None, "torch.onnx.export(dynamo=True) gives a program. This is a bug."
    model = program.model
    _forget_the_maker(model)
    return model


def opset(model: ir.Model) -> int:
    return model.opset_imports[""]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports progress on stdout, which belongs to results, and warns of its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _forget_the_maker(model: ir.Model) -> None:
    """Take out stack traces, which hold paths of this machine; and make names unique, as torch may call an inner value like the output."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None
            if value.name == OUTPUT and not value.is_graph_output():
                value.name = f"{OUTPUT}_inner"
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for part in (model, model.graph):
        part.metadata_props.clear()
        part.doc_string = None
    NameFixPass()(model)
