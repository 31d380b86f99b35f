"""The tasks that come with the package, as data: class, options, and what `llm2llm tasks` tells about each.

`trec`, `snips` and `sst2` are the classification task with labels and words of their own; `task.options` overrides them
one by one. Known only from their published descriptions: the columns of the data sets on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A line of `llm2llm tasks`."""

    name: str
    path: str
    columns: tuple[str, ...]
    metric: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the task is made with where `task.options` says nothing else."""
    source: str = "your own rows"
    """Who made the data, and its licence."""
    hub: str = ""
    """A copy on the Hugging Face hub, and the `task.columns` (and options) that read it."""


_CLASSIFICATION = "llm2llm_ray.tasks.classification:Classification"
_LABELLED = ("text", "label")
_EXACT_LABEL = "accuracy: the answer is exactly the label"

TASKS: Mapping[str, BuiltIn] = {
    task.name: task
    for task in (
        BuiltIn(
            name="classification",
            path=_CLASSIFICATION,
            columns=_LABELLED,
            metric=_EXACT_LABEL,
            about="short texts with one label each: intents, question types, sentiments",
        ),
        BuiltIn(
            name="gsm8k",
            path="llm2llm_ray.tasks.gsm8k:Gsm8k",
            columns=("question", "answer"),
            metric="accuracy: the number after the last #### is exactly the gold one",
            about="math word problems with worked answers that end in `#### number`",
            source="Cobbe et al. 2021, openai/grade-school-math; MIT",
            hub="openai/gsm8k:main",
        ),
        BuiltIn(
            name="casehold",
            path="llm2llm_ray.tasks.casehold:CaseHold",
            columns=("context", "choices", "label"),
            metric="accuracy: the answer is exactly the letter of the right choice",
            about="which of five holdings a court cited a case for",
            source="Zheng et al. 2021, in LexGLUE; Apache-2.0, LexGLUE CC BY 4.0",
            hub="coastalcph/lex_glue:case_hold, columns: {choices: endings}; or casehold/casehold:all, columns: "
            "{context: citing_prompt}, options: {choice_columns: [holding_0, holding_1, holding_2, holding_3, holding_4]}",
        ),
        BuiltIn(
            name="trec",
            path=_CLASSIFICATION,
            columns=_LABELLED,
            metric=_EXACT_LABEL,
            about="what kind of answer a question asks for (6 coarse classes)",
            options={
                "item": "question",
                "question": "Class",
                "labels": {
                    "ABBR": "asks what an abbreviation stands for",
                    "DESC": "asks for a definition, a reason or a manner",
                    "ENTY": "its answer is a thing, an animal, a work or another entity",
                    "HUM": "its answer is a person or a group of people",
                    "LOC": "its answer is a place",
                    "NUM": "its answer is a number, a date or an amount",
                },
            },
            source="Li & Roth 2002 (UIUC); no licence stated",
            hub="CogComp/trec, columns: {label: coarse_label}",
        ),
        BuiltIn(
            name="snips",
            path=_CLASSIFICATION,
            columns=_LABELLED,
            metric=_EXACT_LABEL,
            about="what a person wants from a voice assistant (7 intents)",
            options={
                "item": "request",
                "items": "requests to a voice assistant",
                "question": "Intent",
                "labels": {
                    "AddToPlaylist": "wants a song, an album or an artist put on a playlist",
                    "BookRestaurant": "wants a table at a restaurant",
                    "GetWeather": "asks about the weather at a place or a time",
                    "PlayMusic": "wants music played now",
                    "RateBook": "gives a book a number of points or stars",
                    "SearchCreativeWork": "looks for a book, film, game, album, picture or show by its title",
                    "SearchScreeningEvent": "asks which films are shown in a cinema, or when",
                },
            },
            source="Coucke et al. 2018, sonos/nlu-benchmark (2017-06); CC0",
            hub="benayas/snips, columns: {label: category}",
        ),
        BuiltIn(
            name="sst2",
            path=_CLASSIFICATION,
            columns=_LABELLED,
            metric=_EXACT_LABEL,
            about="whether a phrase from a film review praises or faults the film",
            options={
                "item": "review",
                "items": "phrases from film reviews",
                "question": "Sentiment",
                "labels": {"negative": "finds fault with the film", "positive": "praises the film"},
            },
            source="Socher et al. 2013, in the GLUE form (test labels withheld: test on dev); no licence stated",
            hub="stanfordnlp/sst2, columns: {text: sentence}",
        ),
    )
}
"""By `task.name`. The paper's five are all but `classification`."""
