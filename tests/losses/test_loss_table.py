"""What every loss of the table must do, whatever its formula."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hoi_train.core.records import ClassCounts, LabelKind
from hoi_train.core.schema import EntryOf, build
from hoi_train.losses import LOSSES, Loss
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.equalization import EQL, EQLSoftmax
from hoi_train.losses.seesaw import Seesaw
from hoi_train.losses.weights import ClassWeighting
from tests.losses.loss_cases import ACROSS_SAMPLES, COUNTS, KINDS, batch, gradient, make, validation

every_loss = pytest.mark.parametrize(("name", "kind"), KINDS)
single_label = pytest.mark.parametrize("name", [name for name, kind in KINDS if kind == "single"])
multi_label = pytest.mark.parametrize("name", [name for name, kind in KINDS if kind == "multi"])


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_shape_and_type(name: str, kind: LabelKind, dtype: torch.dtype) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    losses = loss(logits.to(dtype), target)
    assert losses.shape == (5,)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.reduce(losses, target).shape == ()


@every_loss
def test_gradient_and_its_gradient(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind, num_samples=3)
    if isinstance(loss, Seesaw):
        loss.q = 0.0  # the compensation is made from the logits and yet a constant in the gradient, as published
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits)
    assert torch.autograd.gradcheck(lambda z: loss.reduce(loss(z, target), target), logits)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, target), logits)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_huge_logits(name: str, kind: LabelKind, dtype: torch.dtype) -> None:
    loss = make(name, kind)
    logits = 1e4 * torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=dtype)] * 4)
    for label in range(4):
        target = torch.full((81,), label) if kind == "single" else (torch.arange(4) == label).expand(81, 4).to(dtype)
        losses = loss(logits, target)
        assert losses.isfinite().all()
        all_equal = losses[40]  # a wrong answer this sure must cost far more than not knowing, and be able to learn
        assert losses.max() > 1000 * all_equal > 0
        assert gradient(loss, logits, target).isfinite().all()
        assert gradient(loss, logits[losses.argmax()][None], target[:1]).abs().max() > 0


@every_loss
def test_low_precision_logits_are_computed_in_float32(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind, num_samples=64)
    coarse = logits.bfloat16()
    exact = loss(coarse.double(), target)
    torch.testing.assert_close(loss(logits.float(), target).double(), loss(logits, target), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(loss(coarse, target).double(), exact, rtol=1e-5, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(coarse, target), loss(coarse.float(), target), rtol=0, atol=0)


def test_a_loss_never_runs_under_autocast() -> None:
    class Probe(CrossEntropy):
        def per_sample(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert not torch.is_autocast_enabled("cpu")
            return super().per_sample(logits, target)

    logits, target = batch("single")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Probe(COUNTS["single"])(logits, target).shape == (5,)


@multi_label
def test_the_precision_of_the_target_does_not_matter(name: str) -> None:
    loss, (logits, target) = make(name, "multi"), batch("multi")
    torch.testing.assert_close(loss(logits, target.float()), loss(logits, target), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), [each for each in KINDS if each[0] not in ACROSS_SAMPLES])
def test_one_sample_is_its_row_of_the_batch(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    rows = torch.cat([loss(logits[i : i + 1], target[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(rows, loss(logits, target), rtol=1e-12, atol=0)


@single_label
def test_a_task_of_one_class_has_finite_losses(name: str) -> None:
    loss = LOSSES[name](ClassCounts.single([3]))
    logits, target = batch("single", num_classes=1)
    assert loss(logits, target).isfinite().all()
    assert gradient(loss, logits, target).isfinite().all()


@every_loss
def test_no_samples_cost_nothing(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    assert loss(logits[:0], target[:0]).shape == (0,)
    assert loss.reduce(loss(logits[:0], target[:0]), target[:0]) == 0
    assert gradient(loss, logits[:0], target[:0]).shape == (0, 4)


@multi_label
def test_a_row_without_labels_still_teaches(name: str) -> None:
    loss, (logits, target) = make(name, "multi"), batch("multi")
    assert (target[1] == 0).all()
    assert loss(logits, target)[1] > 0
    taught = (target > 0).any(0) if name in ACROSS_SAMPLES else slice(None)  # a class needs a positive to compare with
    assert (gradient(loss, logits, target)[1, taught] > 0).all()


@every_loss
def test_the_example_has_a_class_without_samples(name: str, kind: LabelKind) -> None:
    assert 0 in COUNTS[kind].positives
    weights = make(name, kind).class_weights()
    if weights is not None:
        assert weights.dtype == torch.float64
        assert weights.shape == (4,)
        assert weights.isfinite().all()
        assert weights.sum() == pytest.approx(4, rel=1e-6)


@every_loss
def test_not_a_number_is_not_hidden(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    for column in range(4):
        broken = logits.clone()
        broken[2, column] = torch.nan
        found = loss(broken, target).isnan().tolist()
        assert found[2]
        assert sum(found) == 1 or name in ACROSS_SAMPLES
        assert loss.reduce(loss(broken, target), target).isnan()


@every_loss
def test_logits_that_do_not_fit_are_refused(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    for wrong in (logits[:, :3], logits[0], logits.long()):
        with pytest.raises(ValueError, match=r"logits must be floating \[N, 4\], got torch"):
            loss(wrong, target)


@every_loss
def test_targets_that_do_not_fit_are_refused(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    wanted = r"int64 \[N\]" if kind == "single" else r"floating \[N, 4\]"
    other_kind = batch("multi" if kind == "single" else "single")[1]
    for wrong in (target[:3], target.int(), other_kind):
        with pytest.raises(ValueError, match=rf"target must be {wanted} for N = 5, got torch"):
            loss(logits, wrong)


@single_label
@pytest.mark.parametrize("label", [-100, -1, 4])
def test_class_ids_out_of_range_are_refused(name: str, label: int) -> None:
    loss, (logits, target) = make(name, "single"), batch("single")
    target[3] = label
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(logits, target)


@pytest.mark.parametrize("name", LOSSES)
def test_a_task_of_the_other_kind_is_refused(name: str) -> None:
    for kind in {"single", "multi"} - LOSSES[name].labels:
        with pytest.raises(ValueError, match=f"-label tasks, this task is {kind}-label"):
            LOSSES[name](COUNTS[kind])


@every_loss
def test_state_survives_a_restart(name: str, kind: LabelKind) -> None:
    loss, (logits, target) = make(name, kind), batch(kind)
    other = ClassCounts((1, 1, 1, 1), 4, kind)
    restarted = LOSSES[name](other).eval()
    restarted.load_state_dict(loss.state_dict())
    torch.testing.assert_close(restarted(logits, target), loss(logits, target), rtol=0, atol=0)
    for each in (loss, restarted):
        each.after_validation(validation([0.8, torch.nan, 0.3, 0.1]))
    torch.testing.assert_close(restarted(logits, target), loss(logits, target), rtol=0, atol=0)


@every_loss
def test_state_has_no_float64(name: str, kind: LabelKind) -> None:
    # Apple's MPS refuses float64 tensors, and the loss moves to the device with the model.
    assert torch.float64 not in {value.dtype for value in make(name, kind).state_dict().values()}


@pytest.mark.parametrize("name", LOSSES)
def test_hyper_parameters_are_typed_documented_and_have_defaults(name: str) -> None:
    constructor = LOSSES[name].__init__
    hints = get_type_hints(constructor, include_extras=True)
    first, *hyper_parameters = list(inspect.signature(LOSSES[name]).parameters.values())
    assert first.name == "class_counts"
    text = inspect.getdoc(LOSSES[name]) or ""
    assert ">>>" in text
    for parameter in hyper_parameters:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n    {parameter.name}: " in text
        TypeAdapter(hints[parameter.name]).validate_python(parameter.default, strict=True)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("focal", "gamma", -0.1),
        ("focal", "alpha", 1.1),
        ("focal", "alpha", [0.5, -0.1]),
        ("focal", "alpha", "0.5"),
        ("cb_focal", "gamma", -1.0),
        ("cb_focal", "beta", 1.0),
        ("cb_focal", "count_floor", 0),
        ("cb_cross_entropy", "beta", -0.1),
        ("cb_cross_entropy", "count_floor", 0),
        ("cdb_ce", "tau", -1.0),
        ("cdb_ce", "tau", "dynamical"),
        ("cdb_ce", "tau_formula", "released"),
        ("cross_entropy", "reduction", "sum"),
        ("cross_entropy", "weights", {"scheme": "inverse", "power": 2}),
        ("bce", "weights", {"scheme": "effective", "beta": 1.0}),
        ("bce", "weights", {"scheme": "effective", "beta": "0.9"}),
        ("bce", "weights", {"scheme": "effective", "beta": False}),
        ("bce", "weights", {"scheme": "inverse", "count_floor": True}),
        ("bce", "weights", {"scheme": "inverse", "from_epoch": 2.0}),
        ("bce", "weights", {"scheme": "given", "values": ["1", 2, 1, 1]}),
        ("ghm", "bins", 0),
        ("ghm", "momentum", 1.0),
        ("ghm", "formula", "mmdet"),
        ("eql", "threshold", 1.5),
        ("eql", "gamma", -0.1),
        ("eql", "draw", "row"),
        ("eql_softmax", "gamma", 1.1),
        ("eql_v2", "gamma", 0.0),
        ("eql_v2", "alpha", -1.0),
        ("equalized_focal", "gamma", 0.0),
        ("equalized_focal", "alpha", 1.1),
        ("ldam", "max_margin", 0.0),
        ("ldam", "scale", 0.0),
        ("ldam", "count_floor", 0),
        ("ldam", "reduction", "sum"),
        ("logit_adjustment", "tau", -1.0),
        ("vs", "gamma", -0.1),
        ("vs", "tau", -0.1),
        ("asl", "gamma_neg", -1.0),
        ("asl", "clip", 1.0),
        ("asl", "eps", -1e-8),
        ("asl", "reduction", "weighted_mean"),
        ("distribution_balanced", "neg_scale", 0.0),
        ("distribution_balanced", "kappa", -0.1),
        ("two_way", "temperature_pos", 0.0),
        ("cdb_bce", "difficulty", "precision"),
        ("cdb_bce", "smoothing", -1.0),
        ("cdb_bce", "from_epoch", -1),
        ("cdb_ce", "momentum", 1.0),
        ("seesaw", "p", -0.1),
        ("seesaw", "eps", 0.0),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(name: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(EntryOf(LOSSES).type).validate_python({"name": name, key: value})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("focal", "alpha", [0.1, 0.2, 0.3, 0.4]),
        ("focal", "alpha", 0.25),
        ("bce", "weights", {"scheme": "given", "values": [1, 2, 0.5, 0.5]}),
        ("asl", "weights", {"scheme": "effective", "beta": 0.9, "place": "positives", "from_epoch": 2}),
        ("cdb_bce", "tau", 2),
    ],
)
def test_hyper_parameters_reach_the_loss_from_a_configuration(name: str, key: str, value: object) -> None:
    config = TypeAdapter(EntryOf(LOSSES).type).validate_python({"name": name, key: value})
    logits, target = batch("multi")
    assert build(config, LOSSES, COUNTS["multi"])(logits, target).isfinite().all()


@pytest.mark.parametrize(("name", "kind"), [("cross_entropy", "single"), ("bce", "multi"), ("focal", "multi")])
def test_weights_are_reachable_from_a_configuration(name: str, kind: LabelKind) -> None:
    hint = get_type_hints(LOSSES[name].__init__, include_extras=True)["weights"]
    weights = TypeAdapter(hint).validate_python({"scheme": "sqrt_inverse"})
    assert weights == ClassWeighting("sqrt_inverse")
    found = LOSSES[name](COUNTS[kind], weights=weights).class_weights()
    assert found is not None
    torch.testing.assert_close(found, weights.of(COUNTS[kind]), rtol=1e-7, atol=0)


@st.composite
def cases(draw: st.DrawFn, name: str, kind: LabelKind) -> tuple[Loss, torch.Tensor, torch.Tensor, list[int]]:
    """Draw a loss for any class counts, and any logits up to ±1e4 with any targets."""
    num_classes, num_samples = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    positives = draw(st.lists(st.integers(0, 10**6), min_size=num_classes, max_size=num_classes))
    number = st.floats(-1e4, 1e4)
    rows = st.lists(number, min_size=num_classes, max_size=num_classes)
    logits = torch.tensor(draw(st.lists(rows, min_size=num_samples, max_size=num_samples)), dtype=torch.float64)
    if kind == "single":
        loss = LOSSES[name](ClassCounts.single(positives))
        target = torch.tensor(
            draw(st.lists(st.integers(0, num_classes - 1), min_size=num_samples, max_size=num_samples))
        )
    else:
        loss = LOSSES[name](ClassCounts.multi(positives, 2 * 10**6))
        soft = st.lists(st.floats(0, 1), min_size=num_classes, max_size=num_classes)
        labels = draw(st.lists(soft, min_size=num_samples, max_size=num_samples))
        target = torch.tensor(labels, dtype=torch.float64)
    return loss, logits, target, positives


@every_loss
@given(st.data())
def test_losses_and_gradients_are_finite_and_losses_not_negative(
    name: str, kind: LabelKind, data: st.DataObject
) -> None:
    loss, logits, target, _ = data.draw(cases(name, kind))
    losses = loss(logits, target)
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert gradient(loss, logits, target).isfinite().all()


@every_loss
@given(st.data(), st.randoms(use_true_random=False))
def test_the_order_of_classes_does_not_matter(name: str, kind: LabelKind, data: st.DataObject, random) -> None:  # type: ignore[no-untyped-def]
    loss, logits, target, positives = data.draw(cases(name, kind))
    if isinstance(loss, EQL | EQLSoftmax):
        loss.eval()  # the draws of one order are not those of another
    order = list(range(len(positives)))
    random.shuffle(order)
    shuffled = [positives[i] for i in order]
    samples = sum(positives) if loss.kind == "single" else 2 * 10**6
    other = type(loss)(ClassCounts(tuple(shuffled), samples, loss.kind)).train(loss.training)
    moved = torch.tensor(order).argsort()[target] if loss.kind == "single" else target[:, order]
    torch.testing.assert_close(other(logits[:, order], moved), loss(logits, target), rtol=1e-6, atol=1e-9)
