"""What a person can change after a service refused: the setting, by its name, with the value to give it.

Keeps: a remedy names a setting only where the service's words point to it; otherwise it says what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from llm2llm_ray.asking.openai_client import proxy_of
from llm2llm_ray.asking.openai_failure import CERTIFICATE, NO_QUOTA, Failure
from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.types import Prompt

_NAMES: Mapping[str, re.Pattern[str]] = {
    field: re.compile(rf"(?<![a-z_])(?:{names})(?![a-z_])", re.IGNORECASE)
    for field, names in {
        "top_p": "top[ _-]?p",
        "temperature": "temperature",
        "seed": "seed",
        "max_tokens": "max[ _-]?(?:completion[ _-]?|new[ _-]?|output[ _-]?)?tokens",
        "stop": "['\"`]stop['\"`]|stop:|stop[ _-]sequences?|param(?:eter)? stop",
    }.items()
}
"""Most dispensable first: where two are refused together, that is the one to leave out."""
_SYSTEM = re.compile(r"\bsystem\b[^.;]{0,40}\b(?:role|message|prompt|instruction)|\brole[^.;]{0,60}\bsystem\b", re.IGNORECASE)
_SYSTEM_UNSAID = re.compile(r"developer instruction|roles must alternate", re.IGNORECASE)
_TOO_LONG = re.compile(r"context[ _-](?:length|window)|too long|(?:output|token) limit was reached", re.IGNORECASE)


def refused_request(message: str, config: TeacherConfig, prompt: Prompt) -> str:
    """What to change so that the service takes requests like this one; "" where its words point to nothing of ours."""
    if _TOO_LONG.search(message):
        return "change teacher.max_tokens, or shorten the prompt (augmentation.examples_in_prompt)"
    if any(m.role == "system" for m in prompt.messages) and (_SYSTEM.search(message) or _SYSTEM_UNSAID.search(message)):
        return "--set teacher.system_message=merge puts the task's system text into the user message"
    for name in config.request.add:
        if re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", message):
            return f"take {name} out of teacher.request.add, or give it another value"
    sent = [field for field in _NAMES if field not in config.request.drop and (field != "stop" or prompt.stop)]
    named = [field for field in sent if _NAMES[field].search(message)]
    if not named:
        return ""
    drop = f"--set 'teacher.request.drop=[{', '.join(sorted({*config.request.drop, named[0]}))}]'"
    if len(named) > 1:
        return f"{drop} leaves {named[0]} out"
    other = "" if named[0] in ("seed", "stop") else f"; or set teacher.{named[0]} to a value that it takes"
    return f"{drop} leaves it out{other}"


def explained(failure: Failure, config: TeacherConfig, where: str, prompt: Prompt) -> str:
    """One message with address, the service's reason and the remedy, for a failure that ends a run or keeps it from starting."""
    told = f"teacher.base_url {where}: {failure.message}"
    if failure.code == CERTIFICATE:
        return f"{told}; {_untrusted(failure.message, config, where)}"
    if failure.code == NO_QUOTA or failure.status == 402:
        return f"{told}; the account has no quota left: add credit or use another key"
    if failure.status in (401, 403):
        return f"{told}; check the key in {config.api_key_env}, and its right to {config.model}"
    if failure.status == 407:
        variable = proxy_of(where) or "HTTPS_PROXY"
        return f"{told}; a proxy between wants a login: write {variable}=http://user:password@host:port into the environment"
    if failure.status in (404, 405):
        path = "/chat/completions" if prompt.messages else "/completions"
        check = f"check teacher.model {config.model} and that teacher.base_url is the part before {path} (it often ends in /v1)"
        return f"{told}; {check}{'' if prompt.messages else _NO_COMPLETIONS}"
    if failure.status == 200:
        return f"{told}; is the service well, and teacher.base_url the address of its API (it often ends in /v1)?"
    if failure.transient:
        proxy = proxy_of(where) if failure.status is None else ""
        by = f" (asked through the proxy of {proxy})" if proxy else ""
        return f"teacher.base_url {where}: unreachable{by}: {failure.message}; is the service running, and the address right?"
    remedy = refused_request(failure.message, config, prompt)
    return f"teacher.base_url {where}: refused a first request: {failure.message}; {remedy or _what_was_sent(config, prompt)}"


_NO_COMPLETIONS = "; a service without that path serves teacher.style=chat only"


def _what_was_sent(config: TeacherConfig, prompt: Prompt) -> str:
    text = f"messages ({', '.join(m.role for m in prompt.messages)})" if prompt.messages else "prompt"
    fields = [field for field in ("temperature", "top_p", "max_tokens", "seed", "stop") if field not in config.request.drop]
    if not prompt.stop and "stop" in fields:
        fields.remove("stop")
    sent = ", ".join(["model", text, *fields, *config.request.add])
    return f"sent were {sent}; teacher.request.drop and teacher.request.add change that"


def _untrusted(message: str, config: TeacherConfig, where: str) -> str:
    if "ostname mismatch" in message or "IP address mismatch" in message:
        return "use the name that the certificate holds in teacher.base_url"
    if "expired" in message or "not yet valid" in message:
        return "let the service's owner renew it, or set this machine's clock"
    parts = urlsplit(where)
    address = f"{parts.hostname}:{parts.port or 443}"
    has = f"{config.ca_file} does not hold its authority" if config.ca_file else "set teacher.ca_file (or SSL_CERT_FILE)"
    return (
        f"{has}: a PEM file with the certificate of the authority that signed it (its own if it signed itself; "
        f"`openssl s_client -showcerts -connect {address}` shows it)"
    )
