"""The failures a person meets as one message: their mistake (exit 2), and what passes by itself (exit 75).

Anything else is ours: it propagates with its traceback and ends in exit code 1. A run that is told to stop ends with 143.
"""


class UserError(ValueError):
    """Wrong input. The message names the file, line, field and value, and says what to do."""


class TemporaryFailure(Exception):
    """What the run needs is not there now, and no setting is at fault: what was done is kept, the same command goes on from it.

    Its exit code is 75, EX_TEMPFAIL of sysexits.h: try again later.
    """


class BudgetExhausted(Exception):
    """The teacher budget (calls, tokens or money) is used up: the run ends cleanly with what it has."""


class StreamConsumed(RuntimeError):
    """A live stream was iterated a second time; read what it left in storage instead."""


class Stopping(RuntimeError):
    """The run was told to stop: raised inside a stream once nothing is in flight any more."""
