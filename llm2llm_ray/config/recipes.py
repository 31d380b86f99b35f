"""Recipes: how the loop goes when the user does not say. Defaults under a config and its profile, no more.

`steady` (docs/recipe.md): training long enough, and the same for every student while the data fits; errors from a student that
does not know the seeds by heart yet; several rows per weak seed; rows relabelled blind before they count. Its numbers are
provisional. `paper` is Lee et al. 2024 (arXiv 2403.15042, sections 3 and 4, and the authors' GSM8K scripts), in one word. The
class defaults of the sections are the paper's; a recipe names what it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Name = Literal["steady", "paper"]
DEFAULT: Name = "steady"

_STEADY: dict[str, Any] = {
    "student": {"updates": "auto", "global_batch_size": 8},
    "augmentation": {"per_wrong": 12, "per_call": 6, "show_wrong_answer": True},
    "gates": {"relabel": {"votes": 3}},
    "evaluation": {"error_source": "early", "structured": True, "check_teacher": True},
    "run": {"keep": "best"},
}
_RATES = {"full": 5e-5, "lora": 5e-4}
"""Learning rates of the steady recipe by `student.method`."""


def recipe_defaults(name: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `name` puts under the config `given` (a raw tree, not yet checked). Unknown names are the validator's to refuse."""
    if name != "steady":
        return {}
    student = given["student"] if isinstance(given.get("student"), Mapping) else {}
    training = {**_STEADY["student"], "learning_rate": _RATES.get(str(student.get("method")), _RATES["full"])}
    if "epochs" in student:  # which updates would override
        del training["updates"]
    return {**_STEADY, "student": training}
