"""Joint training: what F and G exchange, its gradient in closed form, and the loss by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks.encoder import encode_logs
from orchestrator.attacks.inverter import Inverter
from orchestrator.attacks.joint import Pair, objective
from orchestrator.config.attacks import Encoding, ZeroPolicy
from orchestrator.threat import released

LOGITS = torch.tensor([[1.0, 0.5, -1.0], [-2.0, 0.3, 3.0], [0.0, 4.0, 1.0]])


class Always(nn.Module):
    """Gives every row of its input the same output."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output.expand(len(inputs), *self.output.shape)


def pair(m: int, is_renormalised: bool = False, network: nn.Module | None = None, **settings: Any) -> Pair:
    """Return a pair around an encoder whose settings are those of a joint attack unless given."""
    given: dict[str, Any] = {
        "offset": 50.0,
        "offset_learnable": False,
        "zero_policy": "zero-after-log",
        "log_floor": -50.0,
    }
    return Pair(nn.Flatten(), Inverter(network or nn.Identity(), **(given | settings)), m, is_renormalised)


def attack(**changes: Any) -> config.JointAttack:
    return config.JointAttack(name="joint", model=config.Model(name="ami-digit"), **changes)


ENCODINGS: tuple[Encoding, ...] = ("log", "logit", "log-ratio")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp", "floor"])
@pytest.mark.parametrize("offset", [50.0, 1.0])  # of which the smaller one shifts rows
@pytest.mark.parametrize("is_renormalised", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_inverter_trains_on_what_is_released(
    m: int, is_renormalised: bool, offset: float, policy: ZeroPolicy, encoding: Encoding
) -> None:
    both = pair(m, is_renormalised, offset=offset, zero_policy=policy, encoding=encoding)
    scores = released(LOGITS.softmax(1), config.Release(truncation=m, renormalised=is_renormalised))
    torch.testing.assert_close(both.encode(LOGITS), both.inverter.encode(scores, m), atol=1e-5, rtol=1e-5)


def test_ties_are_kept_as_they_are_released() -> None:
    """The lower of two equal classes, whatever the logits of the others."""
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0]])
    both = pair(2)
    scores = released(logits.softmax(1), config.Release(truncation=2))
    assert both.encode(logits).nonzero().tolist() == [[0, 1], [0, 2]]
    torch.testing.assert_close(both.encode(logits), both.inverter.encode(scores, 2))


def test_renormalising_by_hand() -> None:
    """Scores 0.5, 0.3, 0.2 become 0.625 and 0.375."""
    logits = torch.tensor([[0.5, 0.2, 0.3]]).log() + 7.0
    expected = [[50 + math.log(0.625), 0.0, 50 + math.log(0.375)]]
    torch.testing.assert_close(pair(2, True).encode(logits), torch.tensor(expected))


def test_a_pair_gives_logits_and_reconstructions() -> None:
    both = pair(1, network=nn.Unflatten(1, (3, 1, 1)))
    logits, guesses = both(LOGITS[:, :, None, None])
    assert torch.equal(logits, LOGITS)
    assert torch.equal(guesses.flatten(1), both.encode(LOGITS))


def jacobian(both: Pair, logits: Tensor) -> Tensor:
    """Return dz/dlogits (k, k) of one row of logits (k,)."""
    found = torch.autograd.functional.jacobian(lambda row: both.encode(row[None])[0], logits)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_gradient_of_a_kept_score_reaches_every_logit(m: int) -> None:
    """dlog p_i / dlogit_j is [i = j] - p_j, and a dropped entry of z depends on nothing."""
    for logits in LOGITS.double():
        scores = logits.softmax(0)
        kept = scores >= scores.sort(descending=True).values[m - 1]
        expected = (torch.eye(3) - scores) * kept[:, None]
        torch.testing.assert_close(jacobian(pair(m), logits), expected)


@pytest.mark.parametrize("m", [2, 3])
def test_renormalised_scores_depend_on_the_kept_logits_only(m: int) -> None:
    logits = LOGITS[0].double()
    kept = torch.tensor([1.0, 1.0, float(m == 3)])
    shares = logits.exp() * kept / (logits.exp() * kept).sum()
    torch.testing.assert_close(jacobian(pair(m, True), logits), (torch.eye(3) - shares) * kept[:, None])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("is_renormalised", [False, True])
@pytest.mark.parametrize("offset", [50.0, 0.5])  # of which the smaller one shifts every row of log
@pytest.mark.parametrize("m", [2, 3])
def test_gradients_are_finite_differences(
    m: int, offset: float, is_renormalised: bool, encoding: Encoding
) -> None:
    both = pair(m, is_renormalised, offset=offset, encoding=encoding)
    assert torch.autograd.gradcheck(both.encode, LOGITS.double().requires_grad_())


def test_dropped_scores_pass_no_gradient_and_kept_ones_all_of_it() -> None:
    logs = LOGITS.log_softmax(1).requires_grad_()
    kept = torch.tensor([[True, True, False], [False, False, True], [True, True, True]])
    encode_logs(logs, kept, 50.0, "zero-after-log", -50.0).sum().backward()
    assert logs.grad is not None
    assert torch.equal(logs.grad, kept.float())


@pytest.mark.parametrize(("low", "passed"), [(-49.0, 1.0), (-51.0, 0.0), (-math.inf, 0.0)])
def test_logarithms_below_the_floor_are_clamped_and_pass_nothing(low: float, passed: float) -> None:
    logs = torch.tensor([[0.0, low]], requires_grad=True)
    z = encode_logs(logs, torch.ones(1, 2, dtype=torch.bool), 60.0, "zero-after-log", -50.0)
    torch.testing.assert_close(z, torch.tensor([[60.0, 60.0 + max(low, -50.0)]]))
    z.sum().backward()
    assert logs.grad is not None
    assert logs.grad.tolist() == [[1.0, passed]]


@pytest.mark.parametrize("is_renormalised", [False, True])
@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp", "floor"])
def test_vanishing_scores_have_finite_gradients(policy: ZeroPolicy, is_renormalised: bool) -> None:
    """Two of three scores vanish; the row of z that is left depends on logits by 1 - p and p, both 0 or 1."""
    logits = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    z = pair(3, is_renormalised, zero_policy=policy).encode(logits)
    lowest = {"zero-after-log": 0.0, "log-clamp": 0.0, "floor": 50 + math.log(1e-6)}[policy]
    torch.testing.assert_close(z, torch.tensor([[lowest, 50.0, lowest]]))
    (z * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("gap", [5.0, 15.0, 18.0, 30.0, 200.0])
@pytest.mark.parametrize("is_renormalised", [False, True])
@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp", "floor"])
@pytest.mark.parametrize("encoding", ["logit", "log-ratio"])
def test_gradients_of_our_encodings_stay_small_as_scores_go_to_0_and_1(
    encoding: Encoding, policy: ZeroPolicy, is_renormalised: bool, gap: float
) -> None:
    """The slope of a logit, 1 / p(1 - p), meets that of the softmax, p(1 - p): products stay near 1."""
    logits = torch.tensor([[0.0, gap, -gap]], requires_grad=True)
    z = pair(3, is_renormalised, zero_policy=policy, encoding=encoding).encode(logits)
    assert z.isfinite().all()
    (z * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 10


def test_only_scores_above_the_floor_move_the_logits() -> None:
    """The second score is e^-40, the third e^-60: only the second and the first pass gradients."""
    logits = torch.tensor([[0.0, -40.0, -60.0]], requires_grad=True)
    (pair(3).encode(logits) * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-2.0, 2.0, 0.0]]))


@pytest.mark.parametrize(("reduction", "factor"), [("mean", 1), ("sum", 12)])
@pytest.mark.parametrize("weight", [0.5, 1.0, 4.0])
def test_the_loss_by_hand(weight: float, reduction: str, factor: int) -> None:
    """Equal logits cost log 2; guesses are half a grey level range off, 0.25 a pixel, 12 pixels an image."""
    images, labels = torch.full((2, 3, 2, 2), 0.75), torch.tensor([0, 1])
    both = Pair(
        Always(torch.zeros(2)), pair(2, network=Always(torch.full((3, 2, 2), 0.25))).inverter, 2, False
    )
    joint = objective(attack(weight=weight, reduction=reduction), images[0].numel())
    total = math.log(2) + weight * factor * 0.25
    assert joint.loss(both, images, labels).item() == pytest.approx(total)
    sums = joint.sums(both, images, labels)
    assert sums == {"loss": pytest.approx(2 * math.log(2)), "accuracy": 1, "mse": pytest.approx(0.5)}
    means = {name: value / 2 for name, value in sums.items()}
    assert joint.selection_key(means) == (pytest.approx(total),)


def test_the_best_epoch_has_the_lowest_total_whatever_the_accuracy() -> None:
    light, heavy = (objective(attack(weight=weight), 4).selection_key for weight in (1.0, 10.0))
    accurate = {"loss": 0.5, "mse": 0.3, "accuracy": 0.9}
    likeness = {"loss": 0.9, "mse": 0.1, "accuracy": 0.5}
    assert light(accurate) < light(likeness)
    assert heavy(likeness) < heavy(accurate)


@pytest.mark.parametrize("weight", [0.5, 20.0])
@pytest.mark.parametrize("m", [1, 2])
def test_the_classifier_feels_the_reconstruction(m: int, weight: float) -> None:
    """One pixel x, logits l = W x, g = u . z: the gradient of the loss by l_j is p_j - [j = y] +
    2 lambda (g - x) sum over kept i of u_i ([i = j] - p_j), by W_j x times that; by u_i it is
    2 lambda (g - x) z_i."""
    x, label = 0.8, 1
    classifier, linear = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    classifier.weight = nn.Parameter(torch.tensor([[1.5], [0.5]]))
    linear.weight = nn.Parameter(torch.tensor([[0.01, 0.03]]))
    network = nn.Sequential(linear, nn.Unflatten(1, (1, 1, 1)))
    both = Pair(nn.Sequential(nn.Flatten(), classifier), pair(m, network=network).inverter, m, False)
    image = torch.full((1, 1, 1, 1), x)
    objective(attack(weight=weight), 1).loss(both, image, torch.tensor([label])).backward()
    scores = torch.tensor([1.5 * x, 0.5 * x]).softmax(0)
    kept = torch.tensor([1.0, float(m == 2)])
    z = (scores.log() + 50) * kept
    u = torch.tensor([0.01, 0.03])
    error = 2 * weight * ((u * z).sum() - x)
    by_logits = scores - torch.eye(2)[label] + error * (u * kept - scores * (u * kept).sum())
    torch.testing.assert_close(classifier.weight.grad, (by_logits * x)[:, None], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(linear.weight.grad, (error * z)[None], atol=1e-5, rtol=1e-4)
