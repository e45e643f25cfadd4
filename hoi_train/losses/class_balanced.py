"""Class-balanced losses: weights by the inverse effective number of samples."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import sigmoid_focal
from hoi_train.losses.sigmoid import multi_hot, over_classes
from hoi_train.losses.weights import ClassWeighting, Epoch

Beta = Annotated[float, Ge(0), Lt(1)]
CountFloor = Annotated[int, Ge(1)] | None


class CBCrossEntropy(CrossEntropy):
    """Weight softmax cross-entropy by the effective number of samples: ``loss_i = -w_{y_i} log softmax(z_i)[y_i]``.

    ``w_c = (1 - beta) / (1 - beta^n_c)``, scaled to sum to C; the mean over samples, not over weights.
    Source: Cui et al., CVPR 2019, section 4.1 and the authors' ``cifar_main.py``, which has no count floor: there a
    class without samples makes every weight 0 or nan. The CDB code's ``CB_CE`` is the same with ``beta = 0.9``.

    Args:
        class_counts: of the training split, single-label.
        beta: 0 <= beta < 1; the paper tries 0.9, 0.99, 0.999 and 0.9999, its scripts use the last.
        count_floor: lower bound of the counts; without it a class without samples has weight 1 and no effect on others.
        from_epoch: first epoch, from 0, with weights other than 1 (DRW).

    >>> CBCrossEntropy(ClassCounts.single([600, 30, 1]), beta=0.9).class_weights().round(decimals=3)
    tensor([0.2490, 0.2600, 2.4910], dtype=torch.float64)
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        beta: Beta = 0.9999,
        count_floor: CountFloor = None,
        from_epoch: Epoch = 0,
    ) -> None:
        super().__init__(
            class_counts,
            weights=ClassWeighting("effective", beta=beta, count_floor=count_floor, from_epoch=from_epoch),
        )


class CBFocal(Loss):
    r"""Weight the sigmoid focal loss by the effective number of samples.

    ``f_ic = -(1 - p_ic)^gamma log p_ic`` with ``p = sigmoid(z)`` where the label holds and ``1 - sigmoid(z)`` where
    not; ``w_c = (1 - beta) / (1 - beta^n_c)``, scaled to sum to C. ``gamma = 0`` is class-balanced BCE.

    - Single-label: ``loss_i = w_{y_i} sum_c f_ic``. A row's negatives have the weight of its true class; the sum over
      classes, then the mean over samples (Cui et al., CVPR 2019, sections 4.2 and 4.3, and ``cifar_main.py``).
    - Multi-label: ``loss_i = mean_c w_c f_ic``. A column's negatives have the weight of the column's class; the mean
      over N x C (Ni et al., gaze transformer for VidHOI, whose ``pos_weight`` also applies to negatives). A row without
      labels counts like any other; CB's code would drop it. VidHOI's code adds the means over the classes of its two
      heads; here it is one mean over all classes, also with the head ``split``.

    Both released codes overflow in the modulator for large logits, see ``Focal``. CB's code starts the last layer's
    bias at ``-log(C - 1)`` and does not decay it. The CDB code's ``CB_Focal`` is not this loss but softmax focal:
    ``{name: focal, detach_modulator: true, weights: {scheme: effective, beta: 0.9}}``.

    Args:
        class_counts: of the training split.
        gamma: >= 0. VidHOI's configuration has 0.5; CB's search covers 0.5, 1 and 2.
        beta: 0 <= beta < 1.
        count_floor: lower bound of the counts, 5 in VidHOI's code; without it a class without samples has weight 1 and
            no effect on others.
        from_epoch: first epoch, from 0, with weights other than 1 (DRW).

    >>> import torch
    >>> loss = CBFocal(ClassCounts.multi([600, 1], num_samples=900), beta=0.9)
    >>> loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])) / loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """

    labels = frozenset({"single", "multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma: Annotated[float, Ge(0)] = 0.5,
        beta: Beta = 0.9999,
        count_floor: CountFloor = None,
        from_epoch: Epoch = 0,
    ) -> None:
        super().__init__(
            class_counts,
            weights=ClassWeighting("effective", beta=beta, count_floor=count_floor, from_epoch=from_epoch),
        )
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum (single-label) or the mean (multi-label) over classes of the weighted terms, ``[N]``."""
        terms = sigmoid_focal(logits, multi_hot(target, logits), self.gamma)
        return over_classes(self.weigh(terms, target), target)
