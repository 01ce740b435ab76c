"""The web app's files as the program serves them (ui.md, README 3): all of web/dist, whatever is in it, as it is there.
What a build without them says: tests/unit/face/test_web.c."""
import gzip
import hashlib
import os
import pathlib
import pty
import re
import select
import subprocess
import time

import httpx
import pytest
from harness import BINARY, ROOT, assert_error

pytestmark = pytest.mark.engine_free
DIST = pathlib.Path(os.environ.get("MUSTER_WEB_DIST", ROOT / "web/dist"))
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SAFETY = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cross-origin-opener-policy": "same-origin"}


def files():
    found = sorted(p for p in DIST.rglob("*") if p.is_file())
    return [("/" + p.relative_to(DIST).as_posix(), p) for p in found]


def policy(response):
    return dict(part.strip().partition(" ")[::2] for part in response.headers["content-security-policy"].split(";"))


def raw(url, path, **headers):
    """As it is on the wire: nothing is decoded."""
    with httpx.Client(base_url=url) as client:
        with client.stream("GET", path, headers={"Accept-Encoding": "identity", **headers}) as response:
            return response, b"".join(response.iter_raw())


def test_every_file_is_served_as_it_is(oz):
    assert len(files()) > 0, f"{DIST} is empty: script/web makes it"
    for path, file in files():
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        response, body = raw(oz.url, path)
        assert response.status_code == 200 and body == content, path
        assert response.headers["etag"] == f'"{digest}"' and "content-encoding" not in response.headers
        assert "accept-encoding" in response.headers["vary"].lower()
        zipped, body = raw(oz.url, path, **{"Accept-Encoding": "gzip"})
        if "content-encoding" in zipped.headers:
            assert zipped.headers["content-encoding"] == "gzip" and gzip.decompress(body) == content, path
            assert len(body) < len(content) and zipped.headers["etag"] == f'"{digest}-gz"'
        best, body = raw(oz.url, path, **{"Accept-Encoding": "gzip, deflate, br, zstd"})
        if best.headers.get("content-encoding") == "br":
            assert len(body) < len(content)
        same, body = raw(oz.url, path, **{"If-None-Match": zipped.headers["etag"]})
        assert same.status_code == 304 and body == b"" and "content-length" not in same.headers
        other, body = raw(oz.url, path, **{"If-None-Match": '"0"'})
        assert other.status_code == 200
        ranged, body = raw(oz.url, path, Range="bytes=0-0")
        assert ranged.status_code == 200 and body == content and ranged.headers["accept-ranges"] == "none"
        head = httpx.head(oz.url + path, headers={"Accept-Encoding": "identity"})
        assert head.content == b"" and int(head.headers["content-length"]) == len(content)
        for answer in (response, zipped, best, same, head):
            assert SAFETY.items() <= dict(answer.headers).items(), path


def test_only_names_with_a_hash_are_kept_for_ever(oz):
    for path, _ in files():
        control = httpx.head(oz.url + path).headers["cache-control"]
        hashed = re.fullmatch(r"/assets/.*[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+", path)
        assert control == ("public, max-age=31536000, immutable" if hashed else "no-cache"), path


@pytest.mark.parametrize("path", ["/", "/login", "/sessions", "/sessions/ses_1/files/a.txt?line=3", "/auth/callback", "/gates/"])
def test_every_place_is_the_page(oz, path):
    page = (DIST / "index.html").read_bytes()
    response = httpx.get(oz.url + path, headers=HTML)
    assert response.status_code == 200 and response.content == page
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    rules = policy(response)
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'" and rules["base-uri"] == "'none'" and rules["form-action"] == "'self'"
    host = oz.url.removeprefix("http://")
    assert rules["connect-src"].split() == ["'self'", f"ws://{host}", f"wss://{host}"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert SAFETY.items() <= dict(response.headers).items()
    assert "camera=()" in response.headers["permissions-policy"] and "set-cookie" not in response.headers
    assert httpx.head(oz.url + path, headers=HTML).headers["content-length"] == response.headers["content-length"]


def test_the_page_has_nothing_that_its_policy_forbids():
    page = (DIST / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\son\w+=|\sstyle=|javascript:", page), page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page), "something of another origin"


@pytest.mark.parametrize("path", ["/assets/none-00000000.js", "/agent/runs", "/webhooks/x"])
def test_what_is_for_programs_is_no_page(oz, path):
    assert_error(httpx.get(oz.url + path, headers=HTML), 404, "not_found")


def test_the_api_is_no_page(oz):
    answer = httpx.get(oz.url + "/api/none", headers=HTML)
    assert answer.status_code == 404 and answer.json().keys() == {"error", "code", "requestId"}
    assert_error(httpx.get(oz.url + "/api/v1/none", headers=HTML), 401, "unauthorized")
    assert_error(httpx.get(oz.url + "/sessions/x"), 404, "not_found")
    assert_error(httpx.post(oz.url + "/sessions/x", headers=HTML), 404, "not_found")


def test_a_wrong_method_names_the_right_ones(oz):
    response = httpx.post(oz.url + "/")
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


def test_off_is_off(make_server):
    server = make_server({"OZ_WEB": "off"})
    assert_error(httpx.get(server.url + "/", headers=HTML), 404, "not_found")


def test_the_first_start_shows_a_link_on_a_terminal_only(make_server):
    server = make_server(start=False, admin_key=None)
    mine, theirs = pty.openpty()
    process = subprocess.Popen([str(BINARY), "serve"], env=server.environment(), cwd=server.cwd, stdin=subprocess.DEVNULL,
                               stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen, end = b"", time.monotonic() + 30
    try:
        while b"#code=" not in seen or not seen.endswith(b"\n"):
            assert time.monotonic() < end, seen.decode()
            if select.select([mine], [], [], 1)[0]:
                seen += os.read(mine, 65536)
        url, code = re.search(r"(http://127\.0\.0\.1:\d+)/#code=(lk_[0-9a-f]{32})", seen.decode()).groups()
        answer = httpx.post(url + "/api/auth/login", json={"code": code}, headers={"Origin": url})
        assert answer.json()["user"]["admin"] is True
        assert b"{" not in seen[seen.index(b"#code=") - 100:], "the link is in a log line"
    finally:
        process.terminate()
        while select.select([mine], [], [], 5)[0]:
            try:
                seen += os.read(mine, 65536)
            except OSError:
                break
        process.wait(30)
        os.close(mine)
    assert seen.decode().count(code) == 1
    quiet = make_server(admin_key=None)
    assert "#code=" not in str(quiet.log) + quiet.err + str(quiet.not_json)


def test_the_apps_types_are_the_servers(oz):
    checked = subprocess.run(["node", "script/api.mjs", "--check"], cwd=ROOT / "web", env={**os.environ, "MUSTER_URL": oz.url},
                             capture_output=True, text=True, timeout=100)
    assert checked.returncode == 0, checked.stdout + checked.stderr
