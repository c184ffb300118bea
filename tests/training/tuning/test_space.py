"""What is tried: settings that a server takes, each once, the same for a seed."""

from __future__ import annotations

import json

import pytest

from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_training.tuning.space import candidates


@pytest.mark.parametrize("scoring", [True, False])
def test_every_candidate_is_a_policy(scoring: bool) -> None:
    found = candidates(200, temperature=0.8, scoring=scoring, seed=0)
    for settings in found:
        policy = HealingPolicy().updated(settings)
        assert policy.retry.temperature is None or 0 < policy.retry.temperature <= 0.8
    assert found[0] == {} and len({json.dumps(one) for one in found}) == 200


def test_what_u_means_is_left_alone_beside_a_profile() -> None:
    profile = Profile(mean=(1.0,), std=(0.1,), settings={"segment": {"tokens": 6}})
    for settings in candidates(50, temperature=1.0, scoring=False, seed=1):
        profile.check_scores_alike(profile.policy(HealingPolicy()).updated(settings), "profile.json")
    with_scoring = candidates(50, temperature=1.0, scoring=True, seed=1)
    assert len({json.dumps(one.get("segment")) for one in with_scoring}) == 6


def test_a_seed_gives_the_same_candidates_and_more_of_them_begin_alike() -> None:
    few, more = (candidates(count, temperature=1.0, scoring=True, seed=3) for count in (5, 9))
    assert more[:5] == few != candidates(5, temperature=1.0, scoring=True, seed=4)
