"""Fetching URLs against servers on this machine. Names are resolved by the tests; loopback is let through by a constructor argument."""

from __future__ import annotations

import http.server
import ipaddress
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bindery.errors import StorageFull, TooManyBytes, UrlFetchFailed, UrlNotAllowed
from bindery.media import fetch as module
from bindery.media.fetch import Address, UrlPolicy, check_url, fetch, is_public

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
BODY = b"\x89PNG and more" * 1000
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Site:
    """A server whose answers are functions by path; it notes what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                try:
                    site.pages[self.path](self)
                except OSError:  # the client has hung up, as some tests want
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def sends(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def leads_to(url: str, status: int = 302) -> Answer:
    return sends(b"see there", status, Location=url)


class Names:
    """A resolver that knows these names and counts how often it is asked."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> Sequence[Address]:
        self.asked.append(host)
        found = self.names.get(host.replace(".", "_").replace("-", "_"))
        if found is None:
            raise OSError("no such name")
        return [ipaddress.ip_address(one) for one in found]


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.pages["/a.png"] = sends(BODY)
        yield site


@pytest.fixture
def policy(site: Site) -> UrlPolicy:
    return UrlPolicy(schemes=frozenset({"http", "https"}), ports=frozenset({80, 443, site.port}), most_bytes=100_000, allow=LOOPBACK)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "fetched"
    path.touch()
    return path


NAMES = Names(files_example=["127.0.0.1"])


def get(url: str, into: Path, policy: UrlPolicy, resolver: Names = NAMES, seconds: float = 10.0) -> bytes:
    fetch(url, into, policy, deadline=time.monotonic() + seconds, resolver=resolver)
    return into.read_bytes()


def test_a_file_arrives_whole_and_the_server_sees_name_and_no_secrets(site: Site, policy: UrlPolicy, into: Path) -> None:
    site.pages["/dir/%C3%A4%20b.png?x=1&y=%2F"] = sends(BODY)
    assert get(f"http://files.example:{site.port}/dir/ä%20b.png?x=1&y=%2F#part", into, policy) == BODY
    headers = site.asked[0][1]
    assert headers == {
        "host": f"files.example:{site.port}",
        "user-agent": "bindery",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }


def test_proxies_of_the_environment_are_not_used(site: Site, policy: UrlPolicy, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(f"http://files.example:{site.port}/a.png", into, policy) == BODY


def test_nothing_is_fetched_by_default(into: Path) -> None:
    names = Names(files_example=["127.0.0.1"])
    with pytest.raises(UrlNotAllowed, match="fetches no URLs"):
        get("https://files.example/a.png", into, UrlPolicy(), names)
    assert names.asked == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://files.example/a", "https URLs only"),
        ("ftp://files.example/a", "https URLs only"),
        ("file:///etc/passwd", "https URLs only"),
        ("//files.example/a", "https URLs only"),
        ("data:image/png;base64,AAAA", "https URLs only"),
        ("https:///a", "no host"),
        ("https://user:secret@files.example/a", "user name or a password"),
        ("https://files.example@127.0.0.1/a", "user name or a password"),
        ("https://files.example:22/a", "only the ports 80, 443"),
        ("https://files.example:99999/a", "cannot be parsed"),
        ("https://[::1/a", "cannot be parsed"),
        ("https://files.example/a b", "blank or a control"),
        ("https://files.example/a\r\nHost: x", "blank or a control"),
        ("https://files.example/" + "a" * 5000, "at most 4096"),
        ("https://" + "a" * 70 + ".example/", "cannot be parsed"),
    ],
)
def test_urls_that_are_not_for_us_are_refused_before_anything_is_looked_up(url: str, reason: str, into: Path) -> None:
    names = Names(files_example=["127.0.0.1"])
    with pytest.raises(UrlNotAllowed, match=reason) as told:
        get(url, into, UrlPolicy(schemes=frozenset({"https"}), allow=LOOPBACK), names)
    assert names.asked == []
    assert "secret" not in told.value.detail


def test_only_hosts_of_the_list_are_asked() -> None:
    policy = UrlPolicy(schemes=frozenset({"https"}), hosts=("files.example", "*.cdn.example"))
    for good in ("https://files.example/a", "https://FILES.example./a", "https://a.b.cdn.example/a"):
        check_url(good, policy)
    for bad in (
        "https://other.example/",
        "https://a.files.example/",
        "https://cdn.example/",
        "https://evilcdn.example/",
        "https://files.example.evil/",
    ):
        with pytest.raises(UrlNotAllowed, match="none of those"):
            check_url(bad, policy)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
        "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1",
        "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"])
def test_this_machine_is_refused_however_it_is_written(host: str, site: Site, into: Path) -> None:
    """With the system's own resolver, and without the tests' way in."""
    policy = UrlPolicy(schemes=frozenset({"http"}), ports=frozenset({site.port}))
    with pytest.raises((UrlNotAllowed, UrlFetchFailed), match=r"not a public one|is not known"):
        fetch(f"http://{host}:{site.port}/a.png", into, policy, deadline=time.monotonic() + 5)
    assert site.asked == []


def test_one_answer_that_is_not_public_refuses_the_name(site: Site, policy: UrlPolicy, into: Path) -> None:
    with pytest.raises(UrlNotAllowed, match="not a public one") as told:
        get(f"http://mixed.example:{site.port}/a.png", into, policy, Names(mixed_example=["127.0.0.1", "10.0.0.7"]))
    assert "10.0.0.7" not in told.value.detail
    assert site.asked == []


def test_a_name_is_resolved_once_and_that_answer_is_dialled(site: Site, policy: UrlPolicy, into: Path) -> None:
    class Rebinding(Names):
        def __call__(self, host: str, _port: int) -> Sequence[Address]:
            super().__call__(host, _port)
            return [ipaddress.ip_address("127.0.0.1" if len(self.asked) == 1 else "10.0.0.7")]

    names = Rebinding(rebinding_example=["127.0.0.1"])
    assert get(f"http://rebinding.example:{site.port}/a.png", into, policy, names) == BODY
    assert names.asked == ["rebinding.example"]


def test_redirects_are_followed_and_each_is_judged_again(site: Site, policy: UrlPolicy, into: Path) -> None:
    names = Names(files_example=["127.0.0.1"], other_example=["127.0.0.1"], inside_example=["10.0.0.7"])
    site.pages["/1"] = leads_to("/2", 307)
    site.pages["/2"] = leads_to(f"http://other.example:{site.port}/a.png", 301)
    assert get(f"http://files.example:{site.port}/1", into, policy, names) == BODY
    assert names.asked == ["files.example", "files.example", "other.example"]
    for target, error, reason in (
        (f"http://inside.example:{site.port}/a.png", UrlNotAllowed, "not a public one"),
        ("http://169.254.169.254/latest/meta-data", UrlNotAllowed, "not a public one"),
        ("file:///etc/passwd", UrlNotAllowed, "URLs only"),
        ("http://files.example:22/", UrlNotAllowed, "only the ports"),
        (f"http://u:p@files.example:{site.port}/a.png", UrlNotAllowed, "password"),
        (f"http://nowhere.example:{site.port}/", UrlFetchFailed, "is not known"),
    ):
        site.pages["/out"] = leads_to(target)
        names.names["169_254_169_254"] = ["169.254.169.254"]
        with pytest.raises(error, match=reason) as told:
            get(f"http://files.example:{site.port}/out", into, policy, names)
        assert not any(part in told.value.detail for part in ("inside", "10.0.0.7", "169.254", "passwd"))
    narrow = replace(policy, hosts=("files.example",))
    with pytest.raises(UrlNotAllowed, match="none of those"):
        get(f"http://files.example:{site.port}/1", into, narrow, names)


def test_redirects_end(site: Site, policy: UrlPolicy, into: Path) -> None:
    site.pages["/loop"] = leads_to("/loop")
    with pytest.raises(UrlFetchFailed, match="more than 3 times"):
        get(f"http://files.example:{site.port}/loop", into, policy)
    assert len(site.asked) == 4


def test_a_body_beyond_the_limit_is_refused_by_its_length_or_as_it_comes(site: Site, policy: UrlPolicy, into: Path) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(64 * 1024))

    site.pages["/long"] = sends(bytes(200_000))
    site.pages["/endless"] = endless
    for path in ("long", "endless"):
        with pytest.raises(TooManyBytes, match=r"more than 100000 bytes \(limit url_bytes\)"):
            get(f"http://files.example:{site.port}/{path}", into, policy)
    assert into.stat().st_size <= 100_000


def test_a_compressed_body_is_refused(site: Site, policy: UrlPolicy, into: Path) -> None:
    site.pages["/z"] = sends(b"x", Content_Encoding="gzip")
    with pytest.raises(UrlFetchFailed, match="compressed"):
        get(f"http://files.example:{site.port}/z", into, policy)


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
def test_other_answers_are_told_by_their_number_only(status: int, site: Site, policy: UrlPolicy, into: Path) -> None:
    site.pages["/x"] = sends(b"" if status in (204, 304) else b"secret of the other side", status, Content_Type="text/plain")
    with pytest.raises(UrlFetchFailed, match=f"answered {status}") as told:
        get(f"http://files.example:{site.port}/x", into, policy)
    assert "secret" not in told.value.detail


def _drips(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b".")
        time.sleep(0.05)


def _drips_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        handler.wfile.write(b".")
        time.sleep(0.05)


def _says_nothing(_: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(2)


@pytest.mark.parametrize("slow", [_drips, _drips_headers, _says_nothing])
def test_a_slow_server_is_cut_off_at_the_deadline(slow: Answer, site: Site, policy: UrlPolicy, into: Path) -> None:
    site.pages["/slow"] = slow
    with pytest.raises(UrlFetchFailed, match="took too long"):
        get(f"http://files.example:{site.port}/slow", into, policy, seconds=0.5)


def test_a_broken_answer_is_told_without_its_words(site: Site, policy: UrlPolicy, into: Path) -> None:
    def short(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)

    def junk(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 secret FTP server ready\r\n")

    site.pages |= {"/short": short, "/junk": junk}
    for path in ("short", "junk"):
        with pytest.raises(UrlFetchFailed, match="broke off") as told:
            get(f"http://files.example:{site.port}/{path}", into, policy)
        assert "FTP" not in told.value.detail


def test_nobody_listening_and_no_such_name_are_told_without_addresses(policy: UrlPolicy, into: Path) -> None:
    with Site() as closed:
        port = closed.port
    policy = replace(policy, ports=frozenset({port}))
    with pytest.raises(UrlFetchFailed, match="could not be reached") as told:
        get(f"http://files.example:{port}/a", into, policy)
    assert "127" not in told.value.detail
    with pytest.raises(UrlFetchFailed, match="is not known"):
        get(f"http://nowhere.example:{port}/a", into, policy)


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site, policy: UrlPolicy, into: Path) -> None:
    names = Names(twice_example=["127.0.0.2", "127.0.0.1"])  # the server listens at the second only
    assert get(f"http://twice.example:{site.port}/a.png", into, policy, names) == BODY


def test_who_is_gone_ends_the_work(site: Site, policy: UrlPolicy, into: Path) -> None:
    gone = threading.Event()
    gone.set()
    with pytest.raises(UrlFetchFailed, match="too long"):
        fetch(f"http://files.example:{site.port}/a.png", into, policy, deadline=time.monotonic() + 5, gone=gone, resolver=NAMES)
    into.unlink()
    with pytest.raises(StorageFull, match="cannot be written"):
        get(f"http://files.example:{site.port}/a.png", into, policy)
    assert not into.exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=files.example", "-addext", "subjectAltName=DNS:files.example", "-keyout", str(path), "-out", f"{path}.crt"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Site(context) as site:
        site.pages["/a.png"] = sends(BODY)
        yield site


def test_tls_is_asked_for_by_name_and_checked(tls_site: Site, certificate: Path, policy: UrlPolicy, into: Path) -> None:
    port = tls_site.port
    names = Names(files_example=["127.0.0.1"], other_example=["127.0.0.1"])
    trusting = replace(policy, ports=frozenset({port}), tls=ssl.create_default_context(cafile=str(certificate)))
    assert get(f"https://files.example:{port}/a.png", into, trusting, names) == BODY
    with pytest.raises(UrlFetchFailed, match="no valid TLS certificate"):  # a certificate of another name
        get(f"https://other.example:{port}/a.png", into, trusting, names)
    with pytest.raises(UrlFetchFailed, match="no valid TLS certificate"):  # one that nobody vouches for
        get(f"https://files.example:{port}/a.png", into, replace(trusting, tls=None), names)
    tls_site.pages["/down"] = leads_to(f"http://files.example:{port}/a.png")
    with pytest.raises(UrlNotAllowed, match="from https to http"):
        get(f"https://files.example:{port}/down", into, trusting, names)


def test_plain_http_at_an_https_port_fails(site: Site, policy: UrlPolicy, into: Path) -> None:
    with pytest.raises(UrlFetchFailed, match="TLS"):
        get(f"https://files.example:{site.port}/a.png", into, policy)


def test_the_systems_resolver_gives_addresses() -> None:
    assert ipaddress.ip_address("127.0.0.1") in module.resolve("127.0.0.1", 80)
