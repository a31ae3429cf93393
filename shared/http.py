"""The one way out over HTTP, and the only module that knows httpx. It cannot be led to a private address (law 9).

A name is resolved once, every address it has is judged, and the connection goes to the very address that was judged:
a second look-up (rebinding), a proxy from the environment or a redirect would each move it past the check. An egress
proxy or a subnet of its own for the notifier is still good advice; this is the last line, not the only one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

PORTS = frozenset({443, 8443})
URL_CHARACTERS = 2048
EXCERPT_CHARACTERS = 2048
RETRY_AFTER_SECONDS = 3600.0  # longer than that nobody may make us wait: `Retry-After: 1e9` is an attack or a mistake

# Unicast on the internet, but none of ours to call: what IANA's special-purpose registries list, and a cloud's own.
REFUSED_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata lives at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, on a public address
        "169.254.0.0/16",  # link-local: cloud metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only global unicast is allowed at all: that leaves out ::1, mapped and compatible IPv4, NAT64, fc00::/7, fe80::/10,
# fec0::/10, SRv6 (5f00::/16) and multicast without naming them.
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
REFUSED_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 carries an IPv4 address inside
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
)

Resolver = Callable[[str, int], Awaitable[list[str]]]


class OutboundRefused(Exception):
    """This call is never made as the URL stands; the message says why and what would have to change."""


class OutboundFailed(Exception):
    """No answer: not resolved, not connected, broken off, or not within the deadline. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said. Only 2xx is a success; a redirect is an answer like any other and is not followed.

    `excerpt`: the body's beginning, at most 2048 characters, hostile text. `retry_after_seconds`: 0 to one hour.
    """

    status: int
    excerpt: str
    retry_after_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: the judged addresses, tried in order, under the name that the URL gave."""

    url: httpx.URL
    addresses: tuple[str, ...]


async def system_resolver(host: str, port: int) -> list[str]:
    """Every address of the host, as the system resolves it. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Outbound:
    """Calls to the outside. `allow_private`: "host:port" that the operator vouches for: any address, plain http too."""

    def __init__(
        self,
        allow_private: frozenset[str] = frozenset(),
        *,
        connect_seconds: float = 5.0,
        resolve: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = frozenset(entry.lower() for entry in allow_private)
        self._connect_seconds = connect_seconds
        self._resolve = resolve
        self._tls = tls or httpx.create_ssl_context(trust_env=False)

    async def post(self, url: str, *, content: bytes, headers: Mapping[str, str], deadline_seconds: float) -> Answer:
        """Post once. Raises `OutboundRefused`, and `OutboundFailed` when there is no status within the deadline."""
        deadline = asyncio.get_running_loop().time() + deadline_seconds
        try:
            async with asyncio.timeout_at(deadline):
                target = await self._target(url)
            return await self._exchange(target, content, headers, deadline)
        except TimeoutError as error:
            raise OutboundFailed(f"no answer within {deadline_seconds:g} s") from error
        except (httpx.HTTPError, OSError) as error:
            raise OutboundFailed(f"{type(error).__name__} on the way to {_place(httpx.URL(url))}") from error

    async def _target(self, url: str) -> Target:
        """The address to call, judged. A host:port that the operator vouches for is resolved once all the same."""
        parsed = _parsed(url)
        is_allowed = _place(parsed) in self._allowed
        if not is_allowed:
            _require_public(parsed.scheme, _port(parsed))
        try:
            addresses = await self._resolve(parsed.raw_host.decode("ascii"), _port(parsed))
        except UnicodeError as error:
            raise OutboundRefused(f"{parsed.host!r} is no host name") from error
        if not addresses:
            raise OutboundFailed(f"{parsed.host} has no address")
        if not is_allowed and (refused := [address for address in addresses if not is_public(address)]):
            raise OutboundRefused(
                f"{parsed.host} resolves to {refused[0]}, which is no public address; "
                f"if that is meant, name {_place(parsed)} in BATON_OUTBOUND_ALLOW_PRIVATE"
            )
        return Target(parsed, tuple(dict.fromkeys(addresses)))

    async def _exchange(self, target: Target, content: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        """One request on a connection of its own: a pooled one would be known by its address, not by its name."""
        named = {"Host": target.url.netloc.decode("ascii"), "Connection": "close", "Accept-Encoding": "identity"}
        async with httpx.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=self._connect_seconds),  # the deadline bounds the rest
        ) as client:
            async with asyncio.timeout_at(deadline):
                response = await _sent(client, target, content, {"User-Agent": "baton", **headers, **named})
            try:
                excerpt = await _excerpt(response, deadline)
            finally:
                await response.aclose()
            return Answer(response.status_code, excerpt, _retry_after(response.headers))


def is_public(address: str) -> bool:
    """Whether an IP address is ordinary unicast on the internet. (`ipaddress.is_global` says yes to NAT64 and 6to4.)"""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in REFUSED_IPV4)
    if parsed.scope_id is not None or parsed not in GLOBAL_IPV6:
        return False
    return not any(parsed in network for network in REFUSED_IPV6)


def _parsed(url: str) -> httpx.URL:
    if len(url) > URL_CHARACTERS:
        raise OutboundRefused(f"the URL is longer than {URL_CHARACTERS} characters")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise OutboundRefused(f"not a URL: {error}") from error
    if parsed.scheme not in ("https", "http") or not parsed.host:
        raise OutboundRefused(f"scheme {parsed.scheme!r} with host {parsed.host!r}; expected https://host")
    if parsed.userinfo:
        raise OutboundRefused("the URL carries a user or password; credentials belong in a signature")
    return parsed


def _require_public(scheme: str, port: int) -> None:
    if scheme != "https":
        raise OutboundRefused(
            "only https leaves this process; a host:port in BATON_OUTBOUND_ALLOW_PRIVATE may be called by http"
        )
    if port not in PORTS:
        raise OutboundRefused(f"port {port}; allowed: {', '.join(str(port) for port in sorted(PORTS))}")


async def _sent(
    client: httpx.AsyncClient, target: Target, content: bytes, headers: Mapping[str, str]
) -> httpx.Response:
    """The answer's head, from the first address that takes a connection: before one stands, nothing was sent."""
    *others, last = target.addresses
    for address in (*others, last):
        request = client.build_request(
            "POST",
            target.url.copy_with(host=address),
            content=content,
            headers=headers,
            extensions={"sni_hostname": target.url.raw_host.decode("ascii")},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == last:
                raise
    raise AssertionError("unreachable")


async def _excerpt(response: httpx.Response, deadline: float) -> str:
    """The body's beginning. The status has been said: a body that drips or breaks off only shortens the excerpt."""
    body = b""
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) >= EXCERPT_CHARACTERS:
                    break
    except (TimeoutError, httpx.HTTPError):
        body += b" [cut]"
    return body.decode("utf-8", "replace").replace("\x00", "")[:EXCERPT_CHARACTERS]


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds, from a number or a date; a date is read against the receiver's own `Date`, whatever our clock says."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), RETRY_AFTER_SECONDS)
    try:
        asked = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(asked.total_seconds(), 0.0), RETRY_AFTER_SECONDS)


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _place(url: httpx.URL) -> str:
    """Host and port, as the setting names them; never the path or the query, which may hold a secret (Slack's does)."""
    return f"[{url.host}]:{_port(url)}" if ":" in url.host else f"{url.host}:{_port(url)}"
