from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pyro_vae
from pyro_vae.config import TrainingConfig
from pyro_vae.data.batches import Batch, Rows
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.training.loss import CONFIDENCE_THRESHOLD, StepLoss
from pyro_vae.training.marginal import DECAY, MeanAnswer
from tests.conftest import EVENT_SHAPE, make_pair


def loss_of(pair, fraction, augment=None, mean_answer=None, **weights):
    config = TrainingConfig(**({"classification_weight": 0, "consistency_weight": 0} | weights))
    objective = OBJECTIVES["elbo"](pair.probe(torch.zeros(2, *EVENT_SHAPE)))
    return StepLoss(objective, fraction, config, augment, mean_answer=mean_answer)


def seeded(function, *arguments, **named):
    torch.manual_seed(7)
    return function(*arguments, **named).item()


def test_rows_are_weighted_to_the_nats_per_datum_of_the_whole_set(x, y):
    pair = make_pair("ss_vae")
    labelled, unlabelled = Rows(x[:2], x[:2], y[:2]), Rows(x, x)
    objective = OBJECTIVES["elbo"](pair.probe(x))
    both = seeded(loss_of(pair, 0.1), Batch(unlabelled, labelled), 1.0)
    torch.manual_seed(7)
    by_hand = 0.9 * objective(x) + 0.1 * objective(x[:2], y[:2])
    assert both == pytest.approx(by_hand.item(), rel=1e-6)
    assert seeded(loss_of(pair, 0.0), Batch(unlabelled, None), 1.0) == pytest.approx(seeded(objective, x), rel=1e-6)
    assert seeded(loss_of(pair, 1.0), Batch(None, labelled), 1.0) == pytest.approx(
        seeded(objective, x[:2], y[:2]), rel=1e-6
    )


def test_the_weighted_loss_is_unbiased_for_the_whole_set():
    """Over all ways to draw one labelled and one unlabelled row, the mean loss is that of the whole set."""
    pair = make_pair("vae")
    x = (torch.rand(5, 1, 4, 4) < 0.5).float()
    with torch.no_grad():
        pair.guide.conditionals["z"].family.log_scale.bias.fill_(-40.0)  # a guide without noise
    objective = OBJECTIVES["elbo"](pair.probe(x))
    per_row = [objective(row.unsqueeze(0)).item() for row in x]
    step = loss_of(pair, 2 / 5)
    losses = [
        step(Batch(Rows(x[[u]], x[[u]]), Rows(x[[l]], x[[l]], torch.zeros(1))), 1.0).item()
        for u in (2, 3, 4)
        for l in (0, 1)  # noqa: E741
    ]
    assert sum(losses) / len(losses) == pytest.approx(sum(per_row) / 5, rel=1e-5)


def test_classification_term_by_hand(x, y):
    pair = make_pair("ss_vae")
    batch = Batch(None, Rows(x, 0.5 * x, y))
    without, with_term = (seeded(loss_of(pair, 1.0, classification_weight=w), batch, 1.0) for w in (0, 3))
    q = pair.guide.conditionals["y"](0.5 * x).probs  # of the pixels as they are, not of the binarized ones
    by_hand = -q[torch.arange(7), y].log().mean()
    assert with_term - without == pytest.approx(3 * by_hand.item(), rel=1e-4)


def test_classification_reaches_the_classifier_alone(x, y):
    pair = make_pair("ss_vae")
    (term,) = loss_of(pair, 1.0, classification_weight=1).label_terms(Rows(x, x, y), None)
    term.backward()
    for role, module in pair.modules().items():
        for name, parameter in module.named_parameters():
            touched = parameter.grad is not None and parameter.grad.abs().sum() > 0
            assert touched == (role == "guide" and name.startswith("conditionals.y.")), name


def test_consistency_counts_the_sure_rows_and_stops_the_target(x, y):
    pair = make_pair("ss_vae")
    pair.probe(x)
    with torch.no_grad():
        pair.guide.conditionals["y"].family.logits.weight.mul_(20)
    step = loss_of(pair, 0.5, augment=lambda pixels: 1 - pixels, consistency_weight=1)
    q = label_distribution(pair, x).probs.detach()
    sure = q.amax(-1) >= CONFIDENCE_THRESHOLD
    assert 0 < sure.sum() < len(x)
    answer = label_distribution(pair, 1 - x).logits.log_softmax(-1)
    by_hand = -((q * answer).sum(-1))[sure].sum() / len(x)
    (term,) = step.label_terms(Rows(x[:2], x[:2], y[:2]), Rows(x, x))
    assert term.item() == pytest.approx(by_hand.item(), rel=1e-5)
    ours = torch.autograd.grad(term, pair.guide.conditionals["y"].family.logits.weight)[0]
    theirs = torch.autograd.grad(by_hand, pair.guide.conditionals["y"].family.logits.weight)[0]
    torch.testing.assert_close(ours, theirs)


def test_consistency_needs_labels_and_a_change(x, y):
    pair = make_pair("ss_vae")
    unlabelled, labelled = Rows(x, x), Rows(x[:3], x[:3], y[:3])
    plain = seeded(loss_of(pair, 0.3), Batch(unlabelled, labelled), 1.0)
    assert seeded(loss_of(pair, 0.3, consistency_weight=5), Batch(unlabelled, labelled), 1.0) == plain
    alone = seeded(loss_of(pair, 0.0), Batch(unlabelled, None), 1.0)
    step = loss_of(pair, 0.0, augment=lambda pixels: pixels, consistency_weight=5)
    assert seeded(step, Batch(unlabelled, None), 1.0) == alone


def test_the_mean_answer_is_held_at_the_prior_by_hand(x, y):
    pair, prior = make_pair("ss_vae"), torch.tensor([0.5, 0.3, 0.2])
    answers = MeanAnswer(prior)
    answers.mean.copy_(torch.tensor([0.2, 0.3, 0.5]))
    step = loss_of(pair, 0.5, mean_answer=answers, marginal_weight=4)
    (term,) = step.label_terms(Rows(x[:2], x[:2], y[:2]), Rows(x, 0.5 * x))
    mean = label_distribution(pair, 0.5 * x).probs.mean(0)
    by_hand = 4 * (mean[0] * math.log(0.4) + mean[2] * math.log(2.5))
    assert term.item() == pytest.approx(by_hand.item(), rel=1e-5)
    of = pair.guide.conditionals["y"].family.logits.weight
    torch.testing.assert_close(*(torch.autograd.grad(value, of, retain_graph=True)[0] for value in (term, by_hand)))
    step.note(step.seen)
    torch.testing.assert_close(step.running[0], DECAY * torch.tensor([0.2, 0.3, 0.5]) + (1 - DECAY) * mean.detach())


def test_the_term_has_the_gradient_of_the_divergence_from_the_prior():
    prior, answer = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.2, 0.7])
    answers, logits = MeanAnswer(prior), torch.randn(3).requires_grad_()
    answers.mean.copy_(answer)
    mean = DECAY * answer + (1 - DECAY) * logits.softmax(-1)
    divergence = (mean * (mean / prior).log()).sum()
    answers.mean.copy_(mean.detach())
    (ours,) = torch.autograd.grad(answers.term(logits.softmax(-1)), logits)
    (theirs,) = torch.autograd.grad(divergence, logits)
    torch.testing.assert_close((1 - DECAY) * ours, theirs)


@pytest.mark.exhaustive
@pytest.mark.parametrize("weight", [0.0, 30.0])
def test_a_kind_without_a_label_is_given_the_class_that_would_be_too_rare(weight):
    """Two blobs of class 0, of which one has no label and lies nearer to the labels of class 1: half of 100 points."""
    torch.manual_seed(0)
    places = torch.tensor([[-2.0, 0.0], [0.8, 2.0], [2.0, 0.0]])
    blob = torch.tensor([0, 1, 2, 2]).repeat(100)
    x = (places[blob] + 0.2 * torch.randn(400, 2)).numpy()
    y = np.where(np.arange(400) < 80, np.array([0, -1, 1, 1])[blob], -1)
    settings = {"hidden": (16,), "latent_dim": 2, "epochs": 50, "lr": 0.02, "patience": "none", "labels": "all"}
    run = pyro_vae.fit("ss_vae", data=(x, y), display=False, compile="off", marginal_weight=weight, **settings)
    missed = (run.classify(places[blob[:100]]) != torch.where(blob[:100] == 2, 1, 0)).double().mean()
    assert missed == (0.25 if weight == 0 else 0.0)
