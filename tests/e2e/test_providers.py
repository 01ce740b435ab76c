"""Providers over HTTP (oz-providers.md 1-6, 8, 9): fallback classes, breaker, retries, quota, queueing."""
import concurrent.futures
import http.server
import json
import re
import ssl
import subprocess
import threading
import time

import pytest
from harness import TIMESTAMP, UPSTREAM_KEY, assert_error, eventually, ok

MANY = {"OZ_QUEUE_ON_SATURATION": "1"}


class Lab:
    """Providers custom, second, third: each an upstream of its own at the model server."""

    def __init__(self, make_server, model, word):
        self.make_server, self.model, self.word = make_server, model, word

    def upstream(self, key):
        return f"{key}-{self.word}"

    def env(self, *keys, order=True, **more):
        env = {}
        for key in keys:
            up = key.upper()
            env[f"OZ_PROVIDER_{up}_TYPE"] = "openai_compatible"
            env[f"OZ_PROVIDER_{up}_BASE_URL"] = self.model.base(self.upstream(key))
            env[f"OZ_PROVIDER_{up}_MODEL"] = f"{key}-model"
        if order and len(keys) > 1:
            env["OZ_PROVIDER_FALLBACK_ORDER"] = ",".join(keys[1:])
        env.update({k: str(v) for k, v in more.items()})
        return env

    def start(self, *keys, **more):
        self.server = self.make_server(self.env(*keys, **more))
        self.client = self.server.client("lab")
        return self.client

    def behave(self, key, marker):
        self.model.behave(self.upstream(key), marker)

    def calls(self, key):
        return self.model.calls(upstream=self.upstream(key))


@pytest.fixture
def lab(make_server, model, word):
    return Lab(make_server, model, word)


# --- the request ---

def test_openai_request(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_API_KEY=UPSTREAM_KEY)
    client.finish("  the prompt unchanged ", states="SUCCEEDED")
    (call,) = lab.calls("custom")
    assert call["method"] == "POST" and call["path"].endswith("/v1/chat/completions")
    assert call["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert call["headers"]["content-type"] == "application/json"
    body = call["body"]
    assert body["model"] == "custom-model" and body["stream"] is True and body["temperature"] == 0.2
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "  the prompt unchanged " and body["messages"][0]["content"].strip()
    assert "max_tokens" not in body and "tools" not in body


def test_no_key_no_header_and_base_with_slashes(lab):
    client = lab.start("custom")
    lab.server.stop()
    lab.server.extra["OZ_PROVIDER_CUSTOM_BASE_URL"] += "///"
    lab.server.start()
    client = lab.server.client("lab")
    client.finish(states="SUCCEEDED")
    (call,) = lab.calls("custom")
    assert "authorization" not in call["headers"] and call["path"].endswith("/v1/chat/completions")


def test_anthropic_request(lab, model):
    base = model.root + "/p/" + lab.upstream("claude")
    lab.server = lab.make_server({"OZ_PROVIDER_CLAUDE_TYPE": "anthropic", "OZ_PROVIDER_CLAUDE_BASE_URL": base + "/",
                                  "OZ_PROVIDER_CLAUDE_MODEL": "m-1", "OZ_PROVIDER_CLAUDE_API_KEY": UPSTREAM_KEY})
    client = lab.server.client("t")
    run = client.finish("hello", config={"model_id": "claude-opus"}, states="SUCCEEDED")
    assert run["provider"]["key"] == "claude" and run["provider"]["type"] == "anthropic"
    (call,) = lab.calls("claude")
    assert call["path"].endswith("/v1/messages") and call["headers"]["x-api-key"] == UPSTREAM_KEY
    assert call["headers"]["anthropic-version"] == "2023-06-01" and call["headers"]["accept"] == "text/event-stream"
    body = call["body"]
    assert body["model"] == "m-1" and body["max_tokens"] == 2048 and body["stream"] is True and body["system"]
    assert body["messages"] == [{"role": "user", "content": "hello"}] or \
        body["messages"][0]["content"][0]["text"] == "hello"
    run = client.finish("[[length]]", config={"model_id": "claude-opus"}, states="SUCCEEDED")
    assert "trunc" in str(run).lower() or "max_tokens" in str(run["provider"]), run
    failed = client.finish("[[error-event]]", config={"model_id": "claude-opus"}, states="FAILED")
    # An overloaded_error is an outage; here it comes after a first delta, so that a broken answer is as true.
    assert failed["error"]["code"] in ("provider_unavailable", "provider_bad_response")
    limited = client.finish("[[error-event:rate_limit_error]]", config={"model_id": "claude-opus"}, states="FAILED")
    assert limited["error"]["code"] in ("rate_limited", "saturated", "provider_bad_response"), limited["error"]


def test_anthropic_without_key_names_its_variable(lab, model):
    lab.server = lab.make_server({"OZ_PROVIDER_CLAUDE_TYPE": "anthropic", "OZ_PROVIDER_CLAUDE_MODEL": "m",
                                  "OZ_PROVIDER_CLAUDE_BASE_URL": model.base("nokey", v1=False)})
    run = lab.server.client("t").finish(config={"model_id": "claude"}, states="FAILED")
    assert run["error"]["code"] in ("config", "provider_auth") and "OZ_PROVIDER_CLAUDE_API_KEY" in run["error"]["message"]
    assert model.calls(upstream="nokey") == []


def test_settings_of_the_request(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_TEMPERATURE="", OZ_PROVIDER_CUSTOM_MAX_TOKENS=77,
                       OZ_PROVIDER_CUSTOM_SYSTEM_PROMPT="Be brief.",
                       OZ_PROVIDER_CUSTOM_EXTRA_BODY=json.dumps({"top_p": 0.5, "nested": {"a": [1]}}))
    client.finish(states="SUCCEEDED")
    body = lab.calls("custom")[0]["body"]
    assert "temperature" not in body and body["max_tokens"] == 77 and body["top_p"] == 0.5
    assert body["nested"] == {"a": [1]} and body["messages"][0]["content"] == "Be brief."


def test_without_streaming(lab):
    client = lab.start("custom", OZ_CONTROL_PLANE_STREAMING="off")
    run = client.finish("[[echo:whole]]", states="SUCCEEDED")
    assert run["output"] == "whole" and not lab.calls("custom")[0]["body"].get("stream")
    assert client.finish("[[notext]]")["error"]["code"] == "provider_bad_response"
    assert client.finish("[[badjson]]")["error"]["code"] == "provider_bad_response"


def test_requested_model_is_used_only_when_listed(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MODELS="extra-1, extra-2")
    run = client.finish(config={"model_id": "extra-2"}, states="SUCCEEDED")
    assert run["provider"]["model"] == "extra-2"
    run = client.finish(config={"model_id": "unlisted"}, states="SUCCEEDED")
    assert run["provider"]["model"] == "custom-model" and run["agent_config"]["model_id"] in ("unlisted", "custom-model")
    assert [c["body"]["model"] for c in lab.calls("custom")] == ["extra-2", "custom-model"]


@pytest.mark.parametrize("marker,text", [("[[plainjson]]", "Hello from"), ("[[parts]]", "Hello from"),
                                         ("[[echo:  padded  ]]", "padded"), ("[[slow:30:0.3]]", "word29")])
def test_answers_in_other_shapes(lab, marker, text):
    run = lab.start("custom").finish(marker, states="SUCCEEDED")
    assert text in run["output"] and run["output"] == run["output"].strip()


# --- failures without a fallback: one permitted outcome each ---

@pytest.mark.parametrize("marker,code,tries", [
    ("status:400", "provider_bad_request", 1), ("status:413", "provider_bad_request", 1),
    ("status:422", "provider_bad_request", 1), ("status:404", "provider_bad_request", 1),
    ("nomodel", "provider_bad_request", 1), ("status:401", "provider_auth", 1), ("status:403", "provider_auth", 1),
    ("status:408", "provider_unavailable", 2), ("status:500", "provider_unavailable", 2),
    ("status:502", "provider_unavailable", 2), ("status:503", "provider_unavailable", 2),
    ("status:504", "provider_unavailable", 2), ("status:529", "provider_unavailable", 2),
    ("cutbefore", "provider_unavailable", 2), ("http1-garbage", ("provider_unavailable", "provider_bad_response"), None),
    ("cut", "provider_bad_response", 1), ("html", "provider_bad_response", 1),
    ("notext", "provider_bad_response", 1), ("badjson", "provider_bad_response", 1),
    ("error-event", ("provider_bad_response", "provider_unavailable"), 1),
    ("redirect", ("provider_bad_response", "provider_bad_request", "provider_unavailable"), None),
    ("status:429", ("rate_limited", "saturated"), 1)])
def test_failure_classes(lab, marker, code, tries):
    client = lab.start("custom")
    lab.behave("custom", marker)
    run = client.finish("fails", states="FAILED", timeout=20)
    assert run["error"]["code"] in (code if isinstance(code, tuple) else (code,)), run["error"]
    assert run["error"]["message"] and len(run["error"]["message"]) <= 1000
    if tries:
        assert len(lab.calls("custom")) == tries, [c["outcome"] for c in lab.calls("custom")]
    assert not run["output"] or marker in ("cut", "error-event"), "only these came after a piece of text, which is kept"
    assert "Hello from the scripted model.".startswith(run["output"]), "something else than the partial text is kept"
    lab.behave("custom", "")
    if not marker.startswith("status:429"):  # blocked until Retry-After
        assert client.finish("works again", states="SUCCEEDED")


def test_redirects_are_not_followed(lab, model):
    client = lab.start("custom")
    before = len(model.calls(upstream="redirected"))
    client.finish("[[redirect]]", states="FAILED")
    assert len(model.calls(upstream="redirected")) == before


def test_refused_connection(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_BASE_URL="http://127.0.0.1:1/v1")
    run = client.finish(states="FAILED", timeout=20)
    assert run["error"]["code"] == "provider_unavailable"


def test_unknown_host(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_BASE_URL="http://no-such-host.invalid/v1")
    assert client.finish(states="FAILED", timeout=40)["error"]["code"] == "provider_unavailable"


def test_tls_is_verified(lab, tmp_path):
    """A certificate that nobody vouches for: no request is sent."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(self.path)
            self.send_error(500)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as upstream:
        upstream.handle_error = lambda *args: None
        upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        client = lab.start("custom", OZ_PROVIDER_CUSTOM_BASE_URL=f"https://127.0.0.1:{upstream.server_port}/v1")
        run = client.finish(states="FAILED", timeout=20)
        upstream.shutdown()
    assert run["error"]["code"] == "provider_unavailable" and requests == []


def test_stall_before_the_first_byte(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_TIMEOUT_MS=1000, OZ_PROVIDER_RETRIES=0)
    start = time.monotonic()
    run = client.finish("[[stall]]", states="FAILED", timeout=20)
    assert run["error"]["code"] == "provider_unavailable" and time.monotonic() - start < 10
    assert len(lab.calls("custom")) == 1
    lab.model.wait_outcome("peer closed", upstream=lab.upstream("custom"))


def test_first_byte_timeout_does_not_cut_a_slow_stream(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_TIMEOUT_MS=1000)
    assert "word9" in client.finish("[[slow:10:3]]", states="SUCCEEDED")["output"]


def test_answers_beyond_the_limit(lab):
    client = lab.start("custom", OZ_PROVIDER_MAX_OUTPUT_BYTES=100_000)
    run = client.finish("[[big:500KB]]", timeout=20)
    assert run["state"] in ("FAILED", "SUCCEEDED")
    assert len(run["output"] or "") <= 100_000
    if run["state"] == "SUCCEEDED":
        assert run["output_truncated"] is True


def test_answer_of_10_mb(lab):
    client = lab.start("custom")
    run = client.finish("[[big:10MB]]", timeout=60)
    assert run["state"] in ("FAILED", "SUCCEEDED"), run["state"]
    assert len(run["output"] or "") <= 8 << 20
    assert client.finish("and on", states="SUCCEEDED")


def test_error_texts_are_cut_and_hold_no_secret(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_API_KEY=UPSTREAM_KEY)
    run = client.finish("[[status:400]]", states="FAILED")
    assert UPSTREAM_KEY not in str(run) and "127.0.0.1" not in run["error"]["message"]
    assert len(run["error"]["message"]) <= 600


def test_password_in_the_url_of_a_provider_is_refused_and_not_shown(lab):
    env = lab.env("custom")
    env["OZ_PROVIDER_CUSTOM_BASE_URL"] = env["OZ_PROVIDER_CUSTOM_BASE_URL"].replace("http://", "http://user:passw0rd@")
    server = lab.make_server(env, start=False)
    server.start(wait=False)
    assert server.wait_exit() == 1
    text = server.err + json.dumps(server.log)
    assert "OZ_PROVIDER_CUSTOM_BASE_URL" in text and "passw0rd" not in text


@pytest.mark.parametrize("prefix,marker", [("Provider error:", "status:400"), ("Provider rate limited:", "status:429")])
def test_error_texts_begin_as_clients_know_them(lab, prefix, marker):
    run = lab.start("custom").finish(f"[[{marker}]]", states="FAILED")
    assert run["error"]["message"].startswith(prefix) or run["error"]["message"] == "All providers saturated"


# --- fallback ---

@pytest.mark.parametrize("marker,falls", [
    ("status:429", True), ("status:500", True), ("status:503", True), ("status:529", True), ("status:401", True),
    ("status:403", True), ("cutbefore", True), ("cut", True), ("notext", True), ("html", True), ("badjson", True),
    ("nomodel", True), ("error-event", True), ("status:400", False), ("status:413", False), ("status:422", False),
    ("status:404", False)])
def test_fallback(lab, marker, falls):
    client = lab.start("custom", "second", "third", OZ_PROVIDER_RETRIES=0)
    lab.behave("custom", marker)
    run = client.finish("[[echo:from the fallback]]", timeout=20)
    attempts = run["provider"]["attempts"]
    if falls:
        assert run["state"] == "SUCCEEDED", run["error"]
        assert run["provider"]["key"] == "second" and run["provider"]["model"] == "second-model"
        assert run["output"] == "from the fallback", "the partial text of the first provider is discarded"
        assert [a["key"] for a in attempts] == ["custom", "second"]
        assert len(lab.calls("second")) == 1
    else:
        assert run["state"] == "FAILED" and run["error"]["code"] == "provider_bad_request"
        assert lab.calls("second") == [] and [a["key"] for a in attempts] == ["custom"]
    for a in attempts:
        assert {"key", "class", "ms"} <= set(a), a
    assert lab.calls("third") == []


def test_fallback_from_a_dead_primary(lab):
    client = lab.start("custom", "second", OZ_PROVIDER_CUSTOM_BASE_URL="http://127.0.0.1:1/v1")
    assert client.finish(states="SUCCEEDED", timeout=20)["provider"]["key"] == "second"


def test_all_fail_with_the_error_of_the_last(lab):
    client = lab.start("custom", "second", OZ_PROVIDER_RETRIES=0)
    lab.behave("custom", "status:503")
    lab.behave("second", "status:401")
    run = client.finish(states="FAILED", timeout=20)
    assert run["error"]["code"] == "provider_auth" and len(run["provider"]["attempts"]) == 2


def test_fallback_order_of_one_harness(lab):
    client = lab.start("glm", "second", "third", OZ_PROVIDER_FALLBACK_ORDER="second",
                       OZ_PROVIDER_FALLBACK_ORDER_GLM=" Third ,glm,, third,second", OZ_PROVIDER_RETRIES=0)
    lab.behave("glm", "status:503")
    assert client.finish(config={"model_id": "glm-4"}, states="SUCCEEDED")["provider"]["key"] == "third"


def test_incomplete_candidates_are_left_out(lab):
    client = lab.start("custom", "second", OZ_PROVIDER_FALLBACK_ORDER="missing,second", OZ_PROVIDER_RETRIES=0)
    lab.behave("custom", "status:503")
    run = client.finish(states="SUCCEEDED")
    assert [a["key"] for a in run["provider"]["attempts"]] == ["custom", "second"]


def test_no_candidate_is_a_configuration_error(lab):
    client = lab.start("second")
    run = client.finish(config={"model_id": "kimi-k2"}, states="FAILED")
    assert run["error"]["code"] == "config" and "kimi" in run["error"]["message"]
    assert re.search(r"OZ_PROVIDER_KIMI_", run["error"]["message"])


def test_retries_then_success(lab):
    client = lab.start("custom", OZ_PROVIDER_RETRIES=3)
    run = client.finish("[[status:503:times=2]] ", states="SUCCEEDED", timeout=20)
    calls = lab.calls("custom")
    assert len(calls) == 3
    gaps = [b["started"] - a["started"] for a, b in zip(calls, calls[1:])]
    assert all(g >= 0.1 for g in gaps), gaps
    assert run["output"]


def test_no_retry_after_the_first_delta(lab):
    client = lab.start("custom", OZ_PROVIDER_RETRIES=3)
    client.finish("[[cut]]", states="FAILED")
    assert len(lab.calls("custom")) == 1


def test_breaker_opens_and_closes(lab):
    client = lab.start("custom", "second", OZ_PROVIDER_RETRIES=0)
    lab.behave("custom", "status:503")
    for i in range(5):
        client.finish(f"fail {i}", states="SUCCEEDED")
    assert len(lab.calls("custom")) == 5
    client.finish("while open", states="SUCCEEDED")
    assert len(lab.calls("custom")) == 5, "the open breaker let a call through"
    row = provider_row(client, "custom")
    assert row["breaker"] not in (None, False, "closed"), row
    lab.behave("custom", "")
    time.sleep(15.5)
    assert client.finish("probe", states="SUCCEEDED", timeout=20)["provider"]["key"] == "custom"


# --- rate limits, quota, queueing ---

def provider_row(client, key):
    body = ok(client.api("GET", "/providers"))
    rows = body.get("providers", body.get("items"))
    return next(p for p in rows if p["key"] == key)


def test_rate_limited_provider_is_blocked_until_retry_after(lab):
    client = lab.start("custom", "second")
    lab.behave("custom", "status:429:retry=3")
    start = time.monotonic()
    assert client.finish(states="SUCCEEDED")["provider"]["key"] == "second"
    lab.behave("custom", "")
    row = provider_row(client, "custom")
    assert TIMESTAMP.fullmatch(row["blocked_until"])
    assert client.finish(states="SUCCEEDED")["provider"]["key"] == "second"
    assert len(lab.calls("custom")) == 1, "called while it was blocked"
    time.sleep(max(0.0, 3.3 - (time.monotonic() - start)))
    assert client.finish(states="SUCCEEDED")["provider"]["key"] == "custom"


def test_retry_after_as_a_date(lab):
    client = lab.start("custom", "second")
    lab.behave("custom", "status:429:retry-date=60")
    client.finish(states="SUCCEEDED")
    lab.behave("custom", "")
    assert client.finish(states="SUCCEEDED")["provider"]["key"] == "second"


def test_saturated_without_queueing_fails_after_the_answer(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60)
    client.finish("first", states="SUCCEEDED")
    run = client.finish("second", states="FAILED")
    assert run["error"]["code"] == "saturated" and run["error"]["message"] == "All providers saturated"
    assert len(lab.calls("custom")) == 1


def test_limit_1_with_8_parallel_runs_makes_exactly_1_upstream_call(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60)

    def one(i):
        with lab.server.client("lab") as c:
            return c.finish(f"parallel {i} [[slow:4:0.5]]")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(one, range(8)))
    assert sorted(r["state"] for r in runs) == ["FAILED"] * 7 + ["SUCCEEDED"]
    assert len(lab.calls("custom")) == 1
    assert provider_row(client, "custom")["used"] == 1 and provider_row(client, "custom")["limit"] == 1


def test_rolling_window_with_queueing(lab):
    """Limit 2 in 3 seconds, 6 runs: 2 calls per window at any moment, in the order of creation."""
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=2, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=3, **MANY)
    made = [client.create(f"queued {i}")["run_id"] for i in range(6)]
    for run in made:
        assert client.wait(run, timeout=30)["state"] == "SUCCEEDED"
    calls = lab.calls("custom")
    assert len(calls) == 6
    ends = sorted(c["started"] for c in calls)
    for a, b in zip(ends, ends[2:]):
        assert b - a >= 2.9, f"more than 2 calls in 3 s: {ends}"
    pairs = [{c["prompt"] for c in calls[i:i + 2]} for i in (0, 2, 4)]  # two calls at once arrive in either order
    assert pairs == [{f"queued {i}", f"queued {i + 1}"} for i in (0, 2, 4)], "first in, first out"


def test_waiting_run_says_so_and_is_cancelled_at_once(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60, **MANY)
    client.finish("first", states="SUCCEEDED")
    run_id = client.create("waits")["run_id"]

    def waiting():
        run = client.run(run_id)
        return run["state"] == "QUEUED" and run.get("queued_until") and run

    run = eventually(waiting, 10, "the wait")
    assert re.match(r"Waiting for provider capacity until \d{4}-", run["status_message"]["message"])
    assert TIMESTAMP.fullmatch(run["queued_until"])
    start = time.monotonic()
    client.cancel(run_id)
    assert client.wait(run_id)["state"] == "CANCELLED" and time.monotonic() - start < 2
    assert len(lab.calls("custom")) == 1


def test_total_wait_is_bounded(lab):
    client = lab.start("custom", OZ_QUEUE_MAX_WAIT_SECONDS=2, **MANY)
    lab.behave("custom", "status:429:retry=1")
    start = time.monotonic()
    run = client.finish(states="FAILED", timeout=15)
    assert 1.0 <= time.monotonic() - start < 8
    assert run["error"]["code"] == "saturated" and "custom" in run["error"]["message"]
    assert len(lab.calls("custom")) <= 4


def test_quota_is_per_tenant_by_default(lab):
    lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60)
    for tenant in ("a", "b"):
        assert lab.server.client(tenant).finish()["state"] == "SUCCEEDED"
        assert lab.server.client(tenant).finish()["state"] == "FAILED"


def test_global_quota(lab):
    lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60,
              OZ_PROVIDER_CUSTOM_QUOTA_SCOPE="global")
    assert lab.server.client("a").finish()["state"] == "SUCCEEDED"
    assert lab.server.client("b").finish()["state"] == "FAILED"


def test_failed_calls_cost_nothing(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60)
    client.finish("[[status:400]]", states="FAILED")
    client.finish("counts", states="SUCCEEDED")
    assert client.finish("over")["error"]["code"] == "saturated"


def test_quota_survives_a_restart(lab):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=120)
    client.finish(states="SUCCEEDED")
    lab.server.stop()
    lab.server.start()
    assert lab.server.client("lab").finish()["error"]["code"] == "saturated"
    lab.server.kill9()
    lab.server.start()
    assert lab.server.client("lab").finish()["error"]["code"] == "saturated"
    assert len(lab.calls("custom")) == 1


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_queueing_survives_a_restart(lab, how):
    client = lab.start("custom", OZ_PROVIDER_CUSTOM_MSG_LIMIT=1, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=5, **MANY)
    client.finish("first", states="SUCCEEDED")
    run_id = client.create("waits over the restart")["run_id"]
    eventually(lambda: client.run(run_id).get("queued_until"), 10, "the wait")
    getattr(lab.server, how)()
    lab.server.start()
    client = lab.server.client("lab")
    assert client.wait(run_id, timeout=20)["state"] == "SUCCEEDED"
    first, second = lab.calls("custom")
    assert second["started"] - first["started"] >= 4.8, "the quota was forgotten"


def test_fair_queue_between_tenants(lab):
    """One tenant's 20 waiting runs do not delay another's one to the end of the line."""
    lab.start("custom", OZ_RUN_CONCURRENCY=1)
    greedy, modest = lab.server.client("greedy"), lab.server.client("modest")
    made = [greedy.create(f"greedy {i} [[slow:2:0.2]]")["run_id"] for i in range(20)]
    mine = modest.create("modest [[slow:2:0.2]]")["run_id"]
    assert modest.wait(mine)["state"] == "SUCCEEDED"
    for run in made:
        greedy.wait(run)
    prompts = [c["prompt"].split(" [[")[0] for c in lab.calls("custom")]
    assert prompts.index("modest") <= 4, prompts
    assert [p for p in prompts if p != "modest"] == [f"greedy {i}" for i in range(20)], "first in, first out"


def test_run_concurrency_is_a_ceiling(lab):
    client = lab.start("custom", OZ_RUN_CONCURRENCY=3)
    made = [client.create(f"{i} [[slow:4:0.6]]")["run_id"] for i in range(9)]
    for run in made:
        client.wait(run)
    moments = sorted([(c["started"], 1) for c in lab.calls("custom")] + [(c["ended"], -1) for c in lab.calls("custom")])
    level = peak = 0
    for _, step in moments:
        level += step
        peak = max(peak, level)
    assert peak == 3, peak


def test_providers_page(lab):
    client = lab.start("custom", "second", OZ_PROVIDER_CUSTOM_MSG_LIMIT=5, OZ_PROVIDER_CUSTOM_WINDOW_SECONDS=60,
                       OZ_PROVIDER_CUSTOM_API_KEY=UPSTREAM_KEY)
    client.finish(states="SUCCEEDED")
    r = client.api("GET", "/providers")
    assert UPSTREAM_KEY not in r.text and "127.0.0.1" not in r.text and "http" not in r.text
    row = provider_row(client, "custom")
    assert row["type"] == "openai_compatible" and row["model"] == "custom-model"
    assert row["used"] == 1 and row["limit"] == 5 and "resets_at" in row and "breaker" in row
    assert row["blocked_until"] is None
    with lab.server.client("another") as other:
        assert provider_row(other, "custom")["used"] == 0
    assert_error(lab.server.client(None).api("GET", "/providers"), 401)


def test_connections_to_a_provider_are_reused(lab):
    client = lab.start("custom")
    ports = set()
    for i in range(5):
        client.finish(str(i), states="SUCCEEDED")
        ports.add(lab.model._ask("/__health")["connections"])
    assert max(ports) <= 60


def test_each_run_is_asked_once(lab):
    client = lab.start("custom")
    made = [client.create(f"once {i}")["run_id"] for i in range(100)]
    for run in made:
        assert client.wait(run)["state"] == "SUCCEEDED"
    prompts = sorted(c["prompt"] for c in lab.calls("custom"))
    assert prompts == sorted(f"once {i}" for i in range(100))


# --- configuration of providers ---

@pytest.mark.parametrize("env,names", [
    ({"OZ_PROVIDER_CUSTOM_TYPE": "telepathy"}, "OZ_PROVIDER_CUSTOM_TYPE"),
    ({"OZ_PROVIDER_CUSTOM_MSG_LIMIT": "many"}, "OZ_PROVIDER_CUSTOM_MSG_LIMIT"),
    ({"OZ_PROVIDER_CUSTOM_BASE_URL": "not a url"}, "OZ_PROVIDER_CUSTOM_BASE_URL"),
    ({"OZ_PROVIDER_CUSTOM_BASE_URL": "file:///etc/passwd"}, "OZ_PROVIDER_CUSTOM_BASE_URL"),
    ({"OZ_PROVIDER_CUSTOM_CLI_ARGS": "[\"unclosed"}, "OZ_PROVIDER_CUSTOM_CLI_ARGS"),
    ({"OZ_PROVIDER_CUSTOM_EXTRA_BODY": "{not json"}, "OZ_PROVIDER_CUSTOM_EXTRA_BODY"),
    ({"OZ_PROVIDER_CUSTOM_QUOTA_SCOPE": "galaxy"}, "OZ_PROVIDER_CUSTOM_QUOTA_SCOPE"),
    ({"OZ_PROVIDER_CUSTOM_TEMPERATURE": "hot"}, "OZ_PROVIDER_CUSTOM_TEMPERATURE"),
    ({"OZ_PROVIDER_CUSTOM_CLI_FORMAT": "morse"}, "OZ_PROVIDER_CUSTOM_CLI_FORMAT"),
    ({"OZ_PROVIDER_RETRIES": "6"}, "OZ_PROVIDER_RETRIES"), ({"OZ_QUEUE_MAX_WAIT_SECONDS": "soon"},
                                                            "OZ_QUEUE_MAX_WAIT_SECONDS")])
def test_mistakes_in_the_configuration_are_fatal_and_named(make_server, lab, env, names):
    server = make_server({**lab.env("custom"), **env}, start=False)
    server.start(wait=False)
    assert server.wait_exit() != 0
    assert names in server.err + json.dumps(server.log), server.tail()


def test_validation_at_startup(make_server):
    server = make_server({"OZ_STARTUP_VALIDATE_PROVIDERS": "1", "OZ_VALIDATE_HARNESSES": "codex"}, start=False)
    server.start(wait=False)
    assert server.wait_exit() == 1
    line = server.wait_log("startup.fatal")
    assert "codex" in json.dumps(line)


def test_validation_checks_keys_and_commands(make_server):
    for env, what in (({"OZ_PROVIDER_CLAUDE_TYPE": "anthropic", "OZ_PROVIDER_CLAUDE_MODEL": "m"}, "API_KEY"),
                      ({"OZ_PROVIDER_CLAUDE_TYPE": "cli", "OZ_PROVIDER_CLAUDE_CLI_CMD": "/no/such/program"}, "CLI_CMD")):
        server = make_server({"OZ_STARTUP_VALIDATE_PROVIDERS": "1", "OZ_VALIDATE_HARNESSES": "claude-code", **env},
                             start=False)
        server.start(wait=False)
        assert server.wait_exit() == 1
        assert f"OZ_PROVIDER_CLAUDE_{what}" in server.err + json.dumps(server.log)


def test_global_key_and_url_do_not_leak_to_configured_providers(lab, model):
    client = lab.start("glm", OZ_PROVIDER_API_KEY=UPSTREAM_KEY, OZ_PROVIDER_BASE_URL=model.base(lab.upstream("global")),
                       OZ_PROVIDER_MODEL="global-model")
    client.finish(config={"model_id": "glm"}, states="SUCCEEDED")
    assert "authorization" not in lab.calls("glm")[0]["headers"]
    client.finish("for custom", states="SUCCEEDED")
    (call,) = lab.calls("global")
    assert call["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}" and call["body"]["model"] == "global-model"


def test_discovered_providers_serve_the_admin_only(make_server, tmp_path):
    """A program called claude on PATH is found at first start; tenants must not reach it (G10)."""
    fake = tmp_path / "claude"
    fake.write_text("#!/bin/sh\necho '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,"
                    "\"result\":\"from the found agent\"}'\n")
    fake.chmod(0o755)
    server = make_server({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    run = server.client("stranger").finish(config={"model_id": "claude"})
    assert run["state"] == "FAILED" and run["error"]["code"] == "config"
    assert "claude" in json.dumps(server.log), "what was found is not said"
    run = server.client().finish(config={"model_id": "claude"})
    assert run["state"] == "SUCCEEDED" and run["output"] == "from the found agent", run


def test_shell_harness_is_for_the_admin_only(make_server):
    server = make_server({"PATH": "/usr/bin:/bin"})
    run = server.client().finish("echo $((6*7))", config={"model_id": "shell"})
    assert run["state"] == "SUCCEEDED" and run["output"] == "42"
    r = server.client("stranger").api("POST", "/agent/run", json={"prompt": "id", "config": {"model_id": "shell"}})
    if r.status_code == 200:
        assert server.client("stranger").wait(r.json()["run_id"])["state"] == "FAILED"
    else:
        assert_error(r, (400, 403))
