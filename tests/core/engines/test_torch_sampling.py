"""One sampling step against the definitions."""

import math

import pytest
import torch

from e3rl_core.engines.torch_sampling import invert, nucleus, sample

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 0.5, -math.inf]])


def streams(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_temperature_zero_takes_the_likeliest_and_leaves_the_stream_alone() -> None:
    generators = streams(1, 2)
    before = [generator.get_state() for generator in generators]
    assert [s.token for s in sample(LOGITS, [0.0, 0.0], generators)] == [0, 1]
    assert all(torch.equal(g.get_state(), state) for g, state in zip(generators, before, strict=True))


def test_scores_are_of_the_raw_logits_and_logprobs_of_the_tempered_ones() -> None:
    first, second = sample(LOGITS, [0.5, 0.0], streams(1, 2), forced=[2, 0])
    raw, tempered = (logits.log_softmax(-1).tolist() for logits in (LOGITS, LOGITS / 0.5))
    assert (first.token, first.surprisal, first.logprob) == pytest.approx((2, -raw[0][2], tempered[0][2]))
    assert (second.token, second.surprisal, second.logprob) == pytest.approx((0, -raw[1][0], raw[1][0]))


def test_entropy_survives_impossible_tokens() -> None:
    expected = torch.distributions.Categorical(logits=LOGITS).entropy().tolist()
    assert [s.entropy for s in sample(LOGITS, [1.0, 1.0], streams(1, 2))] == pytest.approx(expected)


def test_draws_follow_the_tempered_distribution() -> None:
    (generator,) = streams(0)
    count = 4000
    draws = [sample(LOGITS[:1], [2.0], [generator])[0].token for _ in range(count)]
    frequencies = [draws.count(token) / count for token in range(4)]
    assert frequencies == pytest.approx((LOGITS[0] / 2.0).softmax(-1).tolist(), abs=0.03)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.1, 0.5, 0.4]),
        (0.91, [0.1, 0.5, 0.4]),
        (0.9, [0.0, 0.5, 0.4]),
        (0.5, [0.0, 0.5, 0.0]),
        (0.1, [0, 0.5, 0]),
    ],
)
def test_the_nucleus_is_the_smallest_set_of_its_mass(top_p: float, expected: list[float]) -> None:
    logprobs = torch.tensor([[0.1, 0.5, 0.4]], dtype=torch.float64).log()
    assert nucleus(logprobs, top_p)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.24, 1), (0.26, 3), (1.0 - 1e-12, 3)])
def test_inversion_never_takes_a_token_without_mass(uniform: float, token: int) -> None:
    probabilities = torch.tensor([[0.0, 0.2, 0.0, 0.6, 0.0]], dtype=torch.float64)
    assert invert(probabilities, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_a_row_draws_the_same_in_any_company() -> None:
    alone = sample(LOGITS[1:], [1.0], streams(5))[0]
    together = sample(LOGITS, [1.0, 1.0], streams(9, 5))[1]
    assert alone.token == together.token
