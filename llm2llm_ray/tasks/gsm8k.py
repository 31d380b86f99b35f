"""Grade-school math word problems with worked answers that end in `#### n` (Cobbe et al. 2021), or data like them.

The grader reads the last `####` line of the *completion* only: exactly one number must stand in it, compared exactly
(see `arithmetic`). The calculator marks `<<6*7=42>>` of the data are not trained unless asked for; a sum in one that
does not hold makes a teacher's row malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.tasks.angles import angle_of
from llm2llm_ray.tasks.arithmetic import only_number, without_marks, written, wrong_mark
from llm2llm_ray.tasks.blind import solve_blind, thought_away
from llm2llm_ray.tasks.rows import shown, text_of
from llm2llm_ray.tasks.task import Asked, Task
from llm2llm_ray.tasks.teacher_text import reject, unusable
from llm2llm_ray.types import Draft, Example, Graded, Message, Prompt, Rejected

_FIRST_QUESTION = re.compile(r"[*_]*Question(?:[ \t]+\d{1,3})?[*_]*[ \t]*:[*_]*")
_QUESTION = re.compile(rf"^[ \t]*(?:\d{{1,3}}[.)][ \t]*)?{_FIRST_QUESTION.pattern}", re.MULTILINE)
_ANSWER = re.compile(r"^[ \t]*[*_]*Answer[*_]*[ \t]*:[*_]*", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*####(?P<number>[^\r\n]*)", re.MULTILINE)
_PLAIN_NUMBER = re.compile(r"\s*(?P<sign>[-−]?)\s?\$?\s?(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)\s*", re.ASCII)

_BOXED = re.compile(r"\\boxed\{(?P<number>[^{}]*)\}")
_STATED = re.compile(r"[\s*_]*(?:(?:the|final)\s+)*answer(?:\s+is|[*_\s]*:)(?P<number>.*)", re.IGNORECASE)

_SYSTEM = """\
You are an educational assistant. A student practises grade-school math. You are shown a problem the student got \
wrong, and you write new problems that train the same skill.

Rules:
1. Everything needed to solve a problem stands in its text: no pictures, tables or outside facts.
2. Write English, at most 100 words per problem.
3. The answer to each problem is a single number, whole or decimal; never a fraction, a range or a word.
4. Write no unit after the final ####.
5. Show every step of the calculation in the answer.
6. Do each calculation twice before you write it down; a wrong answer harms the student.
7. Copy nothing: other names, other numbers, another situation, but the same kind of reasoning.
8. Several problems differ from each other in situation, wording, length and order of the steps; to exchange names and numbers \
is no difference.
9. Write the problems in exactly this form and nothing else, one after the other, with an empty line between them:
Question: <the problem>
Answer: <the steps>
#### <the number>"""

_SYSTEM_OF_RIGHT = _SYSTEM.replace("a problem the student got wrong", "a problem the student has to be sure about")

_SHOWN = """\
{why}
{question}

The answer key says:
{answer}
{said}
{request}"""

_WRONG, _RIGHT = "The student got this problem wrong:", "The student has to be sure about problems like this one:"

_ANGLES = (
    "one step more than the problem above needs",
    "about money and prices",
    "about time, speed or dates",
    "about lengths, weights or amounts of a material",
    "a comparison: how much more, how many times as much",
    "the result is told, and what it began with is asked for",
    "with a percentage or a part of a whole",
    "with a number in the text that is not needed",
)
_SHOWN_CHARACTERS = 1000
"""Of the student's working."""

_PAIR_QUESTION = (
    "A bakery sells rolls in bags of 6. On Monday it sold 14 bags and on Tuesday 5 bags fewer. "
    "How many rolls did it sell on both days together?"
)
_PAIR_ANSWER = (
    "On Tuesday it sold 14 - 5 = 9 bags.\nOn both days it sold 14 + 9 = 23 bags.\nThat is 23 * 6 = 138 rolls.\n#### 138"
)
_PAIR_REPLY = """\
Question: A farmer packs eggs in trays of 12. He fills 20 trays in the morning and 8 trays fewer in the afternoon. \
How many eggs does he pack that day?
Answer: In the afternoon he fills 20 - 8 = 12 trays.
During the day he fills 20 + 12 = 32 trays.
He packs 32 * 12 = 384 eggs.
#### 384"""
_SECOND_REPLY = """

Question: Lena reads 15 pages of her book every day from Monday to Saturday. On Sunday she reads only 6 pages. The book has 120 \
pages. How many pages are left after Sunday?
Answer: From Monday to Saturday she reads 6 * 15 = 90 pages.
With Sunday she has read 90 + 6 = 96 pages.
120 - 96 = 24 pages are left.
#### 24"""


class Gsm8k(Task):
    """Math word problems.

    Example: Gsm8k(keep_calculator_marks=True) trains the student on `<<6*7=42>>` as the data has it.
    """

    columns: Sequence[str] = ("question", "answer")
    version = 2

    def __init__(self, keep_calculator_marks: bool = False) -> None:
        self.keep_calculator_marks = keep_calculator_marks

    def example(self, row: Mapping[str, object], row_id: str) -> Example:
        question, answer = text_of(row, "question"), text_of(row, "answer")
        if self.answer(answer) is None:
            raise ValueError(
                f"field answer: {shown(answer[-50:])} does not end in a line `#### number`: add the line, or remove the row"
            )
        return Example(id=row_id, input=question, output=answer)

    def student_prompt(self, text: str) -> str:
        return f"Question: {text}\nAnswer:"

    def completion(self, output: str) -> str:
        return f" {output if self.keep_calculator_marks else without_marks(output)}"

    def answer(self, completion: str) -> str | None:
        _, marker, tail = completion.rpartition("####")
        number = only_number(tail.split("\n", 1)[0]) if marker else None
        return None if number is None else written(number)

    def is_correct(self, output: str, completion: str) -> bool:
        answer = self.answer(completion)
        return answer is not None and answer == self.answer(output)

    def teacher_prompt(self, mistake: Graded, asked: Asked) -> Prompt:
        """Chat: one worked request, then the mistake with its answer key (`asked.peers` are not shown, as in the paper)."""
        wrong, count = mistake.example, asked.count
        if asked.style == "completion":
            worked = [*(peer for peer in asked.peers if peer.id != wrong.id), wrong]
            solved = "\n\n".join(self.student_prompt(item.input) + self.completion(item.output) for item in worked)
            head = "Math problems for school, each with its solution. The number after #### is the answer."
            stop = ("\nQuestion:",) if count == 1 else ("\n\n\n",)
            return Prompt(text=f"{head}\n\n{solved}\n\nQuestion:", stop=stop)
        worked_reply = _PAIR_REPLY if count == 1 else f"{_PAIR_REPLY}{_SECOND_REPLY}"
        said = mistake.completion.strip()[:_SHOWN_CHARACTERS] if asked.show_wrong_answer else ""
        angle = angle_of(_ANGLES, wrong.id, asked.call)
        request = _ask(
            wrong.input, self.completion(wrong.output).strip(), said, count, angle, _RIGHT if mistake.correct else _WRONG
        )
        return Prompt(
            messages=(
                Message(role="system", content=_SYSTEM_OF_RIGHT if mistake.correct else _SYSTEM),
                Message(role="user", content=_ask(_PAIR_QUESTION, _PAIR_ANSWER, "", min(count, 2), "")),
                Message(role="assistant", content=worked_reply),
                Message(role="user", content=request),
            )
        )

    def judge_prompt(self, text: str, examples: Sequence[Example], *, style: str) -> Prompt:
        return solve_blind(text, [(row.input, self.completion(row.output).strip()) for row in examples], style=style)

    def judge_answer(self, reply: str) -> str | None:
        """The number after the last ####; without one, that in the last box, or of a last line `Answer: n`."""
        text = thought_away(reply)
        if "####" in text:
            return self.answer(text)
        boxes, line = _BOXED.findall(text), _STATED.fullmatch(text.rpartition("\n")[2])
        number = only_number(boxes[-1] if boxes else line["number"] if line else "")
        return None if number is None else written(number)

    def parse(self, reply: str, mistake: Graded, *, style: str, count: int, cut: bool) -> list[Draft | Rejected]:
        text, thoughts = split_reasoning(reply)
        if thoughts and not text:
            return [reject("truncated" if cut else "malformed", "unclosed reasoning", reply)]
        if not text.strip():
            return [reject("truncated" if cut else "empty", "empty reply")]
        if style == "completion" and not _QUESTION.match(text.lstrip()):
            text = f"Question:{text}"
        first = _FIRST_QUESTION.search(text)
        if first is None:
            return [reject("truncated" if cut else "malformed", "no line `Question:`", text)]
        text = text[first.start() :]
        marks = list(_QUESTION.finditer(text))
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        items = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
        return [_item(item, mistake.example, cut and number == len(items)) for number, item in enumerate(items[:count], 1)]


def _ask(question: str, answer: str, said: str, count: int, angle: str, why: str = _WRONG) -> str:
    one = count == 1
    wanted = f"Write {count} new {'problem' if one else 'problems'} that {'needs' if one else 'need'} the same kind of reasoning"
    lines = [f"{wanted}{', the step in which the student went wrong above all' if said else ''}."]
    if not one:
        lines.append(f"The {count} differ from each other in situation, wording and length.")
    if angle:
        lines.append(f"The obvious ones have been written already. This time{'' if one else ', for most of them'}: {angle}.")
    student = f"\nThe student wrote:\n{said}\n" if said else ""
    return _SHOWN.format(why=why, question=question, answer=answer, said=student, request="\n".join(lines))


def _item(text: str, parent: Example, cut: bool) -> Draft | Rejected:
    """One `question Answer: steps #### n`; text after the `####` line is ignored."""
    finals = list(_FINAL.finditer(text))
    if cut and (not finals or "\n" not in text[finals[-1].end() :]):
        return reject("truncated", "cut by max_tokens", text)
    answers = list(_ANSWER.finditer(text))
    if len(answers) != 1 or len(finals) != 1 or finals[0].start() < answers[0].end():
        return reject("malformed", "needs one `Answer:` and after it one line `#### n`", text)
    question = text[: answers[0].start()].strip().strip("*").strip()
    steps = text[answers[0].end() : finals[0].start()].strip()
    number = _PLAIN_NUMBER.fullmatch(finals[0]["number"])
    if number is None or only_number(finals[0]["number"]) is None:
        return reject("malformed", f"not one plain number: {shown(finals[0].group())}"[:120], text)
    problem = unusable(question + steps, parent)
    if problem and problem[0] == "malformed":
        return reject(*problem, text)
    if not any(char.isalpha() for char in question):
        return reject("empty", "no letter in the question", text)
    if not steps or "####" in question + steps:
        return reject("malformed", "needs steps before ####, and #### only once", text)
    fault = wrong_mark(steps)
    if fault:
        return reject("malformed", fault, text)
    return Draft(input=question, output=f"{steps}\n#### {number['sign'].replace('−', '-')}{number['digits']}")
