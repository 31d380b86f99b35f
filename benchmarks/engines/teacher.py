"""Teacher: our teacher engine, with everything around it, against bare vLLM, both with 64 requests in flight.

    python -m benchmarks.engines.teacher [--prompts 256] [--pairs 3] [--json FILE]

The prompts are those of the Augment role for TREC seeds that a student got all wrong (its answers are recorded: no student engine
works beside), one attempt each, sampled with seeds as the config says. Sampled texts may differ between the sides, so both are
measured in generated tokens per second.
"""

from __future__ import annotations

import sys

from benchmarks.engines.report import compare, options, overrides, work_folder
from llm2llm_ray.config.file import load_config

_IN_FLIGHT = 64


def main() -> int:
    given = options(__doc__ or "", prompts=256)
    work = work_folder()
    nothing = work / "no_answers.jsonl"
    nothing.touch()
    asked = [
        "task.seeds_per_class=null", f"task.seed_rows={given.prompts}", "evaluation.test=false",
        f"evaluation.recorded_answers={nothing}", "augmentation.attempts=1", f"teacher.in_flight={_IN_FLIGHT}",
    ]  # fmt: skip
    if given.small:  # the demo has too few seeds
        asked += ["task.data=null", "task.seed=jobs/data/support/test.jsonl"]
    config = load_config(given.config, [*asked, *overrides(given, work, "teacher")])
    return compare("teacher", "teacher", given, config, work, bare_in_flight=_IN_FLIGHT)


if __name__ == "__main__":
    sys.exit(main())
