"""Outputs of a network for all nodes, in their original order: into memory, or into a file as they are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from flexgnn.core.graph.store import GraphStore
from flexgnn.core.runtime.events import Listener, PredictionsConverted, PredictionsSaved
from flexgnn.core.runtime.plan_making import Network
from flexgnn.core.runtime.prediction_files import PredictionFile
from flexgnn.core.runtime.running import Runner
from flexgnn.core.tier import Array


class Predictions:
    """What ``network`` puts out without dropout. Tiles come one after the other, in the store's order or against it."""

    def __init__(self, network: Network, store: GraphStore, runner: Runner, listener: Listener) -> None:
        self._network, self._store, self._runner, self._listener = network, store, runner, listener

    @property
    def shape(self) -> tuple[int, int]:
        """N x D."""
        program = self._network.program
        return self._store.info.num_nodes, program.widths[program.logits]

    def tensor(self) -> Tensor:
        """All of them (N x D float32)."""
        plan = self._network.ready_plan(self._runner, training=False)
        outputs = torch.empty(self.shape)

        def keep(position: int, tile: Tensor) -> None:
            outputs[torch.from_numpy(self._node_ids(position, tile))] = tile

        self._runner.run(plan, lambda executor: executor.evaluate(keep), self._listener)
        return outputs

    def save(self, file: PredictionFile) -> None:
        """Write them to ``file``; never more than a tile or a batch of rows is held.

        Raises:
            ConfigError: if the file system refuses.
        """
        plan, shape = self._network.ready_plan(self._runner, training=False), self.shape

        def converted(rows: int) -> None:
            self._listener(PredictionsConverted(rows=rows, num_rows=shape[0]))

        with file.written(shape, converted) as out:

            def keep(position: int, tile: Tensor) -> None:
                with file.telling_why():
                    out.write(self._node_ids(position, tile), tile.numpy())

            self._runner.run(plan, lambda executor: executor.evaluate(keep), self._listener)
        size_bytes = shape[0] * out.row_bytes
        self._listener(PredictionsSaved(path=str(file.path), num_rows=shape[0], width=shape[1], size_bytes=size_bytes))

    def _node_ids(self, position: int, tile: Tensor) -> Array:
        """The original ids of the nodes of a tile that begins at ``position``."""
        return self._store.read("node_ids", position, position + len(tile))
