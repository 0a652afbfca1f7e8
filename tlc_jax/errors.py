"""The ways in which a stage ends early and says so in one line."""


class InputError(Exception):
    """The user's input is wrong. The message is one line: what is wrong and how to mend it (exit 2)."""


class StoppedEarly(Exception):
    """The run was asked to stop and has saved everything: run the same command again (exit 75)."""


class TrainingFailed(Exception):
    """Training cannot go on (its loss is no number, say). What was saved before stays usable (exit 1)."""
