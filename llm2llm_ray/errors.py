"""The two kinds of failure a person meets: their mistake (exit 2) and a run that ended early on purpose (exit 0 or 143).

Anything else is ours: it propagates with its traceback and ends in exit code 1.
"""


class UserError(ValueError):
    """Wrong input. The message names the file, line, field and value, and says what to do."""


class BudgetExhausted(Exception):
    """The teacher budget (calls, tokens or money) is used up: the run ends cleanly with what it has."""


class StreamConsumed(RuntimeError):
    """A live stream was iterated a second time; read what it left in storage instead."""


class Stopping(RuntimeError):
    """The run was told to stop: raised inside a stream once nothing is in flight any more."""
