from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from flexgnn.core.graph.layout import MULTI_CLASS, MULTI_LABEL
from flexgnn.core.program.criterion import default_loss, sum_without_choosing
from flexgnn.core.program.loss import TEST, TRAIN, VALIDATION, count_correct, tile_loss


def test_tiles_add_up_to_the_mean_over_training_nodes() -> None:
    logits = torch.randn(11, 5, requires_grad=True)
    labels, split = (
        torch.arange(11) % 5,
        torch.tensor([TRAIN, VALIDATION, TRAIN | TEST, 0, TRAIN, TEST] * 2)[:11].byte(),
    )
    chosen = (split & TRAIN) != 0
    whole = cross_entropy(logits[chosen], labels[chosen])
    (gradient,) = torch.autograd.grad(whole, logits)
    rows = (slice(0, 3), slice(3, 11))
    tiles = [tile_loss(logits[r], labels[r], split[r], default_loss(MULTI_CLASS), int(chosen.sum())) for r in rows]
    assert sum(float(tile.loss) for tile in tiles) == pytest.approx(float(whole.detach()), rel=1e-6)
    torch.testing.assert_close(torch.cat([tile.gradient for tile in tiles]), gradient)


def test_several_labels_a_node_take_binary_cross_entropy() -> None:
    logits = torch.randn(7, 3, requires_grad=True)
    labels, split = (torch.randn(7, 3) > 0).float(), torch.tensor([1, 1, 0, 1, 2, 4, 1]).byte()
    chosen = split == 1
    whole = binary_cross_entropy_with_logits(logits[chosen], labels[chosen])
    tile = tile_loss(logits, labels, split, default_loss(MULTI_LABEL), 4 * 3)
    assert float(tile.loss) == pytest.approx(float(whole.detach()), rel=1e-6)
    torch.testing.assert_close(tile.gradient, torch.autograd.grad(whole, logits)[0])


def test_a_tile_without_training_nodes_adds_nothing() -> None:
    tile = tile_loss(
        torch.randn(3, 2), torch.tensor([-1, -1, 0]), torch.tensor([0, 2, 4]).byte(), default_loss(MULTI_CLASS), 5
    )
    assert tile.loss == 0
    assert not tile.gradient.any()


@pytest.mark.parametrize("columns", [None, 3])
def test_on_a_device_all_rows_are_computed_and_the_chosen_ones_summed(columns: int | None) -> None:
    logits = torch.randn(7, 3, requires_grad=True)
    labels = torch.arange(7) % 3 if columns is None else torch.randn(7, columns)
    chosen = torch.tensor([1, 1, 0, 1, 0, 0, 1]).bool()
    labels[2], labels[4] = (99, -5) if columns is None else (torch.inf, torch.nan)

    def rows(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if columns is None:
            return cross_entropy(logits, labels, reduction="none")
        return (logits / labels).log1p()  # not a number, where both are zero

    expected = rows(logits[chosen], labels[chosen]).sum()
    found = sum_without_choosing(rows, 0, logits, labels, chosen)
    torch.testing.assert_close(found, expected, equal_nan=True)
    torch.testing.assert_close(*(torch.autograd.grad(s, logits)[0] for s in (found, expected)), equal_nan=True)
    assert sum_without_choosing(rows, 0, logits, labels, torch.zeros(7, dtype=torch.bool)) == 0


def test_right_decisions_are_counted_by_split() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    labels, split = torch.tensor([0, 1, 1, 1]), torch.tensor([1, 2, 4, 5]).byte()
    assert count_correct(logits, labels, split).tolist() == [2, 1, 1]
    several = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert count_correct(logits - 0.5, several, split).tolist() == [3, 2, 3]


def test_of_equal_logits_the_first_decides_and_an_undefined_one_is_never_right() -> None:
    logits = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, float("nan")], [float("nan"), 0.0]])
    labels, split = torch.tensor([0, 1, 0, 0]), torch.full((4,), TRAIN).byte()
    assert count_correct(logits, labels, split).tolist() == [1, 0, 0]
