"""What the runner of an attempt does over HTTP with its session token (oz-worker.md 8.4, 13.6, 16): the prompt, reports,
files; and who may see what it left."""
import concurrent.futures
import hashlib
import secrets
import time

import pytest
from fleet import DIALECTS, FLEET, begin, make, settled
from harness import API, assert_error, eventually, ok
from worker_peers import Native, V, W


@pytest.fixture
def peer(oz):
    with Native(oz, capacity=50) as p:
        yield p


class Runner:
    """The attempt's own client."""

    def __init__(self, server, task, token=None):
        self.id, self.task = task["task_id"], task
        self.http = server.client(token or task["env_vars"]["OZ_RUN_TOKEN"])

    def path(self, rest, run_id=None):
        return f"{API}/agent/runs/{run_id or self.id}/{rest}"

    def put(self, name, content=b"content", media_type="text/plain", run_id=None):
        return self.http.put(self.path("files/" + name, run_id), content=content,
                             headers={"Content-Type": media_type} if media_type else {})

    def report(self, kind, run_id=None, **body):
        return self.http.post(self.path("report", run_id), json={
            "execution_id": self.task["execution_id"], "kind": kind, **body})

    def prompt(self, run_id=None):
        return self.http.get(self.path("prompt", run_id))


def held(server, client, peer, **config):
    return Runner(server, begin(client, peer, **config))


def over(client, peer, runner, **end):
    peer.complete(runner.task, **end)
    return client.wait(runner.id)


def download(client, run_id, name, **headers):
    return client.get(f"{API}/agent/runs/{run_id}/files/{name}", headers=headers)


def files(client, run_id):
    return {f["name"]: f for f in ok(client.api("GET", f"/agent/runs/{run_id}/files"))["files"]}


# --- the prompt ---

def test_prompt_is_the_tasks_own(oz, client, peer):
    prompt = 'Say "hi" <&>\n\u2028 🙂 ' + "x" * 200_000
    runner = held(oz, client, peer, prompt=prompt)
    answer = runner.prompt()
    assert answer.status_code == 200 and answer.text == prompt
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.get(runner.path("prompt")).status_code in (403, 404), "the tenant's own key is no session token"
    over(client, peer, runner)


# --- the token ---

def test_token_opens_its_own_run_only(oz, client, peer):
    one, two = held(oz, client, peer), held(oz, client, peer)
    assert one.http.token != two.http.token
    for answer in (one.prompt(two.id), one.report("heartbeat", two.id, seq=1), one.put("a.txt", run_id=two.id),
                   one.prompt("run_00000000-0000-4000-8000-000000000000"), one.prompt("nonsense")):
        assert_error(answer, 404)
    stranger = Runner(oz, one.task, token="not-a-token-" + secrets.token_hex(16))
    for answer in (stranger.prompt(), stranger.report("heartbeat", seq=1), stranger.put("a.txt")):
        assert_error(answer, (401, 404))
    for method, path in (("GET", f"/agent/runs/{one.id}"), ("GET", "/agent/runs"), ("POST", f"/agent/runs/{one.id}/cancel"),
                         ("GET", f"/agent/runs/{one.id}/files"), ("GET", "/workers"), ("GET", "/environments"),
                         ("GET", f"/agent/runs/{one.id}/files/a.txt")):
        assert_error(one.http.api(method, path), 403)
    assert_error(one.http.api("POST", "/agent/run", json={"prompt": "more"}), 403)
    assert_error(oz.client(None).get(one.path("prompt")), 401)
    assert client.run(one.id)["state"] == "INPROGRESS" and files(client, one.id) == {} == files(client, two.id)
    over(client, peer, one)
    over(client, peer, two)


def test_token_ends_with_its_attempt(oz, client, peer):
    runner = held(oz, client, peer)
    ok(runner.put("kept.txt", b"kept"))
    over(client, peer, runner, output="the end")
    for answer in (runner.put("late.txt"), runner.report("heartbeat", seq=9), runner.report("result", output="changed"),
                   runner.prompt()):
        assert_error(answer, (401, 404, 409))
    run = client.run(runner.id)
    assert run["output"] == "the end" and sorted(files(client, runner.id)) == ["kept.txt", "output"]


def test_token_of_an_earlier_attempt_is_worth_nothing(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a, V(server, "b") as b:
        run_id = make(client)
        first, second = (a, b) if eventually(lambda: a.of("task_assignment") or b.of("task_assignment"), 20, "somebody gets it") \
            and a.of("task_assignment") else (b, a)
        old_task = first.assigned(run_id)
        old = Runner(server, old_task)
        ok(old.report("heartbeat", seq=1))
        first.send("task_rejected", {"task_id": run_id, "reason": "worker at maximum concurrency"})
        new_task = second.assigned(run_id, timeout=40)
        second.claim(new_task)
        client.wait(run_id, "INPROGRESS")
        new = Runner(server, new_task)
        assert new.http.token != old.http.token
        for answer in (old.put("x.txt"), old.report("log", seq=2, stream="stdout", offset=0, chunk="old"),
                       old.report("result", seq=3, output="of the old one", exit_code=0), old.prompt()):
            assert_error(answer, (401, 404, 409))
        ok(new.put("x.txt", b"new"))
        second.send("task_completed", {"task_id": run_id, "message": "done"})
        run = client.wait(run_id, "SUCCEEDED")
        assert "old" not in run["output"]
        assert download(client, run_id, "x.txt").content == b"new"


def test_token_survives_a_restart_of_the_server(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peer = Native(server, "n")
    runner = held(server, client, peer)
    ok(runner.put("before.txt", b"before"))
    server.kill9()
    peer.wait_closed()
    server.start()
    client = server.client()
    again = Runner(server, runner.task)
    assert again.prompt().text == "do it"
    ok(again.put("after.txt", b"after"))
    ok(again.report("heartbeat", seq=1))
    peer.reconnect()
    over(client, peer, runner)
    for name in ("before", "after"):
        assert download(client, runner.id, name + ".txt").content == name.encode()
    peer.close()


# --- reports ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_result_is_data_and_the_worker_says_when_it_is_over(oz, client, kind):
    pr = "https://github.com/o/r/pull/9"
    with kind(oz) as peer:
        runner = held(oz, client, peer)
        ok(runner.report("result", seq=2, output="from the sidecar <&> " + pr, exit_code=7,
                         session_link="https://x.test/session/1"))
        settled(peer)
        assert client.run(runner.id)["state"] == "INPROGRESS", "only the worker ends it"
        peer.complete(runner.task)
        run = client.wait(runner.id)
        assert run["state"] == "SUCCEEDED"
        assert run["output"] == "from the sidecar <&> " + pr and run["session_link"] == "https://x.test/session/1"
        assert [x["data"]["url"] for x in run["artifacts"]] == [pr]


def test_result_right_behind_the_claim_is_not_lost(oz, client):
    """The claim may still be on its way to the database when the result of a tiny task comes."""
    with W(oz) as peer:
        for i in range(20):
            task = peer.assigned(make(client, peer))
            runner = Runner(oz, task)
            peer.claim(task)
            ok(runner.report("result", seq=1, output=f"tiny {i}"))
            peer.complete(task)
            assert client.wait(task["task_id"], "SUCCEEDED")["output"] == f"tiny {i}"


def test_result_of_a_task_whose_worker_stays_away_is_final(make_server):
    for exit_code, state in ((0, "SUCCEEDED"), (3, "FAILED")):
        server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "2000"})
        client = server.client()
        peer = W(server)
        runner = held(server, client, peer)
        peer.abort()
        ok(runner.report("result", seq=1, output="it outlived its worker", exit_code=exit_code))
        run = client.wait(runner.id, state, timeout=40)
        assert run["output"] == "it outlived its worker"


def test_heartbeats_keep_a_run_whose_worker_is_away(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "3000"})
    client = server.client()
    peer = W(server)
    runner = held(server, client, peer)
    peer.abort()
    for i in range(16):
        ok(runner.report("heartbeat", seq=i + 1))
        assert client.run(runner.id)["state"] == "INPROGRESS"
        time.sleep(0.5)
    run = client.wait(runner.id, "FAILED", timeout=40)
    assert run["error"]["message"] == "Worker disconnected"


def test_log_chunks_become_the_output(oz, client):
    with W(oz) as peer:
        runner = held(oz, client, peer)
        at = 0
        for i, text in enumerate(("one <&>\n", "zwei ü\n", "z" * 60_000)):
            ok(runner.report("log", seq=i + 1, stream="stdout", offset=at, chunk=text))
            ok(runner.report("log", seq=i + 1, stream="stdout", offset=at, chunk=text))  # once more: a retry
            at += len(text.encode())
        with client.events(runner.id) as stream:
            first = next(e for e in stream if e["event"] == "output")
            assert "one <&>" in str(first["data"])
        peer.complete(runner.task)
        assert client.wait(runner.id, "SUCCEEDED")["output"] == "one <&>\nzwei ü\n" + "z" * 60_000


def test_reports_are_checked(oz, client, peer):
    runner = held(oz, client, peer)
    assert_error(runner.report("victory", seq=1), 400, field="kind")
    assert_error(runner.http.post(runner.path("report"), json={}), 400, field="kind")
    assert_error(runner.http.post(runner.path("report"), content=b"{"), 400)
    assert_error(runner.http.post(runner.path("report"), json=[]), 400)
    assert_error(runner.report("log", seq=1, offset=0), 400, field="chunk")
    assert_error(runner.report("log", seq=1, chunk="x"), 400, field="offset")
    assert_error(runner.report("log", seq=1, offset=-1, chunk="x"), 400)
    assert_error(runner.report("log", seq=1, offset=2**63 - 1, chunk="x"), 400, field="offset")
    assert_error(runner.report("log", seq=1, offset=0, chunk="x" * (64 * 1024 + 1)), 400, field="chunk")
    assert_error(runner.report("log", seq=1, offset=0, chunk=7), 400)
    assert_error(runner.report("result", exit_code="0"), 400)
    ok(runner.report("log", seq=1, offset=0, chunk="x" * (64 * 1024)))
    over(client, peer, runner)


def test_report_that_is_too_large(oz, client, peer):
    runner = held(oz, client, peer)
    answer = runner.http.post(runner.path("report"), content=b'{"kind":"result","output":"' + b"x" * (33 << 20) + b'"}',
                              headers={"Content-Type": "application/json"})
    assert_error(answer, 413)
    over(client, peer, runner)


# --- files ---

def test_a_file_comes_back_as_it_was_left(oz, client, peer):
    runner = held(oz, client, peer)
    content = bytes(range(256)) * 1000
    left = ok(runner.put("changes.patch", content, "text/x-diff"))
    digest = hashlib.sha256(content).hexdigest()
    assert left["name"] == "changes.patch" and left["bytes"] == len(content) and left["sha256"] == digest
    assert left["media_type"] == "text/x-diff"
    listed = files(client, runner.id)["changes.patch"]
    assert (listed["bytes"], listed["sha256"], listed["media_type"]) == (len(content), digest, "text/x-diff")
    ok(runner.put("empty", b"", None))
    assert files(client, runner.id)["empty"]["media_type"] == "application/octet-stream"
    over(client, peer, runner)
    got = download(client, runner.id, "changes.patch")
    assert got.status_code == 200 and got.content == content
    assert got.headers["x-content-type-options"] == "nosniff" and got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-type"].startswith("application/octet-stream"), "never as something that a browser runs"
    assert download(client, runner.id, "empty").content == b""
    assert_error(download(client, runner.id, "nothing.txt"), 404)


def test_a_file_of_the_same_name_replaces_the_first(oz, client, peer):
    runner = held(oz, client, peer)
    for content in (b"first", b"the second one", b"third"):
        ok(runner.put("out.txt", content))
        assert download(client, runner.id, "out.txt").content == content
    assert len(files(client, runner.id)) == 1
    objects = [p for p in (oz.data).rglob("*") if p.is_file() and p.stat().st_size == len(b"the second one")
               and p.read_bytes() == b"the second one"]
    eventually(lambda: not [p for p in objects if p.exists()], 20, "the replaced bytes are gone")
    over(client, peer, runner)
    assert download(client, runner.id, "out.txt").content == b"third"


def test_many_at_once_for_one_name_leave_one(oz, client, peer):
    runner = held(oz, client, peer)
    contents = [f"content {i}".encode() * 100 for i in range(12)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda c: Runner(oz, runner.task).put("same.txt", c), contents))
    assert all(a.status_code == 200 for a in answers), [a.text for a in answers if a.status_code != 200]
    listed = files(client, runner.id)
    assert len(listed) == 1
    got = download(client, runner.id, "same.txt").content
    assert got in contents and hashlib.sha256(got).hexdigest() == listed["same.txt"]["sha256"]
    over(client, peer, runner)


@pytest.mark.parametrize("header,expected,shown", [
    ("bytes=0-9", slice(0, 10), "bytes 0-9/1000"), ("bytes=990-", slice(990, None), "bytes 990-999/1000"),
    ("bytes=-10", slice(990, None), "bytes 990-999/1000"), ("bytes=5-5", slice(5, 6), "bytes 5-5/1000"),
    ("bytes=0-99999", slice(0, None), "bytes 0-999/1000"), ("bytes=-99999", slice(0, None), "bytes 0-999/1000"),
    ("bytes=1000-", None, "bytes */1000"), ("bytes=-0", None, "bytes */1000"),
    ("bytes=9-5", slice(0, None), ""), ("lines=0-5", slice(0, None), ""), ("bytes=a-b", slice(0, None), "")])
def test_ranges(oz, client, peer, header, expected, shown):
    content = bytes(i * 7 % 256 for i in range(1000))
    runner = held(oz, client, peer)
    ok(runner.put("data.bin", content))
    over(client, peer, runner)
    got = download(client, runner.id, "data.bin", Range=header)
    if expected is None:
        assert got.status_code == 416 and got.headers["content-range"] == shown
    elif shown:
        assert got.status_code == 206 and got.content == content[expected] and got.headers["content-range"] == shown
    else:
        assert got.status_code == 200 and got.content == content and "content-range" not in got.headers


@pytest.mark.parametrize("name", ["%2e%2e", "..%2Fx", ".hidden", "a%2Fb", "a%5Cb", "a%00b", "a%0Ab", "a%7Fb", "%FF", "output",
                                  "x" * 129, "%2e"])
def test_bad_names(oz, client, peer, name):
    runner = held(oz, client, peer)
    # "output" and "." are other routes, which are none of the token's
    assert_error(runner.put(name), 403 if name in ("output", "%2e") else (400, 404))
    assert files(client, runner.id) == {}
    over(client, peer, runner)


def test_good_names(oz, client, peer):
    runner = held(oz, client, peer)
    for name, raw in (("a b.txt", "a%20b.txt"), ("ü.md", "%C3%BC.md"), ("x" * 128, "x" * 128), ("-rf", "-rf"),
                      ("100%.txt", "100%25.txt"), ("a?b", "a%3Fb"), ('q"q', "q%22q")):
        ok(runner.put(raw, name.encode()))
        assert name in files(client, runner.id)
        assert download(client, runner.id, raw).content == name.encode()
    over(client, peer, runner)


def test_files_that_are_too_large_or_too_many(oz, client, peer):
    runner = held(oz, client, peer)
    assert_error(runner.put("big.bin", b"x" * ((32 << 20) + 1)), 413)
    assert files(client, runner.id) == {}
    ok(runner.put("fits.bin", b"x" * (32 << 20)))
    for i in range(63):
        ok(runner.put(f"f{i}", b"x"))
    assert_error(runner.put("f63", b"x"), 413, "too_many_files")
    ok(runner.put("f5", b"replaced: not one more"))
    assert len(files(client, runner.id)) == 64
    over(client, peer, runner)


def test_files_of_one_run_together_are_limited(oz, client, peer):
    runner = held(oz, client, peer)
    for i in range(8):
        ok(runner.put(f"f{i}", bytes([i]) * (32 << 20)))
    assert_error(runner.put("one-more", b"x"), 413, "too_many_files")
    over(client, peer, runner)


def test_media_types(oz, client, peer):
    runner = held(oz, client, peer)
    assert_error(runner.put("a", media_type="x" * 128), 400)
    ok(runner.put("a", media_type="text/html; charset=utf-8"))
    got = download(client, runner.id, "a")
    assert not got.headers["content-type"].startswith("text/html"), "an agent's HTML is not ours to serve"
    over(client, peer, runner)


def test_strangers_see_nothing(oz, client, peer):
    runner = held(oz, client, peer)
    ok(runner.put("secret.txt", b"secret"))
    over(client, peer, runner, output="secret output")
    with oz.client("stranger-" + secrets.token_hex(12)) as stranger:
        for path in ("files", "files/secret.txt", "files/output"):
            assert_error(stranger.api("GET", f"/agent/runs/{runner.id}/{path}"), 404)
        assert_error(stranger.put(f"{API}/agent/runs/{runner.id}/files/secret.txt", content=b"overwritten"), (401, 403, 404))
    with oz.client() as admin:
        assert download(admin, runner.id, "secret.txt").content == b"secret"
    assert download(client, runner.id, "output").content == b"secret output"
    assert_error(oz.client(None).get(f"{API}/agent/runs/{runner.id}/files/secret.txt"), 401)


def test_tenants_and_admins_leave_no_files(oz, client, peer):
    runner = held(oz, client, peer)
    for who in (client, oz.client()):
        assert_error(who.put(runner.path("files/x.txt"), content=b"x"), (403, 404))
        assert_error(who.post(runner.path("report"), json={"kind": "heartbeat"}), (403, 404))
    over(client, peer, runner)
