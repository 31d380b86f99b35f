"""What surrounds a service's client: key, certificates and proxies of this machine. Real TLS, real sockets."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from openai_server import answer, serving

from llm2llm_ray.asking.openai_service import OpenAITeacher
from llm2llm_ray.asking.request import Request
from llm2llm_ray.config.teacher import RequestConfig, TeacherConfig
from llm2llm_ray.errors import UserError
from llm2llm_ray.types import Message, Prompt

KEY = "sk-secret-0123456789"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    # Reading the world's authorities is most of what a client costs.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(__file__).parent))


def probe(url: str, **fields: Any) -> None:
    async def go() -> None:
        settings = {"timeout_s": 5.0, "api_key_env": "TEACHER_KEY", **fields}
        teacher = OpenAITeacher(TeacherConfig(kind="openai", model="big", base_url=url, **settings), backoff_s=0.01)
        prompt = Prompt(messages=(Message(role="user", content="One more."),))
        try:
            await teacher.probe([Request(row_id="s-1", prompt=prompt, sampling={"temperature": 1.0, "max_tokens": 9})])
        finally:
            await teacher.aclose()

    asyncio.run(go())


def refused(url: str, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        probe(url, **fields)
    return str(error.value)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """(certificate, certificate and key) signed by itself; made by openssl, as people make theirs."""
    key, file, both = folder / "key.pem", folder / "ca.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=teacher", "-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(file)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    both.write_text(file.read_text() + key.read_text())
    return file, both


def test_a_self_signed_certificate_is_named_and_teacher_ca_file_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, both = certificate(tmp_path, "IP:127.0.0.1")
    with serving(answer(), certificate=both) as service:
        message = refused(service.url)
        probe(service.url, ca_file=str(file))
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        probe(service.url)
    assert message.startswith(f"teacher.base_url {service.url}: its certificate is not trusted: self-signed certificate; ")
    assert "set teacher.ca_file (or SSL_CERT_FILE): a PEM file" in message
    assert len(service.requests) == 2, "a service that is not trusted hears nothing, the key least of all"


def test_another_authority_and_another_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    ours, both = certificate(tmp_path / "a", "DNS:teacher.example")
    theirs, _ = certificate(tmp_path / "b", "DNS:teacher.example")
    with serving(answer(), certificate=both) as service:
        other_authority, other_name = refused(service.url, ca_file=str(theirs)), refused(service.url, ca_file=str(ours))
    assert f"self-signed certificate; {theirs} does not hold its authority" in other_authority
    assert "IP address mismatch" in other_name and "use the name that the certificate holds in teacher.base_url" in other_name


def test_tls_asked_of_a_service_without_it() -> None:
    with serving(answer()) as service:
        message = refused(service.url.replace("http://", "https://"))
    assert "connection failed: TLS: " in message and "http:// instead of https://?" in message


@pytest.mark.parametrize("name", ["teacher.ca_file", "SSL_CERT_FILE"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, key, none = tmp_path / "text.pem", tmp_path / "key.pem", tmp_path / "none.pem"
    text.write_text("no certificate")
    _, both = certificate(tmp_path, "IP:127.0.0.1")
    key.write_text("-----BEGIN PRIVATE" + both.read_text().partition("-----BEGIN PRIVATE")[2])

    def told(file: Path) -> str:
        monkeypatch.setenv("SSL_CERT_FILE", str(file) if name == "SSL_CERT_FILE" else "")
        return refused("https://127.0.0.1:9/v1", ca_file=str(file) if name == "teacher.ca_file" else None)

    assert told(text) == f"{name} {text}: no certificate in it; give a PEM file (-----BEGIN CERTIFICATE-----)"
    assert told(key).startswith(f"{name} {key}: no certificate in it")
    assert told(none).startswith(f"{name} {none}: cannot be read (No such file or directory)")
    assert told(tmp_path).startswith(f"{name} {tmp_path}: cannot be read (Is a directory)")


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "http_proxy"])
def test_a_socks_proxy_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "socks5://me:hunter2@127.0.0.1:9")
    message = refused("http://127.0.0.1:9/v1")
    assert message == (
        f"the environment variable {variable} names a SOCKS proxy (socks5://127.0.0.1), and the package for it is not installed: "
        f"pip install socksio; or unset it (env -u {variable} llm2llm …)"
    )


@pytest.mark.parametrize(
    "value",
    ["ftp://hunter2:9", "http://127.0.0.1:hunter2", "http://hunter2:99999", "http://[hunter2", "socks4://hunter2:9", "http://"],
)
def test_a_proxy_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    message = refused("https://127.0.0.1:9/v1")
    assert message.startswith("the environment variable HTTPS_PROXY holds no address of a proxy that can be used; write http://")
    assert "hunter2" not in message


def test_a_proxy_that_does_not_answer_is_said_to_stand_between(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{port}")
    message = refused("http://teacher.invalid/v1")
    assert "unreachable (asked through the proxy of HTTP_PROXY): connection failed: Connection refused" in message
    assert "hunter2" not in message
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(answer()) as service:
        probe(service.url)  # not by the proxy


def test_proxies_that_are_never_used_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(UserError, match="socks"):
        probe("http://127.0.0.1:9/v1")
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(answer()) as service:
        probe(service.url)
        assert len(service.requests) == 1


def test_a_key_written_into_the_request_is_refused() -> None:
    message = refused("http://127.0.0.1:9/v1", request=RequestConfig(add={"user": f"me {KEY}"}))
    assert message.startswith("teacher.request.add holds the key of TEACHER_KEY") and KEY not in message
