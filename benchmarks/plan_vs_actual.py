"""A run's plan, as `llm2llm run --dry-run` told it before, beside what the run came to.

    python benchmarks/plan_vs_actual.py jobs/demo.yaml [--set K=V ...] [--run FOLDER] [--json FILE]

The plan may not know the run it is compared with: its seconds come from rates.KNOWN, or with `--rates-of RUN` from another
run. Exit code 1 when a sum (updates, answers, calls, tokens, seconds) is not within a factor of two.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from environment import environment
from rich.console import Console

from llm2llm_ray.config import Config
from llm2llm_ray.config_file import load_config
from llm2llm_ray.errors import UserError
from llm2llm_ray.planning.plan import plan
from llm2llm_ray.planning.plan_table import Compared, compare_plan, render_comparison, render_plan
from llm2llm_ray.planning.rates import Rates, known, measured
from llm2llm_ray.preflight import check
from llm2llm_ray.record import RunRecord


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="section.field=value, as the run had it")
    parser.add_argument("--run", help="the run's folder, where it is not the config's")
    parser.add_argument("--rates-of", help="take the rates of this other run")
    parser.add_argument("--json", type=Path, help="write the comparison here")
    given = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)

    def rates(config: Config, device: str) -> Rates | None:
        return measured(RunRecord.open(given.rates_of)) if given.rates_of else known(config, device)

    try:
        config = load_config(given.config, given.overrides)
        planned = plan(config, check(config, given.config.parent), rates=rates)
        run = RunRecord.open(given.run or config.run_path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    compared = compare_plan(planned, run)
    render_plan(planned, console)
    render_comparison(compared, console)
    if run.state != "finished":
        console.print(f"The run is {run.state}: it came to less than its plan.")
    if given.json:
        given.json.write_text(json.dumps(told(compared, run) | {"argv": shlex.join(sys.argv)}, indent=1) + os.linesep)
    return 0 if all(item.within is not False for item in compared if item.is_sum) else 1


def told(compared: list[Compared], run: RunRecord) -> dict[str, object]:
    items = [asdict(item) | {"ratio": item.ratio, "within": item.within} for item in compared]
    return {"run": run.name, "state": run.state, "compared": items, "environment": environment()}


if __name__ == "__main__":
    sys.exit(main())
