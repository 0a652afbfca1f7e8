"""The ways in which a stage ends early and says so in one line."""


class Ending(Exception):
    """Ends a stage with a message of one line.

    Args:
      message: what to tell the user.
      by_all: all processes of the run end like this one, so that none has to be told.
    """

    def __init__(self, message: str, by_all: bool = False):
        super().__init__(message)
        self.by_all = by_all


class InputError(Ending):
    """The user's input is wrong. The message says what is wrong and how to mend it (exit 2)."""


class StoppedEarly(Ending):
    """The run was asked to stop and has saved everything: run the same command again (exit 75)."""


class TrainingFailed(Ending):
    """Training cannot go on (its loss is not finite, say). What was saved before stays usable (exit 1)."""
