"""The method of erasable reinforcement learning (E3RL): score, erase and redraw segments while decoding.

Pure modules: no engine, no I/O beyond `profile`, no clock, no randomness. `e3rl_core.engines` drives them.
"""

__version__ = "0.1.0"
