"""One exception tree; every message is one sentence naming the field, file or flag and what to do.

E3RLError
├── PolicyError          a healing setting is wrong (the server answers 400, naming `field`)
├── ProfileError         a calibration profile cannot be read, or belongs to another model
├── EngineRefusal        this deployment cannot be healed (start-up exits non-zero, naming why)
├── ModelError           the model to serve cannot be found, verified or prepared
├── EventError           an event stream is out of sequence or of a protocol this code does not know
├── CalibrationError     a calibration cannot start, or measured nothing
├── EvaluationError      an evaluation cannot start, go on, or be trusted
└── TrainingError        a training run cannot start or go on
    ├── RecipeError      a recipe has an unknown key, a wrong type, or settings that contradict each other
    ├── DataError        the training data cannot be read, is empty, or lacks a column
    ├── RewardError      a reward function raised, hung, or returned something that is no reward
    └── CheckpointError  a checkpoint cannot be read, or belongs to another model or recipe
"""

from __future__ import annotations

from pydantic import ValidationError


class E3RLError(Exception):
    """Root of everything this project raises on purpose."""


class PolicyError(E3RLError, ValueError):
    """A healing setting is unknown, of the wrong type, out of range, or cannot be combined.

    `field` is the dotted path of the setting as the user wrote it, e.g. ``healing.threshold.gamma``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class ProfileError(E3RLError):
    """A calibration profile file is corrupt, of an unknown version, or made for another model."""


class EngineRefusal(E3RLError):
    """The deployment has a feature whose state cannot be rolled back; the message names it."""


class ModelError(E3RLError):
    """The model to serve is missing, corrupt, or could not be converted."""


class EventError(E3RLError):
    """An event is out of sequence, malformed, or of an unknown protocol version."""


class CalibrationError(E3RLError):
    """A calibration has nowhere to write, an engine that does not start, or nothing to learn from."""


class EvaluationError(E3RLError):
    """An arm is unknown, a server does not answer, or a folder holds samples of another evaluation."""


class TrainingError(E3RLError):
    """A training run cannot start or go on."""


class RecipeError(TrainingError):
    """A recipe is wrong; the message names the key as the user wrote it, e.g. ``training.learning_rate``."""


class DataError(TrainingError):
    """Training data is missing, unreadable, empty, or has not the columns the recipe names."""


class RewardError(TrainingError):
    """A reward function raised, did not answer in time, or returned no number; the message names it."""


class CheckpointError(TrainingError):
    """A checkpoint is incomplete, or of another architecture or recipe than the run that resumes from it."""


def first_complaint(error: ValidationError, whole: str = "") -> str:
    """The first complaint of a pydantic report: `field: what is wrong with it`.

    Args:
        error: the report.
        whole: what to call the data where the complaint is about all of it.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or whole
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
