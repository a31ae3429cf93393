"""What leaves this process, and what never does: the one seam for outbound calls, against real sockets."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.http import RETRY_AFTER_SECONDS, Answer, Outbound, OutboundFailed, OutboundRefused, is_public
from tests.receivers import HttpSink, http_sink

pytestmark = pytest.mark.slow

REFUSED = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "nonsense",
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1")


def resolving(*answers: Sequence[str]) -> tuple[list[str], Outbound]:
    """An outbound whose names resolve to these answers, one a look-up; and the log of what was looked up."""
    looked_up: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        looked_up.append(f"{host}:{port}")
        return list(answers[len(looked_up) - 1])

    return looked_up, Outbound(resolve=resolve)


async def post(outbound: Outbound, url: str, deadline_seconds: float = 5.0) -> Answer:
    return await outbound.post(url, content=b"{}", headers={}, deadline_seconds=deadline_seconds)


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_no_public_unicast_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0",
        "0x7f000001",
        "2130706433",
        "localhost",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ],
)
async def test_a_literal_in_any_spelling_is_refused(host: str) -> None:
    with pytest.raises(OutboundRefused, match="no public address"):
        await post(Outbound(), f"https://{host}/hook")


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    _, outbound = resolving(["8.8.8.8", "10.0.0.7"])
    with pytest.raises(OutboundRefused, match=r"10\.0\.0\.7"):
        await post(outbound, "https://hooks.acme.example/x")


async def test_a_name_that_is_rebound_after_the_check_reaches_nothing_new() -> None:
    looked_up, outbound = resolving(["192.0.1.1"], ["127.0.0.1"])
    with pytest.raises(OutboundFailed):
        await post(outbound, "https://rebound.example/", deadline_seconds=0.3)
    assert looked_up == ["rebound.example:443"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.acme.example/", "only https"),
        ("ftp://hooks.acme.example/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://hooks.acme.example/", "scheme"),
        ("https:///hook", "host"),
        ("https://user:secret@hooks.acme.example/", "credentials"),
        ("https://hooks.acme.example:22/", "port 22"),
        ("https://hooks.acme.example/" + "x" * 3000, "longer"),
        ("https://[::1", "not a URL"),
    ],
)
async def test_a_url_that_no_webhook_has_is_refused_before_any_look_up(url: str, why: str) -> None:
    looked_up, outbound = resolving(["8.8.8.8"])
    with pytest.raises(OutboundRefused, match=why):
        await post(outbound, url)
    assert looked_up == []


async def test_a_refusal_does_not_quote_a_password() -> None:
    with pytest.raises(OutboundRefused) as refused:
        await post(Outbound(), "https://user:hunter2@hooks.acme.example/")
    assert "hunter2" not in str(refused.value)


async def test_what_the_operator_vouches_for_is_called_by_plain_http() -> None:
    async with http_sink() as sink:
        answer = await Outbound(frozenset({sink.place})).post(
            sink.url("/in?x=1"), content=b"body", headers={"X-Mark": "1"}, deadline_seconds=5
        )
    assert answer == Answer(200, "ok")
    assert (sink.ledger[0].path, sink.ledger[0].body, sink.ledger[0].headers["x-mark"]) == ("/in?x=1", b"body", "1")


async def test_the_allowance_is_for_that_port_alone() -> None:
    async with http_sink() as sink, http_sink() as other:
        with pytest.raises(OutboundRefused):
            await post(Outbound(frozenset({sink.place})), other.url())
    assert other.ledger == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_sink() as sink, http_sink() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        await post(Outbound(frozenset({sink.place})), sink.url())
    assert (len(sink.ledger), len(proxy.ledger)) == (1, 0)


async def test_a_redirect_is_an_answer_and_its_target_stays_unvisited() -> None:
    async with http_sink() as target, http_sink(HttpSink(mode="redirect", redirect_to=target.url())) as sink:
        answer = await post(Outbound(frozenset({sink.place, target.place})), sink.url())
    assert (answer.status, answer.is_success, target.ledger) == (302, False, [])


async def test_an_endless_body_is_cut_at_2048_characters() -> None:
    async with http_sink(HttpSink(mode="endless")) as sink:
        answer = await post(Outbound(frozenset({sink.place})), sink.url())
    assert (answer.status, len(answer.excerpt)) == (200, 2048)


async def test_a_dripping_body_ends_at_the_deadline_and_keeps_its_status() -> None:
    async with http_sink(HttpSink(mode="drip")) as sink, asyncio.timeout(3):
        answer = await post(Outbound(frozenset({sink.place})), sink.url(), deadline_seconds=0.5)
    assert answer.is_success
    assert answer.excerpt.endswith("[cut]")


async def test_a_receiver_that_says_nothing_fails_at_the_deadline() -> None:
    async with http_sink(HttpSink(mode="silent")) as sink, asyncio.timeout(3):
        with pytest.raises(OutboundFailed, match=r"within 0\.3 s"):
            await post(Outbound(frozenset({sink.place})), sink.url("/secret-path"), deadline_seconds=0.3)


async def test_a_broken_connection_fails_without_naming_the_path() -> None:
    async with http_sink(HttpSink(mode="lost")) as sink:
        with pytest.raises(OutboundFailed) as failed:
            await post(Outbound(frozenset({sink.place})), sink.url("/secret-path"))
    assert "secret-path" not in str(failed.value)


async def test_an_unknown_name_fails_and_may_be_tried_again() -> None:
    with pytest.raises(OutboundFailed):
        await post(Outbound(), "https://nowhere.invalid/")


async def test_the_next_address_is_tried_when_the_first_takes_no_connection() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with http_sink() as sink:
        outbound = Outbound(frozenset({f"two.example:{sink.port}"}), resolve=resolve)
        answer = await post(outbound, f"http://two.example:{sink.port}/")
    assert answer.is_success
    assert sink.ledger[0].headers["host"] == f"two.example:{sink.port}"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1000000000", RETRY_AFTER_SECONDS),
        ("9" * 400, RETRY_AFTER_SECONDS),
        ("-5", None),
        ("1e9", None),
        ("soon", None),
        ("Fri, 21 Nov 2036 10:00:00 GMT", None),
        ("Fri, 21 Nov 2036 10:01:00 GMT\r\nDate: Fri, 21 Nov 2036 10:00:00 GMT", 60.0),
        ("Fri, 21 Nov 2036 09:00:00 GMT\r\nDate: Fri, 21 Nov 2036 10:00:00 GMT", 0.0),
    ],
)
async def test_retry_after_is_clamped_to_an_hour(value: str, seconds: float | None) -> None:
    async with http_sink(HttpSink(mode="429", retry_after=value)) as sink:
        answer = await post(Outbound(frozenset({sink.place})), sink.url())
    assert answer.retry_after_seconds == seconds


async def test_the_certificate_is_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    server, client = _tls("hooks.acme.example", tmp_path)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with http_sink(tls=server) as sink:
        places = frozenset({f"{name}:{sink.port}" for name in ("hooks.acme.example", "other.example")})
        outbound = Outbound(places, resolve=resolve, tls=client)
        answer = await post(outbound, f"https://hooks.acme.example:{sink.port}/")
        with pytest.raises(OutboundFailed):
            await post(outbound, f"https://other.example:{sink.port}/")
    assert answer.is_success
    assert [call.headers["host"] for call in sink.ledger] == [f"hooks.acme.example:{sink.port}"]


def _tls(name: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server of that name, and of a client that trusts it."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name}"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
