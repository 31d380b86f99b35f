"""Takes a reasoning model's thoughts out of its reply. Keeps: no `<think>` text ever reaches a task's parser."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)think(?:ing)?\s*>", re.IGNORECASE)


def split_reasoning(text: str, reasoning_content: str | None = None) -> tuple[str, str]:
    """(answer, reasoning) of a reply; `reasoning_content` is what the service already kept apart.

    - Several blocks: the answer is the text between and after them.
    - A closing tag without an opening one: all before it was thought. Chat templates often open the block themselves.
      The same reading settles nested-looking blocks (`<think>a<think>b</think>c</think>d`: the answer is d).
    - A block that never closes: the answer is "" and the whole text is reasoning, for nobody can say where it ended.
    """
    thoughts = [reasoning_content] if reasoning_content else []
    tags = list(_TAG.finditer(text))
    if not tags:
        return text, "\n".join(thoughts)
    pieces: list[tuple[bool, str]] = []
    thinking, start = False, 0
    for tag in tags:
        pieces.append((thinking, text[start : tag.start()]))
        closing = tag.group(1) == "/"
        if closing and not thinking:
            pieces = [(True, piece) for _, piece in pieces]
        thinking, start = not closing, tag.end()
    pieces.append((thinking, text[start:]))
    if thinking:
        pieces = [(True, piece) for _, piece in pieces]
    thoughts += [piece.strip() for is_thought, piece in pieces if is_thought and piece.strip()]
    answer = "\n".join(piece.strip() for is_thought, piece in pieces if not is_thought and piece.strip())
    return answer, "\n".join(thoughts)
