"""Evaluation: our student engine, with everything around it, against bare vLLM; first submission to last answer.

    python -m benchmarks.engines.evaluation [--prompts 500] [--pairs 3] [--set student.model=FOLDER] [--json FILE]

The prompts are the TREC test questions as the classification task asks them, answered greedily. Bare vLLM gets them all at once;
ours keeps as many in flight as a run does when nobody waits for the wrong answers.
"""

from __future__ import annotations

import sys

from benchmarks.engines.report import compare, options, overrides, work_folder
from llm2llm_ray.config.file import load_config


def main() -> int:
    given = options(__doc__ or "", prompts=500)
    work = work_folder()
    rows = [f"task.test_rows={given.prompts}"]
    config = load_config(given.config, [*rows, *overrides(given, work, "evaluation")])
    return compare("evaluation", "student", given, config, work, bare_in_flight=None)


if __name__ == "__main__":
    sys.exit(main())
