"""Meta-Weight-Net: a small network, trained on a balanced set, maps a clip's loss to its weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn, optim
from torch.nn.functional import logsigmoid

from hoi_train.core.batches import ClipBatch
from hoi_train.core.randomness import seed_of
from hoi_train.core.ranks import of_all_ranks, of_this_rank
from hoi_train.methods.fit import Context, Step
from hoi_train.methods.lookahead import SampleLosses, inner_products, mean_gradient, pull_back, trainable
from hoi_train.methods.meta_set import Clips, MetaSplit, MetaWeighted

Form = Literal["class_imbalance", "label_noise"]


class MetaWeightNet(MetaWeighted):
    r"""Weight each clip by ``V(l_i)``, a network of the loss that is trained by a balanced meta batch in every step.

    With ``V = sigmoid(linear(relu(linear(l))))``, ``S = sum_i w_i l_i`` and ``L`` the mean loss of the meta batch::

        theta' = theta - lr grad S(theta),   V is trained by dL(theta') / dV,   loss = S with the new V

    Source: Shu et al., "Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting", NeurIPS 2019, equations 3
    to 5. ``lr`` is the step's learning rate; the inner step has neither momentum nor weight decay. The authors released
    two programs, whose differences ``form`` selects:

    - ``class_imbalance`` (``Meta-weight-net_class-imbalance``): ``w_i = V(l_i) / sum_j V(l_j)`` over the batch, and the
      inner gradient includes the input of V and the sum. V is trained by SGD, learning rate 1e-5, Nesterov momentum
      0.9, weight decay 5e-4. The default.
    - ``label_noise`` (``meta-weight-net``): ``w_i = V(l_i) / N``, the input of V is a constant. V is trained by Adam,
      learning rate 1e-3, weight decay 1e-4. Weights below 1 make the steps of the network smaller.

    In both forms ``theta'`` moves along ``sum_i c_i grad l_i`` with ``c = dS/dl``, a function of the losses and V only,
    and ``dL/dV = -lr sum_i <grad l_i, grad L(theta')> dc_i/dV``: only V needs second-order gradients, and one pass of
    forward differentiation gives the inner products (``lookahead``). The programs compute second-order gradients of the
    whole network; results are equal up to rounding.

    V's input is not scaled, so losses of another scale (``zlpr``, ``asl``) use another range of V. V is in float32 on
    the CPU, the same on all ranks, and trained by their joint batch; with ``training.accumulate`` by each part.

    Args:
        context: the run.
        per_class: clips per class in the meta set; 10 in the authors' CIFAR program.
        split: source of the meta set: ``val`` is disjoint from training, but validation is then no longer independent;
            ``train`` overlaps with training.
        task: task whose classes are balanced; the run's first by default.
        meta_batch_size: clips per meta batch and rank; by default that of training.
        form: the released program.
        hidden: units of V's hidden layer.
        lr: learning rate of V; by default that of the form.

    Raises:
        ValueError: see `MetaSet`.
    """

    def __init__(
        self,
        context: Context,
        *,
        per_class: Clips = 10,
        split: MetaSplit = "val",
        task: str | None = None,
        meta_batch_size: Clips | None = None,
        form: Form = "class_imbalance",
        hidden: Annotated[int, Ge(1)] = 100,
        lr: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__(context, per_class=per_class, split=split, task=task, meta_batch_size=meta_batch_size)
        self.form = form
        with torch.random.fork_rng([]):
            torch.manual_seed(seed_of(context.seed, "meta weight net"))
            self.net = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))  # and a sigmoid
        parameters = self.net.parameters()
        self.optimizer: optim.Optimizer = (
            optim.SGD(parameters, lr=lr or 1e-5, momentum=0.9, nesterov=True, weight_decay=5e-4)
            if form == "class_imbalance"
            else optim.Adam(parameters, lr=lr or 1e-3, weight_decay=1e-4)
        )

    def weights(self, batch: ClipBatch, meta: ClipBatch, step: Step) -> Tensor:
        """Train V and return this rank's weights, ``[N]``, by the new V."""
        now, at = trainable(step.network), SampleLosses(step, batch)
        mine, gradient = pull_back(at, now)
        losses = of_all_ranks(mine).to(next(self.net.parameters()))
        inner = gradient(of_this_rank(self.coefficients(losses).detach()))
        ahead = {name: value - step.lr * inner[name] for name, value in now.items()}
        direction = mean_gradient(SampleLosses(step, meta), ahead)
        self.learn(losses, of_all_ranks(inner_products(at, now, direction)).to(losses), step.lr)
        with torch.no_grad():
            return of_this_rank(self.weigh(losses)).to(mine)

    def weigh(self, losses: Tensor) -> Tensor:
        """Return the weights, ``[N]``, of the losses of all ranks, ``[N]``."""
        scores: Tensor = self.net(losses[:, None])[:, 0]
        if self.form == "label_noise":
            return scores.sigmoid() / len(losses)
        # sigmoid(s_i) / sum_j sigmoid(s_j), also if all of them round to 0, and without the gradient of a small sum.
        return logsigmoid(scores).softmax(0)

    def coefficients(self, losses: Tensor) -> Tensor:
        """Return ``c = dS/dl``, ``[N]``, with a graph to V."""
        if self.form == "label_noise":
            return self.weigh(losses)
        inputs = losses.detach().requires_grad_()
        (found,) = torch.autograd.grad((self.weigh(inputs) * inputs).sum(), inputs, create_graph=True)
        return found

    def learn(self, losses: Tensor, products: Tensor, lr: float) -> None:
        """Run one step of V's optimizer.

        Args:
            losses: ``[N]``, of all ranks.
            products: ``<grad l_i, grad L(theta')>`` of each.
            lr: of the inner step.
        """
        self.optimizer.zero_grad()
        (-lr * (products * self.coefficients(losses)).sum()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of V and its optimizer."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
