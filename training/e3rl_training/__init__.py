"""E3RL on TRL: reinforcement learning with rollouts that erase and redraw their own uncertain segments."""

import os
import warnings

# TRL warns of vLLM versions it does not drive itself, and of `rollout_func`: here our own engine samples, through that
# function, and a contract test holds it.
warnings.filterwarnings("ignore", message="TRL currently supports vLLM versions")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
