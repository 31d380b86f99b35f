'''Tasks: what is learned. Built in (`built_in.py`): `classification`, the paper's five; yours is one class in one file.

To add a task, subclass `Task` (`task.py` says what each method must keep), put the file beside your YAML, and name it
`task: {name: "my_task:Antonyms", data: data/antonyms}`. A whole one, my_task.py:

    from llm2llm_ray.tasks.task import Task
    from llm2llm_ray.types import Draft, Example, Message, Prompt, Rejected

    class Antonyms(Task):
        """Words and their opposites."""
        columns = ("word", "opposite")

        def example(self, row, row_id):
            return Example(id=row_id, input=row["word"], output=row["opposite"])

        def student_prompt(self, text):
            return f"Word: {text}\\nOpposite:"

        def answer(self, completion):
            return next(iter(completion.lower().split()), None)

        def is_correct(self, output, completion):
            return self.answer(completion) == output.lower()

        def teacher_prompt(self, mistake, asked):
            pairs = "\\n".join(f"{pair.input}: {pair.output}" for pair in [*asked.peers, mistake.example])
            if asked.style == "completion":
                return Prompt(text=f"Words and their opposites:\\n{pairs}\\n", stop=("\\n\\n",))
            return Prompt(messages=(Message(role="user", content=f"Write {asked.count} new lines like these:\\n{pairs}"),))

        def parse(self, reply, mistake, *, style, count, cut):
            lines = reply.strip().split("\\n")[:count]
            pairs = [line.split(": ") for line in lines]
            drafts = [Draft(input=p[0], output=p[1]) if len(p) == 2 else Rejected(reason="malformed") for p in pairs]
            return [*drafts[:-1], Rejected(reason="truncated")] if cut else drafts

Small changes need less: subclass `Classification`, `Gsm8k` or `CaseHold` and override one method. The tests that every
built-in task passes are in tests/unit/test_tasks.py and test_task_contract.py; run them on yours. A run that goes on after you
edited the file does anew what the edit changes; raise your class's `version` when what changed is in a module that it imports.
'''

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Mapping

from llm2llm_ray.errors import UserError
from llm2llm_ray.tasks.built_in import TASKS, BuiltIn
from llm2llm_ray.tasks.task import Task

__all__ = ["TASKS", "BuiltIn", "load_task"]


def load_task(name: str, options: Mapping[str, object]) -> Task:
    """The task `name` (built in, or `my_pkg.my_task:MyTask`), made with its own options and `options`; raises UserError."""
    kind = _task_class(TASKS[name].path if name in TASKS else name, name)
    given = {**TASKS[name].options, **options} if name in TASKS else options
    parameters = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in parameters:
            close = difflib.get_close_matches(option, parameters, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{name} knows: {', '.join(parameters) or 'no options'}"
            raise UserError(f"task.options.{option}: unknown option of {name}; {hint}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise UserError(f"task.options: {name} does not accept {dict(options)}: {error}") from error


def _task_class(path: str, name: str) -> type[Task]:
    module_name, colon, class_name = path.partition(":")
    if not (colon and module_name and class_name):
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"built in: {', '.join(TASKS)}"
        raise UserError(f"task.name: no task {name!r}; {hint}; write your own as my_pkg.my_task:MyTask")
    if os.getcwd() not in sys.path:  # an installed `llm2llm` command does not look where it is called
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, ValueError) as error:
        raise UserError(
            f"task.name: {name}: cannot import {module_name}: {error}; run from the folder that holds it, "
            "or put that folder into PYTHONPATH"
        ) from error
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        found = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Task)]
        tasks = ", ".join(key for key in found if key != "Task") or "none"
        raise UserError(f"task.name: {name}: {class_name} is no Task in {module.__file__} (tasks there: {tasks})")
    if inspect.isabstract(kind):
        lacking = ", ".join(sorted(kind.__abstractmethods__))
        raise UserError(f"task.name: {name}: {class_name} still lacks {lacking} (see llm2llm_ray/tasks/task.py)")
    if "peers" in inspect.signature(kind.teacher_prompt).parameters:
        raise UserError(
            f"task.name: {name}: teacher_prompt takes (mistake, asked): write asked.peers, asked.style, asked.count and "
            "asked.show_wrong_answer for what were arguments (see llm2llm_ray/tasks/task.py)"
        )
    return kind
