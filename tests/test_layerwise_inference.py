"""Layer by layer over neighbourhoods, as PyG predicts on large graphs, beside predictions on the whole graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GraphSAGE
from torch_geometric.nn.models.basic_gnn import BasicGNN

from flexgnn import Trainer
from tests.graphs import relative_error, small_graph, store_of

BATCH = 16


def layerwise(model: BasicGNN, data: Data) -> Tensor:
    """What ``BasicGNN.inference`` does with a ``NeighborLoader`` of all neighbours.

    Each layer, for each batch of nodes, on the edges that lead into the batch and the nodes that they come from.
    """
    h = data.x
    for layer, conv in enumerate(model.convs):
        rows = []
        for batch in torch.arange(data.num_nodes).split(BATCH):
            edges = data.edge_index[:, torch.isin(data.edge_index[1], batch)]
            halo = edges[0][~torch.isin(edges[0], batch)].unique()
            nodes = torch.cat([batch, halo])
            place = torch.empty(data.num_nodes, dtype=torch.long)
            place[nodes] = torch.arange(len(nodes))
            rows.append(conv(h[nodes], place[edges])[: len(batch)])
        h = torch.cat(rows)
        if layer < len(model.convs) - 1:
            h = model.act(h)
    return h


@pytest.mark.parametrize(("model_class", "exact"), [(GraphSAGE, True), (GCN, False)])
def test_only_predictions_on_the_whole_graph_have_the_degrees_of_halos(
    model_class: type[BasicGNN], exact: bool, tmp_path: Path
) -> None:
    """GCN normalises by degrees. A neighbourhood has all edges of its batch, but not those of the halo around it."""
    data = small_graph(num_nodes=120, num_edges=900, directed=False)
    torch.manual_seed(0)
    model = model_class(5, 8, 3, 3)
    predicted = Trainer(model, store_of(data, tmp_path / "graph"), torch.optim.Adam(model.parameters())).predict()
    model.eval()
    with torch.no_grad():
        expected, approximate = model(data.x, data.edge_index), layerwise(model, data)
    assert relative_error(predicted, expected) < 1e-5
    error = relative_error(approximate, expected)
    assert error < 1e-5 if exact else error > 0.1
