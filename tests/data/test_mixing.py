"""Mixed clips and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from hoi_train.core.batches import ClipBatch, Mixture
from hoi_train.data.mixing import MIXING, CutMix, Mixup, _span


def batch(size: int = 6) -> ClipBatch:
    """Return clips of one brightness each: clip i is i * 40 everywhere."""
    video = (40 * torch.arange(size, dtype=torch.uint8)).view(-1, 1, 1, 1, 1).expand(size, 3, 2, 20, 10).contiguous()
    targets = {"verb": torch.arange(size), "noun": one_hot(torch.arange(size), size).float()}
    return ClipBatch(video, targets, torch.arange(size), tuple(map(str, range(size))))


def joint(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_mixup_adds_pixels_by_the_share() -> None:
    torch.manual_seed(1)
    mixed = Mixup(alpha=1.0)(batch(), joint())
    assert mixed.mixture is not None
    share, own = mixed.mixture.share, 40.0 * torch.arange(6)
    expected = share * own + (1 - share) * own[mixed.mixture.partners]
    assert 0.05 < share < 0.95
    torch.testing.assert_close(mixed.video[:, 0, 0, 0, 0].float(), expected, rtol=0, atol=0.5)
    assert mixed.video.dtype == torch.uint8


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_one_box_and_counts_its_area(seed: int) -> None:
    torch.manual_seed(seed)
    mixed = CutMix()(batch(), joint(seed))
    assert mixed.mixture is not None
    for i, partner in enumerate(mixed.mixture.partners.tolist()):
        if partner != i:
            kept = (mixed.video[i] == 40 * i).float().mean().item()
            assert kept == pytest.approx(mixed.mixture.share)
            assert set(mixed.video[i].unique().tolist()) <= {40 * i, 40 * partner}


@pytest.mark.parametrize("mixing", [Mixup(), CutMix()])
def test_all_ranks_mix_other_clips_by_the_same_share(mixing: Mixup | CutMix) -> None:
    torch.manual_seed(0)
    first, second = mixing(batch(30), joint()).mixture, mixing(batch(30), joint()).mixture
    assert first is not None
    assert second is not None
    assert first.share == second.share
    assert not torch.equal(first.partners, second.partners)


def test_a_blend_is_the_mean_by_shares() -> None:
    plain = replace(batch(2), targets={"verb": torch.tensor([0, 8])})
    mixed = replace(plain, mixture=Mixture(torch.tensor([1, 0]), 0.75))
    assert [(targets["verb"].tolist(), share) for targets, share in plain.shares] == [([0, 8], 1.0)]
    assert [(targets["verb"].tolist(), share) for targets, share in mixed.shares] == [([0, 8], 0.75), ([8, 0], 0.25)]
    assert plain.blend(lambda targets: targets["verb"].float()).tolist() == [0, 8]
    assert mixed.blend(lambda targets: targets["verb"].float()).tolist() == [2, 6]


def test_the_original_batch_is_left_alone() -> None:
    original = batch()
    before = original.video.clone()
    for mixing in (Mixup(), CutMix()):
        mixing(original, joint())
        assert torch.equal(original.video, before)
    assert MIXING["none"]()(original, joint()) is original


def test_the_loss_of_a_mixture_is_that_of_mixed_labels() -> None:
    torch.manual_seed(2)
    mixed = Mixup(alpha=1.0)(batch(), joint())
    assert mixed.mixture is not None
    logits, share = torch.randn(6, 6), mixed.mixture.share
    soft = share * mixed.targets["noun"] + (1 - share) * mixed.targets["noun"][mixed.mixture.partners]

    def multi(targets: Mapping[str, Tensor]) -> Tensor:
        return binary_cross_entropy_with_logits(logits, targets["noun"])

    def single(targets: Mapping[str, Tensor]) -> Tensor:
        return cross_entropy(logits, targets["verb"])

    torch.testing.assert_close(mixed.blend(multi), binary_cross_entropy_with_logits(logits, soft))
    torch.testing.assert_close(mixed.blend(single), cross_entropy(logits, soft))


def test_a_box_has_the_side_that_was_drawn_unless_the_border_cuts_it() -> None:
    spans = [_span(20, 0.5, joint(seed)) for seed in range(60)]
    assert {span.stop - span.start for span in spans if span.start > 0 and span.stop < 20} == {10}
    assert all(0 <= span.start < span.stop <= 20 for span in spans)
    assert any(span.start == 0 for span in spans)
    assert any(span.stop == 20 for span in spans)
