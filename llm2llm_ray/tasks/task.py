"""The Task interface: how rows become examples, what the student and the teacher are asked, how answers are judged.

A task builds and reads text. It never calls a model, reads the config or touches a store. One prompt and one grader per
task, shared by training, evaluation and test. Your own task: subclass, override what differs, name it
`my_pkg.my_task:MyTask` in the YAML (see `llm2llm_ray/tasks/__init__.py` for a whole example).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm2llm_ray.types import Draft, Example, Graded, Prompt, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the teacher is asked about one wrong row.

    Example: Asked(peers=rows_of_the_same_class, style="chat", count=6, call=1)
    """

    style: str
    """"chat" (messages) or "completion" (a text to continue)."""
    count: int = 1
    """New examples asked for."""
    peers: Sequence[Example] = ()
    """Real examples of the same group."""
    show_wrong_answer: bool = False
    confused: Sequence[Example] = ()
    """Real examples of the group that the row was taken for (`Task.taken_for`); none unless the wrong answer is shown."""
    call: int = 0
    """Number of this row's call in the whole run: a later one should ask for something else (`angles.py`)."""


class Task(ABC):
    """Options in the YAML's `task.options` are the constructor's keyword arguments; all attributes must be JSON-able."""

    columns: Sequence[str] = ("input", "output")
    """Fields a row must have, before `task.columns` maps them to the file's names."""
    version: int = 1
    """Raised by hand when prompts, grader or parser change in what `identity` cannot see: a built-in task, a module that yours
    imports, a file that it reads."""

    @abstractmethod
    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        """One row of the user's file as an Example; raises ValueError (field, value, remedy) on a bad one."""

    @abstractmethod
    def student_prompt(self, text: str) -> str:
        """What stands before the student's answer, in training and evaluation alike. Constant part first (prefix cache)."""

    def completion(self, output: str) -> str:
        """What the student is trained to say after the prompt; EOS is added by the trainer."""
        return f" {output}"

    @abstractmethod
    def answer(self, completion: str) -> str | None:
        """The answer in a student's completion, normalised, or None."""

    @abstractmethod
    def is_correct(self, output: str, completion: str) -> bool:
        """Whether `completion` answers the example whose gold output is `output`."""

    def choices(self, text: str) -> Sequence[str] | None:
        """All completions that can answer `text`, where the answers are a closed set (labels); None where they are not.

        With `evaluation.structured` the student says exactly one of them.
        """
        return None

    def group(self, example: Example) -> str:
        """Examples of one group may stand beside each other in a teacher prompt (a class); "" is one group for all."""
        return ""

    def counts(self, rows: Sequence[Example]) -> Mapping[str, int]:
        """What reading changed in rows, as numbers for the run's record: {"cut": 3} is kept as `seed_cut` 3, `test_cut` ..."""
        return {}

    def taken_for(self, mistake: Graded) -> str | None:
        """The group (as `group` names it) that the wrong answer stands for; None where it stands for none."""
        return None

    @abstractmethod
    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        """Ask for `asked.count` new examples like the one the student got wrong. Constant part first (prefix cache), and nothing
        but `mistake` and `asked` may count: a stored reply is found by the prompt. With `augmentation.targets` the student
        may have got it right (`mistake.correct`), and the prompt must not say otherwise."""

    @abstractmethod
    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        """Read the first `count` items of a teacher reply; fewer are no fault. `cut` says that it ran into max_tokens. Malformed
        text becomes Rejected, never an error."""

    def shots_prompt(self, text: str, shots: Sequence[Example]) -> Prompt:
        """Ask the teacher itself to solve `text` after worked examples: how good is the teacher at the task?"""
        solved = "\n\n".join(self.student_prompt(s.input) + self.completion(s.output) for s in shots)
        return Prompt(text=f"{solved}\n\n{self.student_prompt(text)}", stop=("\n\n",))

    def judge_prompt(self, text: str, examples: Sequence[Example], *, style: str) -> Prompt:
        """Ask a model to solve `text` blind: it sees neither which answer was meant nor the row that the text was grown from.

        `examples` are real rows in a fixed order, some of each group. Constant part first: thousands of texts follow it.
        """
        return self.shots_prompt(text, examples)

    def judge_answer(self, reply: str) -> str | None:
        """The answer in a reply to `judge_prompt`, as `answer` writes it, or None. A chat wraps more around it than a student."""
        return self.answer(reply)

    def describe(self) -> Mapping[str, object]:
        """What of this task's settings affects results."""
        return {"task": f"{type(self).__module__}:{type(self).__qualname__}", **vars(self)}


def identity(task: Task) -> Mapping[str, object]:
    """What of a task affects results, its code included: part of every stage's key. A comment in its file changes nothing."""
    return {**task.describe(), "version": task.version, "code": _code(type(task))}


@functools.cache  # what this process has loaded, whatever happens to the file later
def _code(kind: type[Task]) -> Mapping[str, str]:
    """Module -> sha of its syntax tree, for the classes of users that a task is made from; ours have a `version`."""
    modules = {base.__module__ for base in kind.__mro__} - sys.stdlib_module_names
    ours = __name__.partition(".")[0]
    return {name: _syntax_sha(name) for name in sorted(modules) if name.partition(".")[0] != ours}


def _syntax_sha(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not file.endswith(".py"):
        return ""
    return hashlib.sha256(ast.dump(ast.parse(Path(file).read_bytes())).encode()).hexdigest()
