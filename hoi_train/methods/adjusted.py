"""Classifiers set without training, after plain training of the network.

The last epoch of the run does not train: it sets the classifier and is validated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hoi_train.core.records import Split, Task
from hoi_train.losses.logit_adjustment import logit_shift
from hoi_train.methods.fit import Context, Features, Fit
from hoi_train.metrics import task_stats
from hoi_train.models.heads import LinearHead
from hoi_train.models.nearest_mean import Distance, FeatureKind, NearestMean
from hoi_train.models.recognizer import Recognizer

SWEEP = tuple(step / 10 for step in range(21))
"""The authors' values of tau."""


class Adjusted(Fit, ABC):
    """Plain training up to the last epoch, which only adjusts the classifier.

    Args:
        context: the run.

    Raises:
        ValueError: the run has only one epoch.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if context.epochs < 2:
            raise ValueError("training.epochs must be at least 2: the last one sets the classifier and trains nothing")
        self.last = context.epochs - 1

    def stages(self) -> tuple[int, ...]:
        """Return the first and the last epoch."""
        return (0, self.last)

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Adjust the classifier of the trained network."""
        if stage == 1:
            self.adjust(model, features)

    def sampler(self, epoch: int) -> Tensor | None:
        """Draw by the run's rule, and nothing in the last epoch."""
        if epoch < self.last:
            return self.draw(self.context.sampling, epoch, 0, self.last)
        return torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def adjust(self, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Set the classifier."""


class TauNorm(Adjusted):
    r"""Normalise the class vectors of a linear classifier, ``w_c / |w_c|^tau``, and drop the bias.

    Vectors of frequent classes are longer. ``tau = 0`` only drops the bias; with 1 all vectors have length 1.
    Source: Kang et al., ICLR 2020, section 4 and the released ``tau_norm.py``, which tries the values 0, 0.1 … 2 on a
    given split without a rule of choice. Here the highest mean recall over classes on the validation split decides,
    with ties for the smallest tau. Each task has its own tau, stored in the checkpoint and in the log's event
    ``stage``.

    For single-label tasks. A factor per class changes neither a multi-label task's average precision, which ranks
    samples within a class, nor, without bias, the sign of a logit: its heads are not changed.

    Args:
        context: the run.
        tau: >= 0, or ``validation`` to choose it on the validation split.

    Raises:
        ValueError: no task is single-label, a head is not linear, or the validation split is missing.
    """

    def __init__(
        self, context: Context, *, tau: Annotated[float, Ge(0)] | Literal["validation"] = "validation"
    ) -> None:
        super().__init__(context)
        self.tasks = single_label_tasks(context)
        self.fixed = None if tau == "validation" else float(tau)
        if self.fixed is None and "val" not in context.data.labels:
            raise ValueError("tau: 'validation' needs clips in the split 'val', and there are none; give tau a number")
        self.chosen: dict[str, float] = {}

    def adapt(self, model: Recognizer) -> None:
        """Check the heads."""
        for task in self.tasks:
            linear_layer(model, task)

    def adjust(self, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Choose tau and normalise the class vectors."""
        validation = features("val") if self.fixed is None else None
        for name, task in self.tasks.items():
            linear = linear_layer(model, name)
            if validation is None:
                self.chosen[name] = cast(float, self.fixed)
            else:
                self.chosen[name] = best_tau(linear.weight, validation.features, validation.targets[name], task)
            normalise(linear, self.chosen[name])

    def describe(self) -> dict[str, Any]:
        """Return the chosen tau of each task."""
        return {"tau": dict(self.chosen)} if self.chosen else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the tau of each task."""
        return {"tau": dict(self.chosen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        self.chosen = dict(state["tau"])


class NCM(Adjusted):
    """Replace the classifier of each single-label task by the nearest class mean of the training features (NCM).

    Source: Kang et al., ICLR 2020, section 4; for formulas see ``NearestMean``. Heads of multi-label tasks are not
    changed: nearness to one mean does not exclude another label.

    Args:
        context: the run.
        features: preparation: ``un`` unchanged, ``l2n`` of length 1, ``cl2n`` centred and of length 1.
        distance: ``l2``, or ``cosine`` as in the released code, where the means are not normalised.

    Raises:
        ValueError: no task is single-label.
    """

    def __init__(self, context: Context, *, features: FeatureKind = "cl2n", distance: Distance = "l2") -> None:
        super().__init__(context)
        self.tasks = single_label_tasks(context)
        self.features, self.distance = features, distance

    def adapt(self, model: Recognizer) -> None:
        """Put nearest-mean classifiers around the heads."""
        width = model.num_features
        for name, task in self.tasks.items():
            model.heads[name] = NearestMean(
                model.heads[name], width, task.num_classes, features=self.features, distance=self.distance
            )

    def adjust(self, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Set the means from the training features."""
        train = features("train")
        for name in self.tasks:
            cast(NearestMean, model.heads[name]).fit(train.features, train.targets[name])


class PostHocLogitAdjustment(Adjusted):
    r"""Subtract the log-frequencies of the classes from the logits: ``z_c - tau log pi_c``, in the bias.

    ``pi_c`` is the share of training clips with class c (see ``logit_shift``, also for the multi-label form, which
    moves every class relative to the threshold and does not change average precision). It describes the training data
    only if ``data.sampling`` is ``instance`` and the loss has no class weights.
    Source: Menon et al., ICLR 2021, equation 9.

    Args:
        context: the run.
        tau: >= 0; 1 is consistent for the balanced error.

    Raises:
        ValueError: a head is not linear.
    """

    def __init__(self, context: Context, *, tau: Annotated[float, Ge(0)] = 1.0) -> None:
        super().__init__(context)
        self.tau = tau

    def adapt(self, model: Recognizer) -> None:
        """Check the heads."""
        for task in self.context.data.tasks:
            linear_layer(model, task)

    @torch.no_grad()
    def adjust(self, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Shift the biases."""
        for task, counts in self.context.data.counts["train"].items():
            bias = linear_layer(model, task).bias
            bias.sub_(logit_shift(counts, self.tau).to(bias.dtype).to(bias.device))


def single_label_tasks(context: Context) -> dict[str, Task]:
    """Return the run's single-label tasks; raises ``ValueError`` if there are none."""
    tasks = {name: task for name, task in context.data.tasks.items() if task.labels == "single"}
    if not tasks:
        raise ValueError(f"for single-label tasks only, and {', '.join(context.data.tasks)} is multi-label")
    return tasks


def linear_layer(model: Recognizer, task: str) -> nn.Linear:
    """Return the linear classifier of a task; raises ``ValueError`` for another head."""
    head = model.heads[task]
    if not isinstance(head, LinearHead):
        raise ValueError(f"changes class vectors and biases: tasks.{task}.head must be linear")
    return head.linear


@torch.no_grad()
def normalise(linear: nn.Linear, tau: float) -> None:
    """Divide each class vector by its length to the power ``tau`` and set the bias to 0, in place.

    A zero vector is not changed.

    >>> linear = nn.Linear(2, 1)
    >>> _ = linear.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> normalise(linear, tau=1.0)
    >>> linear.weight.tolist(), linear.bias.tolist()
    ([[0.6000000238418579, 0.800000011920929]], [0.0])
    """
    linear.weight.copy_(normalised(linear.weight, tau))
    linear.bias.zero_()


def normalised(weight: Tensor, tau: float) -> Tensor:
    """Return ``w_c / |w_c|^tau`` of the class vectors ``[C, F]``."""
    length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / torch.where(length == 0, 1.0, length) ** tau


@torch.no_grad()
def best_tau(weight: Tensor, features: Tensor, target: Tensor, task: Task) -> float:
    """Return the smallest tau of ``SWEEP`` with the highest mean recall over classes.

    Args:
        weight: class vectors ``[C, F]``.
        features: ``[N, F]``, N >= 1.
        target: class ids, int64 ``[N]``.
        task: the task of the classes.
    """
    weight, features = weight.cpu().double(), features.double()

    def recall(tau: float) -> float:
        logits = features @ normalised(weight, tau).T
        return task_stats(task, logits, target, groups={}, loss=0.0).scalars["recall_macro"]

    return max(SWEEP, key=recall)
