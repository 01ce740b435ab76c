"""Signing in (README 4, oz-workspace.md 4.3): a token or a one-time code becomes a cookie, which REST, event streams and
WebSockets take from pages of this server only, and which ends with what it stands for."""
import re
import secrets
import subprocess

import harness
import httpx
import pytest
import websockets.exceptions
from harness import ADMIN_KEY, API, BINARY, TIMESTAMP, assert_error, eventually, ok
from live_peers import Viewer

COOKIE = re.compile(r"muster_session=(ms_[0-9a-f]{64}); Path=/; HttpOnly; SameSite=Strict; Max-Age=(\d+)")
# The throttle counts addresses, and all these browsers have the same one.
PATIENT = {"OZ_LOGIN_REQUESTS_PER_MINUTE": "0", "OZ_LOGIN_MAX_FAILURES": "0", "OZ_TENANT_REQUESTS_PER_MINUTE": "0"}


class Browser(httpx.Client):
    """Keeps cookies, and says of each request but GET where it comes from, as browsers do."""

    def __init__(self, server, agent="Browser/1"):
        super().__init__(base_url=server.url, headers={"User-Agent": agent}, trust_env=False, timeout=30)
        self.server = server
        server.clients.append(self)

    def build_request(self, method, url, **options):
        request = super().build_request(method, url, **options)
        if method not in ("GET", "HEAD") and "no-origin" not in request.headers:
            request.headers.setdefault("Origin", self.server.url)
        request.headers.pop("no-origin", None)
        return request

    def login(self, **body):
        return self.post("/api/auth/login", json=body)

    def sign_in(self, token):
        body = ok(self.login(token=token))
        self.server.secrets.append(self.cookie)
        return body

    @property
    def cookie(self):
        return self.cookies.get("muster_session")

    def user(self):
        return ok(self.get("/api/auth/session"))["user"]


@pytest.fixture(scope="module")
def oz(postgres):
    with harness.serving(PATIENT, postgres=postgres, name="login") as server:
        yield server


@pytest.fixture
def browser(oz):
    with Browser(oz) as b:
        yield b
    oz.assert_alive()


def app_error(response, status, code, field=None):
    """The errors of /api/ outside /api/v1 (README 3)."""
    assert response.status_code == status, f"{response.status_code} {response.text}"
    body = response.json()
    assert body["code"] == code and body["error"], body
    assert body["requestId"] == response.headers["x-request-id"]
    assert body.get("field") == field
    return body


def key_of(oz, role="operator"):
    """(id, text) of a new API key."""
    with oz.client() as admin:
        body = ok(admin.api("POST", "/keys", json={"name": secrets.token_hex(8), "tenant": "acme", "role": role}))
    oz.secrets.append(body["key"])
    return body["id"], body["key"]


# --- in ---

def test_a_token_becomes_a_cookie(oz, browser):
    response = browser.login(token=f"  {ADMIN_KEY} ")
    body = ok(response)
    token, age = COOKIE.fullmatch(response.headers["set-cookie"]).groups()
    oz.secrets.append(token)
    assert int(age) == 30 * 86400 and response.headers["cache-control"] == "no-store"
    assert body["user"].keys() == {"id", "name", "role", "admin", "orgId"} and TIMESTAMP.fullmatch(body["expires"])
    assert body["user"]["admin"] is True and body["user"]["name"] == "Administrator"
    session = browser.get("/api/auth/session")
    assert session.json() == body and COOKIE.fullmatch(session.headers["set-cookie"])[1] == token
    ok(browser.get(API + "/workers"))


def test_it_acts_as_its_key(oz, browser):
    name = secrets.token_hex(4)
    with oz.client() as admin:
        key = ok(admin.api("POST", "/keys", json={"name": name, "tenant": "acme", "role": "viewer"}))["key"]
    user = browser.sign_in(key)["user"]
    assert (user["name"], user["role"], user["admin"]) == (name, "viewer", False)
    assert browser.post(API + "/agent/run", json={"prompt": "x"}).status_code == 403
    assert ok(browser.get(API + "/agent/runs"))["runs"] == []
    assert browser.get(API + "/workers").status_code == 403


def test_a_tenant_sees_its_own(oz, browser):
    token = "tenant-" + secrets.token_hex(12)
    with oz.client(token) as tenant:
        run = tenant.create("mine")["run_id"]
    browser.sign_in(token)
    assert [r["run_id"] for r in ok(browser.get(API + "/agent/runs"))["runs"]] == [run]
    mine = ok(browser.post(API + "/agent/run", json={"prompt": "from a page"}))["run_id"]
    with oz.client(token) as tenant:
        assert tenant.run(mine)["creator"]["uid"] == browser.user()["id"]


@pytest.mark.parametrize("token", ["sk_" + "0" * 64, "adm_" + "0" * 64, "ms_" + "0" * 64, "rt_" + "0" * 64, "wk_" + "0" * 64])
def test_wrong_tokens_are_refused_alike(browser, token):
    body = app_error(browser.login(token=token), 401, "UNAUTHORIZED")
    code = app_error(browser.login(code="lk_" + "0" * 32), 401, "UNAUTHORIZED")
    assert body["error"] == code["error"]
    assert browser.user() is None and browser.cookie is None


@pytest.mark.parametrize("body", [{}, {"token": "", "code": None}, {"token": "a", "code": "b"}, {"token": 7}, {"token": "\u0000"}, [], "x"])
def test_neither_or_both_is_a_bad_request(browser, body):
    assert browser.post("/api/auth/login", json=body).status_code == 400
    assert browser.cookie is None


def test_a_login_is_no_token_to_sign_in_with(oz, browser):
    browser.sign_in(ADMIN_KEY)
    with Browser(oz) as second:
        app_error(second.login(token=browser.cookie), 401, "UNAUTHORIZED")


def test_signing_in_again_replaces_the_login(oz, browser):
    browser.sign_in("tenant-" + secrets.token_hex(8))
    old = browser.cookie
    browser.sign_in("tenant-" + secrets.token_hex(8))
    assert httpx.get(oz.url + "/api/auth/session", cookies={"muster_session": old}).json() == {"user": None}


# --- out ---

def test_logout_ends_the_login_and_takes_the_cookie(oz, browser):
    browser.sign_in(ADMIN_KEY)
    token = browser.cookie
    response = browser.post("/api/auth/logout")
    assert ok(response) == {"success": True}
    assert "Max-Age=0" in response.headers["set-cookie"] and browser.cookie is None
    stale = httpx.get(oz.url + "/api/auth/session", cookies={"muster_session": token})
    assert stale.json() == {"user": None} and "Max-Age=0" in stale.headers["set-cookie"]
    assert_error(httpx.get(oz.url + API + "/agent/runs", cookies={"muster_session": token}), 401, "unauthorized")
    assert ok(browser.post("/api/auth/logout")) == {"success": True}, "nothing to end is no error"


def test_logout_by_bearer_ends_that_login(oz, browser):
    browser.sign_in(ADMIN_KEY)
    with httpx.Client(base_url=oz.url, headers={"Authorization": f"Bearer {browser.cookie}"}) as program:
        ok(program.get(API + "/workers"))
        assert ok(program.post("/api/auth/logout")) == {"success": True}
        assert program.get(API + "/workers").status_code == 401
    assert browser.user() is None


def test_one_of_several_browsers_ends_another(oz):
    token = "tenant-" + secrets.token_hex(12)
    browsers = [Browser(oz, f"Browser/{i}") for i in range(3)]
    for b in browsers:
        b.sign_in(token)
    listed = ok(browsers[0].get("/api/auth/sessions"))["sessions"]
    assert {s["userAgent"] for s in listed} == {"Browser/0", "Browser/1", "Browser/2"}
    assert [s["userAgent"] for s in listed if s["current"]] == ["Browser/0"]
    assert all(TIMESTAMP.fullmatch(s[k]) for s in listed for k in ("created", "lastUsed", "expires"))
    assert not any("ms_" in str(s) for s in listed)
    other = next(s["id"] for s in listed if s["userAgent"] == "Browser/1")
    with Browser(oz) as stranger:
        stranger.sign_in("tenant-" + secrets.token_hex(12))
        assert len(ok(stranger.get("/api/auth/sessions"))["sessions"]) == 1
        app_error(stranger.delete(f"/api/auth/sessions/{other}"), 404, "NOT_FOUND")
    assert browsers[1].user()
    assert ok(browsers[0].delete(f"/api/auth/sessions/{other}")) == {"success": True}
    app_error(browsers[0].delete(f"/api/auth/sessions/{other}"), 404, "NOT_FOUND")
    app_error(browsers[0].delete("/api/auth/sessions/no-id"), 404, "NOT_FOUND")
    assert browsers[1].user() is None and browsers[2].user()


def test_the_oldest_of_twenty_one_goes(oz):
    token = "tenant-" + secrets.token_hex(12)
    first = Browser(oz)
    first.sign_in(token)
    for _ in range(19):
        Browser(oz).sign_in(token)
    assert first.user() and len(ok(first.get("/api/auth/sessions"))["sessions"]) == 20
    last = Browser(oz)
    last.sign_in(token)
    assert first.user() is None and len(ok(last.get("/api/auth/sessions"))["sessions"]) == 20


def test_without_a_login_there_is_no_list(oz):
    app_error(httpx.get(oz.url + "/api/auth/sessions"), 401, "UNAUTHORIZED")
    app_error(httpx.delete(oz.url + "/api/auth/sessions/x"), 401, "UNAUTHORIZED")


# --- what it stands for ---

def test_a_revoked_key_ends_the_login_at_once(oz, browser):
    ident, key = key_of(oz)
    browser.sign_in(key)
    ok(browser.get(API + "/agent/runs"))
    with oz.client() as admin:
        ok(admin.api("DELETE", f"/keys/{ident}"))
    assert_error(browser.get(API + "/agent/runs"), 401, "unauthorized")
    assert browser.user() is None


@pytest.mark.timeout(120)
def test_a_socket_ends_with_its_login(oz, browser):
    """Looked at every 30 s, as with keys."""
    browser.sign_in("tenant-" + secrets.token_hex(8))
    with Viewer(oz, additional_headers={"Cookie": f"muster_session={browser.cookie}"}, origin=oz.url) as viewer:
        viewer.expect("event", event="authenticated")
        ok(browser.post("/api/auth/logout"))
        assert viewer.wait_closed(65)[0] == 4401


def test_a_new_admin_key_ends_logins_of_the_old_one(make_server):
    server = make_server(admin_key=None)
    old = (server.data / "admin.key").read_text().strip()
    server.secrets.append(old)
    with Browser(server) as browser, Browser(server) as tenant:
        browser.sign_in(old)
        tenant.sign_in("tenant-" + secrets.token_hex(8))
        new = ok(browser.post(API + "/keys/rotate-admin"))["key"]
        server.secrets.append(new)
        assert browser.user() is None and tenant.user()
        browser.sign_in(new)
        assert browser.user()["admin"]


def test_logins_outlive_a_restart(make_server):
    server = make_server()
    with Browser(server) as browser:
        browser.sign_in(ADMIN_KEY)
        cookie = browser.cookie
        server.kill9()
        server.start()
    session = httpx.get(server.url + "/api/auth/session", cookies={"muster_session": cookie}).json()
    assert session["user"]["admin"]


# --- who may use it ---

FOREIGN = [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
           {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://127.0.0.1:1"},
           {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("method,path", [("POST", API + "/agent/run"), ("POST", API + "/sessions"), ("POST", API + "/ws-tickets"),
                                         ("PUT", API + "/environments/env_0"), ("DELETE", API + "/agent/schedules/x"),
                                         ("POST", "/api/auth/logout"), ("DELETE", "/api/auth/sessions/x")])
def test_a_cookie_from_elsewhere_is_refused(oz, browser, headers, method, path):
    browser.sign_in(ADMIN_KEY)
    response = browser.request(method, path, json={"prompt": "x"}, headers={**headers, "no-origin": "1"})
    assert response.status_code == 403, response.text
    error = response.json()["error"]
    text = error if isinstance(error, str) else error["message"]
    assert "Origin" in text
    assert browser.user(), "nothing happened"


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_signing_in_from_elsewhere_is_refused(browser, headers):
    response = browser.post("/api/auth/login", json={"token": ADMIN_KEY}, headers={**headers, "no-origin": "1"})
    app_error(response, 403, "FORBIDDEN")
    assert browser.cookie is None


def test_the_browser_s_word_is_enough(browser):
    browser.sign_in(ADMIN_KEY)
    headers = {"Sec-Fetch-Site": "same-origin", "no-origin": "1"}
    ok(browser.post(API + "/agent/run", json={"prompt": "x"}, headers=headers))


def test_a_bearer_needs_no_origin_and_goes_first(oz, browser):
    browser.sign_in(ADMIN_KEY)
    token = "tenant-" + secrets.token_hex(8)
    headers = {"Authorization": f"Bearer {token}", "no-origin": "1"}
    ok(browser.post(API + "/agent/run", json={"prompt": "x"}, headers=headers))
    assert len(ok(browser.get(API + "/agent/runs", headers=headers))["runs"]) == 1


def test_an_event_stream_takes_the_cookie(oz, browser):
    browser.sign_in("tenant-" + secrets.token_hex(8))
    run = ok(browser.post(API + "/agent/run", json={"prompt": "hello"}))["run_id"]
    with browser.stream("GET", f"{API}/agent/runs/{run}/events") as response:
        assert response.status_code == 200
        assert any(line.startswith("event:") for line in response.iter_lines())


def socket(oz, cookie, path="/api/v1/ws", **options):
    return Viewer(oz, path=path, additional_headers={"Cookie": f"muster_session={cookie}"}, **options)


@pytest.mark.parametrize("path", ["/api/v1/ws", "/ws"])
def test_a_socket_takes_the_cookie_of_a_page_of_this_server(oz, browser, path):
    user = browser.sign_in("tenant-" + secrets.token_hex(8))["user"]
    with socket(oz, browser.cookie, path, origin=oz.url) as viewer:
        assert viewer.expect("event", event="authenticated")["data"]["userId"] == user["id"]
    for origin in (None, "https://evil.example", "null"):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            socket(oz, browser.cookie, path, origin=origin)
        assert refused.value.response.status_code == 403
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        socket(oz, "ms_" + "0" * 64, path, origin=oz.url)
    assert refused.value.response.status_code == 401


def test_a_ticket_of_a_cookie_opens_a_socket(oz, browser):
    user = browser.sign_in("tenant-" + secrets.token_hex(8))["user"]
    ticket = browser.post(API + "/ws-tickets").json()["data"]["ticket"]
    with Viewer(oz, path=f"/api/v1/ws?ticket={ticket}") as viewer:
        assert viewer.expect("event", event="authenticated")["data"]["userId"] == user["id"]


def test_under_https_the_cookie_is_for_that_alone(make_server):
    server = make_server({"PUBLIC_URL": "https://muster.example", **PATIENT})
    with httpx.Client(base_url=server.url, headers={"Host": "muster.example"}) as page:
        refused = page.post("/api/auth/login", json={"token": ADMIN_KEY}, headers={"Origin": "http://muster.example"})
        app_error(refused, 403, "FORBIDDEN")
        response = page.post("/api/auth/login", json={"token": ADMIN_KEY}, headers={"Origin": "https://muster.example"})
        text = response.headers["set-cookie"]
        assert text.startswith("__Host-muster_session=ms_") and text.endswith("; Secure") and "Domain" not in text
        token = text.split(";")[0].split("=")[1]
        server.secrets.append(token)
        page.cookies.clear()
        assert page.get("/api/auth/session", headers={"Cookie": f"__Host-muster_session={token}"}).json()["user"]
        assert page.get("/api/auth/session", headers={"Cookie": f"muster_session={token}"}).json() == {"user": None}


# --- links ---

def link_of(server, *args, env=None):
    done = subprocess.run([str(BINARY), "login-link", "--url", server.url, *args], capture_output=True, text=True, timeout=60,
                          env={**server.environment(), **(env or {})})
    return done


def test_a_link_signs_in_once(oz, browser):
    done = link_of(oz, env={"OZ_API_KEY": ADMIN_KEY})
    assert done.returncode == 0, done.stderr
    url, code = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#code=(lk_[0-9a-f]{32})\n", done.stdout).groups()
    assert url == oz.url
    oz.secrets.append(code)
    assert ok(browser.login(code=code))["user"]["admin"]
    oz.secrets.append(browser.cookie)
    with Browser(oz) as second:
        app_error(second.login(code=code), 401, "UNAUTHORIZED")


def test_links_are_the_administrator_s_to_make(oz):
    done = link_of(oz, env={"OZ_API_KEY": "tenant-" + secrets.token_hex(8)})
    assert done.returncode == 4 and not done.stdout


def test_a_link_of_an_old_admin_key_is_worth_nothing(make_server):
    server = make_server(PATIENT, admin_key=None)
    key = (server.data / "admin.key").read_text().strip()
    server.secrets.append(key)
    done = link_of(server)
    assert done.returncode == 0, done.stderr
    code = done.stdout.strip().split("#code=")[1]
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}) as admin:
        server.secrets.append(ok(admin.post(API + "/keys/rotate-admin"))["key"])
    with Browser(server) as browser:
        app_error(browser.login(code=code), 401, "UNAUTHORIZED")


def test_a_hundred_links_wait_at_most(make_server):
    server = make_server(PATIENT)
    with server.client() as admin:
        made = [admin.api("POST", "/keys/login-link").status_code for _ in range(101)]
        assert made == [200] * 100 + [429]


# --- how often ---

def test_ten_failures_of_an_address_are_enough(make_server):
    server = make_server()
    with Browser(server) as browser:
        for _ in range(10):
            app_error(browser.login(token="sk_" + "0" * 64), 401, "UNAUTHORIZED")
        response = browser.login(token=ADMIN_KEY)
        body = app_error(response, 429, "RATE_LIMIT_EXCEEDED")
        assert 500 < int(response.headers["retry-after"]) <= 600
        assert body["details"]["retryAfter"] == int(response.headers["retry-after"])
        assert browser.user() is None


def test_twenty_attempts_a_minute_are_enough(make_server):
    server = make_server()
    with Browser(server) as browser:
        for _ in range(20):
            browser.sign_in("tenant-one")
        response = browser.login(token="tenant-one")
        app_error(response, 429, "RATE_LIMIT_EXCEEDED")
        assert 0 < int(response.headers["retry-after"]) <= 60
        assert browser.user(), "who is in stays in"
        eventually(lambda: browser.get("/api/auth/sessions").status_code == 200)
