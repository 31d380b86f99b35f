"""Joins answered prompts (`ahead.py`'s lines with a `reply` each) into a file of recorded replies, frozen with its digest.

    python -m benchmarks.replies.joined answered.jsonl votes.jsonl --model "a model" --made "how, when" --out replies.jsonl.gz

Nothing is looked at but the form: wrong and clumsy replies go in as they came. The same lines give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm2llm_ray.asking.recorded import FORMAT, RecordedReplies

_TAKEN = ("prompt", "ordinal", "attempt", "reply")


def joined(lines: Iterable[dict[str, Any]], *, model: str, made: str) -> bytes:
    """The file's bytes, before compression. Lines are put in order, so that the files they come from do not matter."""
    taken = [{name: line[name] for name in _TAKEN} | {"finish_reason": "stop"} for line in lines]
    written = sorted(json.dumps(line, ensure_ascii=False, sort_keys=True) for line in taken)
    header = json.dumps({"llm2llm_replies": FORMAT, "model": model, "made": made}, ensure_ascii=False)
    return ("\n".join([header, *written]) + "\n").encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("answered", type=Path, nargs="+")
    parser.add_argument("--model", required=True, help="who answered, as the report will name it")
    parser.add_argument("--made", required=True, help="how and when the replies were made")
    parser.add_argument("--out", type=Path, required=True, help="FILE.jsonl or FILE.jsonl.gz")
    given = parser.parse_args()
    lines = (json.loads(line) for path in given.answered for line in path.read_text(encoding="utf-8").split("\n") if line)
    data = joined(lines, model=given.model, made=given.made)
    if given.out.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    about = RecordedReplies(str(given.out), data).about  # what cannot be read back is not written
    given.out.write_bytes(data)
    print(f"{given.out}: {about.replies} replies, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
