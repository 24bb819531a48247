"""Fetch: a URL that a caller gave becomes a file, or an error that tells nothing of the network behind this server.

The only module that opens a connection. It never goes where the operator did not allow, nor to an address that is not public: the name
is resolved once, every answer is judged, and the judged address itself is dialled, at each redirect again. Blocking; call it in a thread.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from bindery.errors import StorageFull, TooManyBytes, UrlFetchFailed, UrlNotAllowed
from bindery.limits import Limits

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[Address]]

CHUNK_BYTES = 64 * 1024
_USUAL = Limits()
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"  # what stays as it is in a path and query; the rest is escaped

# Beyond what `is_global` refuses: addresses that hold an IPv4 address inside, and what clouds use for their metadata.
_NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata is in it
        "169.254.0.0/16",
        "168.63.129.16/32",  # a cloud's host agent, on an address that looks public
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "224.0.0.0/3",  # multicast and reserved
        "::/96",
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64, with the next
        "64:ff9b:1::/48",
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fc00::/7",
        "fe80::/9",  # link-local and the old site-local
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What may be fetched. ``hosts``: names, or ``*.name`` for all below it; empty allows every public host."""

    schemes: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset(_PORTS.values())
    most_chars: int = _USUAL.url_chars
    most_bytes: int = _USUAL.url_bytes
    connect_seconds: float = _USUAL.url_connect_seconds
    total_seconds: float = _USUAL.url_seconds
    redirects: int = _USUAL.url_redirects
    allow: tuple[Network, ...] = ()  # taken for public; for tests against servers on this machine, no setting reaches it
    tls: ssl.SSLContext | None = None  # other than the system's certificates; for the same tests


def resolve(host: str, port: int) -> Sequence[Address]:
    """What the system says. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0])) for entry in found]


def fetch(
    url: str, into: Path, policy: UrlPolicy, *, deadline: float, gone: threading.Event | None = None, resolver: Resolve = resolve
) -> None:
    """Write what is at ``url`` into the existing file ``into``.

    ``deadline`` is on `time.monotonic`; ``gone`` ends the work early.
    Raises `UrlNotAllowed`, `UrlFetchFailed`, `TooManyBytes`, `StorageFull`.
    """
    target, gone = check_url(url, policy), gone or threading.Event()
    for _ in range(policy.redirects + 1):
        addresses = _judged(target, policy, resolver)
        if gone.is_set() or monotonic() >= deadline:  # it may have waited for a thread, or for the name, all the time it had
            raise UrlFetchFailed(_LATE)
        with _asked(target, addresses, policy, deadline) as (response, sock):
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or location is None:
                _store(response, sock, into, policy, deadline, gone)
                return
        following = check_url(urljoin(target.geturl(), location), policy)
        if target.scheme == "https" and following.scheme == "http":
            raise UrlNotAllowed("the URL leads from https to http")
        target = following
    raise UrlFetchFailed(f"the URL leads on more than {policy.redirects} times")


def check_url(url: str, policy: UrlPolicy) -> SplitResult:
    """The parts of a URL that may be asked for. Raises `UrlNotAllowed`, before anything is looked up."""
    if not policy.schemes:
        raise UrlNotAllowed("this server fetches no URLs; send the bytes as base64 or as a data: URI in `data`")
    if len(url) > policy.most_chars or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise UrlNotAllowed(f"a URL has at most {policy.most_chars} characters, none of them a blank or a control character")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode("ascii").rstrip("."), parts.port
    except ValueError as error:  # brackets, port or host name; the reason would quote it
        raise UrlNotAllowed("the URL cannot be parsed") from error
    if parts.scheme not in policy.schemes:
        raise UrlNotAllowed(f"this server fetches {' and '.join(sorted(policy.schemes, reverse=True))} URLs only")
    if "@" in parts.netloc:
        raise UrlNotAllowed("a URL with a user name or a password is not fetched")
    if not host:
        raise UrlNotAllowed("the URL has no host")
    if policy.hosts and not any(_is_at(host, allowed.lower()) for allowed in policy.hosts):
        raise UrlNotAllowed("the URL's host is none of those that this server fetches from")
    if (port or _PORTS[parts.scheme]) not in policy.ports:
        raise UrlNotAllowed(f"only the ports {', '.join(map(str, sorted(policy.ports)))} are fetched from")
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=shown if port is None else f"{shown}:{port}", fragment="")


def is_public(address: Address, allow: Sequence[Network] = ()) -> bool:
    """Whether everybody's network leads there: nothing of this machine, this house or this cloud."""
    if any(address.version == network.version and address in network for network in allow):
        return True
    return address.is_global and not any(address.version == network.version and address in network for network in _NEVER)


def _is_at(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _judged(target: SplitResult, policy: UrlPolicy, resolver: Resolve) -> Sequence[Address]:
    """The host's addresses, asked for once. One that is not public is enough to refuse: who answers so is up to something."""
    host = target.hostname or ""
    try:
        found = resolver(host, _port(target))
    except (OSError, UnicodeError) as error:
        raise UrlFetchFailed("the URL's host is not known") from error
    if not found:
        raise UrlFetchFailed("the URL's host is not known")
    if not all(is_public(address, policy.allow) for address in found):
        raise UrlNotAllowed("the URL's host is not a public one")
    return found


@contextmanager
def _asked(
    target: SplitResult, addresses: Sequence[Address], policy: UrlPolicy, deadline: float
) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
    """The answer's head, read; its body is still on the line."""
    with _failures(deadline):
        connection = _Pinned(target, addresses, policy, deadline)
        try:
            sock = connection.dial()
            with _cut_at(sock, deadline):
                path = quote(target.path or "/", safe=_URL_CHARACTERS) + (
                    f"?{quote(target.query, safe=_URL_CHARACTERS)}" if target.query else ""
                )
                # No compression: a small body that grows without end would have to be bounded a second time.
                headers = {"User-Agent": "bindery", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                try:
                    yield response, sock
                finally:
                    response.close()
        finally:
            connection.close()


def _store(
    response: http.client.HTTPResponse, sock: socket.socket, into: Path, policy: UrlPolicy, deadline: float, gone: threading.Event
) -> None:
    if response.status != 200:
        raise UrlFetchFailed(f"the URL's server answered {response.status}")
    if response.getheader("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UrlFetchFailed("the URL's server sent a compressed body, which it was asked not to")
    if response.length is not None and response.length > policy.most_bytes:
        raise _too_many(policy)
    taken = 0
    with _writing(into) as write:
        while chunk := response.read1(CHUNK_BYTES):
            taken += len(chunk)
            if taken > policy.most_bytes:
                raise _too_many(policy)
            if gone.is_set():
                raise UrlFetchFailed(_LATE)
            write(chunk)
            sock.settimeout(max(0.001, deadline - monotonic()))
    if monotonic() >= deadline or response.length:  # cut off by us, or by the other side
        raise UrlFetchFailed(_LATE if monotonic() >= deadline else "the URL's server broke off")


@contextmanager
def _writing(into: Path) -> Iterator[Callable[[bytes], None]]:
    """Our own disk's troubles, which are not the other server's."""
    lost = "what is at the URL cannot be written to the temporary folder of this server"
    try:
        file = into.open("r+b")  # not made anew: when the caller is gone, so is the file
    except OSError as error:
        raise StorageFull(lost) from error

    def write(chunk: bytes) -> None:
        try:
            file.write(chunk)
            file.flush()
        except OSError as error:
            raise StorageFull(lost) from error

    with file:
        yield write


class _Pinned(http.client.HTTPConnection):
    """A connection to judged addresses; the name goes into `Host` and into TLS, where the certificate must fit it."""

    def __init__(self, target: SplitResult, addresses: Sequence[Address], policy: UrlPolicy, deadline: float) -> None:
        super().__init__(target.hostname or "", _port(target))
        self.default_port = _PORTS[target.scheme]
        self._is_tls = target.scheme == "https"
        self._addresses = addresses
        self._policy = policy
        self._until = min(deadline, monotonic() + policy.connect_seconds)

    def dial(self) -> socket.socket:
        """The first address that answers. Raises `OSError`."""
        problem: OSError = TimeoutError()
        for address in self._addresses:
            try:
                self.sock = self._connected(address)
            except OSError as error:
                problem = error
            else:
                return self.sock
        raise problem

    def connect(self) -> None:
        raise AssertionError("dialled by `dial` only; a second connection would go to an address that nobody judged. This is a bug.")

    def _connected(self, address: Address) -> socket.socket:
        # A literal address, so nothing is looked up again.
        sock = socket.create_connection((str(address), self.port), timeout=max(0.001, self._until - monotonic()))
        if not self._is_tls:
            return sock
        try:
            return (self._policy.tls or _system_tls()).wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise


@cache  # reading the system's certificates takes longer than most fetches
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@contextmanager
def _cut_at(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Ends the connection at the deadline: a time-out of each read alone would let a byte a second go on for ever."""

    def cut() -> None:
        with suppress(OSError):  # it has ended by itself
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _failures(deadline: float) -> Iterator[None]:
    """Whatever goes wrong on the line as one error, without the address, the certificate or the answer in it."""
    try:
        yield
    except ssl.SSLError as error:
        raise UrlFetchFailed("the URL's server has no valid TLS certificate, or no TLS") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = monotonic() >= deadline or isinstance(error, TimeoutError)
        raise UrlFetchFailed(_LATE if late else "the URL's server could not be reached, or broke off") from error


_LATE = "the URL's server took too long"


def _port(target: SplitResult) -> int:
    return target.port or _PORTS[target.scheme]


def _too_many(policy: UrlPolicy) -> TooManyBytes:
    return TooManyBytes(f"what is at the URL has more than {policy.most_bytes} bytes (limit url_bytes)")
