"""The ways in which a command ends early and says so in one line."""


class Ending(Exception):
    """Ends a command with one line on stderr.

    Attributes:
      label: first word of the line.
      status: exit status of the command.
      by_all: whether all processes of the run end like this one, so that none has to be told.
    """

    label, status = "stopped", 75

    def __init__(self, message: str, by_all: bool = False):
        super().__init__(message)
        self.by_all = by_all


class InputError(Ending):
    """The user's input is wrong. The message says what is wrong and how to mend it."""

    label, status = "error", 2


class StoppedEarly(Ending):
    """The run was asked to stop and has saved everything: the same command continues it."""


class TrainingFailed(Ending):
    """Training cannot go on, for example after a non-finite loss. Earlier checkpoints stay."""

    label, status = "failed", 1
