from __future__ import annotations

import torch

from hoi_train.core.randomness import generator, seed_of


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_of(0, "augment", 3, "clip") == 90062639780382221


def test_addresses_do_not_run_into_each_other() -> None:
    addresses = [(0, "a"), (0, "b"), (1, "a"), ("0", "a"), (0, "a", 0), (10,), (1, 0), ("1", "0"), ("a,b",), ("a", "b")]
    assert len({seed_of(*address) for address in addresses}) == len(addresses)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "x"))
    assert torch.equal(before, torch.get_rng_state())
