"""The HTTP client of a service, from what surrounds us: key, certificate authorities, proxies. Each mistake there is a UserError.

Keeps: neither the key nor a proxy's password is in any message.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llm2llm_ray.config import TeacherConfig
from llm2llm_ray.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LEAST_KEY = 8
"""Shorter ones are no secret, but what people set for a service that wants no key."""
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def open_client(config: TeacherConfig) -> tuple[AsyncOpenAI, str]:
    """(client that never retries by itself, key). Raises UserError."""
    # The openai package takes a second to import, and every `llm2llm` command comes by the checks below.
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    key, trust = check_surroundings(config)
    http = DefaultAsyncHttpxClient(verify=trust, timeout=config.timeout_s)
    return AsyncOpenAI(base_url=config.base_url, api_key=key, timeout=config.timeout_s, max_retries=0, http_client=http), key


def check_surroundings(config: TeacherConfig) -> tuple[str, ssl.SSLContext | bool]:
    """(key, whom to trust: True for what the HTTP library finds on this machine). Raises UserError naming variable or file."""
    key = _key_from_environment(config.api_key_env)
    if len(key) >= _LEAST_KEY and key in str(config.request.add):
        raise UserError(f"teacher.request.add holds the key of {config.api_key_env}, and it is stored with the run: take it out")
    for name, url in _proxies():
        _check_proxy(name, url)
    return key, _trust(config)


def _key_from_environment(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"teacher.api_key_env: the environment variable {name} is not set; export {name}=… with the service's key "
            "(any text if the service wants none)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"teacher.api_key_env: the value of {name} is no key (spaces, line breaks or non-ASCII in it)")
    return key


def _trust(config: TeacherConfig) -> ssl.SSLContext | bool:
    """Python's own paths (SSL_CERT_DIR and what is built in) are the HTTP library's business."""
    for name, file in (("teacher.ca_file", config.ca_file), ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))):
        if not file:
            continue
        try:
            return ssl.create_default_context(cafile=file)
        except ssl.SSLError:
            raise UserError(f"{name} {file}: no certificate in it; give a PEM file (-----BEGIN CERTIFICATE-----)") from None
        except OSError as error:
            raise UserError(f"{name} {file}: cannot be read ({error.strerror}); give a PEM file of certificates") from None
    return True


def _proxies() -> Iterator[tuple[str, str]]:
    """(variable, value) of every proxy that the HTTP library would prepare, whichever address is asked."""
    found = getproxies()
    if "*" in (host.strip() for host in found.get("no", "").split(",")):
        return
    for scheme in ("http", "https", "all"):
        if found.get(scheme):
            yield _variable(scheme, found[scheme]), found[scheme]


def proxy_of(url: str) -> str:
    """Name of the environment variable whose proxy requests to `url` go through; "" for none."""
    parts, found = urlsplit(url), getproxies()
    scheme = next((scheme for scheme in (parts.scheme, "all") if found.get(scheme)), None)
    return "" if scheme is None or proxy_bypass(parts.hostname or "") else _variable(scheme, found[scheme])


def _variable(scheme: str, value: str) -> str:
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((name for name in names if os.environ.get(name) == value), names[1])


def _check_proxy(name: str, url: str) -> None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0  # a wrong port raises
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"the environment variable {name} holds no address of a proxy that can be used; write http://host:port or "
            "socks5://host:port, or unset it"
        )
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise UserError(
            f"the environment variable {name} names a SOCKS proxy ({parts.scheme}://{parts.hostname}), and the package for "
            f"it is not installed: pip install socksio; or unset it (env -u {name} llm2llm …)"
        )
