from __future__ import annotations

import torch

from flexgnn.core.plan.workspace import bytes_for_rows, measured_bytes


def test_the_peak_counts_what_lives_at_the_same_time() -> None:
    def work() -> None:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b * 2
        del b, c

    assert measured_bytes(work) == 2 * 4000


def test_views_and_in_place_operations_take_nothing() -> None:
    a = torch.zeros(1000)
    assert measured_bytes(lambda: a[10:].view(-1, 10).add_(1)) == 0


def test_backward_counts_too() -> None:
    layer = torch.nn.Linear(11, 13, bias=False)
    x = torch.zeros(7, 11, requires_grad=True)
    measured = measured_bytes(lambda: torch.autograd.grad(layer(x), [x, layer.weight], torch.ones(7, 13)))
    assert measured >= 4 * (7 * 13 + 7 * 11 + 11 * 13)


def test_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measured_bytes(lambda: torch.rand(5))
    assert torch.equal(torch.rand(1), expected)


def test_bytes_are_extrapolated_from_two_counts_of_rows() -> None:
    assert bytes_for_rows(lambda rows: 100 + 7 * rows, 1000) == 100 + 7000 + 1
