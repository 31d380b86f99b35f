"""`generate` as the official-style loop calls it: rows in file order, padded on the left, a batch until its last row is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList

from benchmarks.reference.place import Place
from benchmarks.reference.stages import refused
from llm2llm_ray.asking.request import Request
from llm2llm_ray.reasoning import split_reasoning
from llm2llm_ray.types import Reply

_NO_TOKEN = -1


class Stopped(StoppingCriteria):  # type: ignore[misc]
    """Which rows have written a stop string. transformers' own first takes the whole vocabulary apart, for every `generate`."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], width: int) -> None:
        self._tokenizer, self._stops, self._width = tokenizer, stops, width

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **more: Any) -> torch.BoolTensor:
        texts = self._tokenizer.batch_decode(input_ids[:, self._width :], skip_special_tokens=True)
        done = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)  # type: ignore[return-value]


class Pipeline:
    """A model and its tokenizer, read from a folder."""

    def __init__(self, folder: str, context: int, place: Place) -> None:
        self._context, self._device = context, place.device
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=place.dtype).to(place.device).eval()

    def answer(self, requests: Sequence[Request], *, batch: int, new_tokens: int, stop_early: bool) -> list[Reply]:
        """`stop_early`: a batch ends when each of its rows has written an end-of-text token or a stop string."""
        lengths = [len(self._tokenizer(self._text(request))["input_ids"]) for request in requests]
        replies = [refused(request, length, self._context) for request, length in zip(requests, lengths, strict=True)]
        fit = [place for place, reply in enumerate(replies) if reply is None]
        for start in range(0, len(fit), batch):
            places = fit[start : start + batch]
            answers = self._batch([requests[place] for place in places], new_tokens, stop_early=stop_early)
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer
        return [reply for reply in replies if reply is not None]

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], new_tokens: int, *, stop_early: bool) -> list[Reply]:
        tokenizer = self._tokenizer
        asked = tokenizer([self._text(request) for request in requests], return_tensors="pt", padding=True).to(self._device)
        settings: dict[str, Any] = {"max_new_tokens": new_tokens, "pad_token_id": tokenizer.pad_token_id, "do_sample": False}
        sampling = requests[0].sampling
        if sampling["temperature"]:
            torch.manual_seed(int(sampling["seed"]))
            settings |= {"do_sample": True, "temperature": sampling["temperature"], "top_p": sampling["top_p"], "top_k": 0}
        stops = sorted({stop for request in requests for stop in request.prompt.stop})
        if not stop_early:
            settings["eos_token_id"] = _NO_TOKEN
        elif stops:
            settings["stopping_criteria"] = StoppingCriteriaList([Stopped(tokenizer, stops, asked["input_ids"].shape[1])])
        written = self._model.generate(**asked, **settings)[:, asked["input_ids"].shape[1] :]
        lengths = asked["attention_mask"].sum(dim=1).tolist()
        return [self._reply(*each) for each in zip(requests, lengths, written.tolist(), strict=True)]

    def _text(self, request: Request) -> str:
        if not request.prompt.messages:
            return request.prompt.text
        messages = [{"role": message.role, "content": message.content} for message in request.prompt.messages]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _reply(self, request: Request, prompt_tokens: int, written: list[int]) -> Reply:
        """What the run would have got: the answer up to its end, its stop string or its most tokens."""
        most, end = int(request.sampling["max_tokens"]), self._tokenizer.eos_token_id
        ids = written[: written.index(end) + 1] if end in written else written
        reason = "stop" if end in ids[:most] else "length"
        ids = ids[:most]
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [at for at in (text.find(stop) for stop in request.prompt.stop) if at >= 0]
        if cuts:
            reason, text = "stop", text[: min(cuts)]
        return Reply(text=split_reasoning(text)[0], finish_reason=reason, prompt_tokens=prompt_tokens, completion_tokens=len(ids))
