"""GET, long poll, cancel, delete, rerun of one run (oz-api.md 4.5, 4.6, 5, 7, 17.24)."""
import base64
import concurrent.futures
import hashlib
import os
import time
import uuid

import pytest
from harness import API, TERMINAL, assert_error, assert_run, eventually, new_run_id, ok, provider_env


@pytest.mark.parametrize("form", ["{}", "run_{}"])
def test_get_with_and_without_prefix(tenant, form):
    run = tenant.create()["run_id"]
    assert_run(tenant.run(form.format(run.removeprefix("run_"))))


@pytest.mark.parametrize("ident", ["x", "run_", "run_1", "0", "%00", "%2e%2e", "run_" + "z" * 36, "a" * 5000, "env_x",
                                   "%F0%9F%9A%80", "'", "run_%s"])
def test_ids_that_are_none_are_404(tenant, ident):
    r = tenant.api("GET", f"/agent/runs/{ident}")
    assert r.status_code in (400, 404), r.text
    assert_error(r, (400, 404))


def test_unknown_id_is_404(tenant):
    body = assert_error(tenant.api("GET", f"/agent/runs/{new_run_id()}"), 404, "not_found")
    assert body["error"] == "Not found"


def test_failed_run_shows_its_error(tenant):
    run = assert_run(tenant.finish("[[status:400]]"))
    assert run["state"] == "FAILED" and run["completed_at"]
    assert run["error"]["code"] == "provider_bad_request" and run["error"]["message"]
    assert run["status_message"]["message"] == run["error"]["message"]


def test_failed_run_shows_its_error_not_the_partial_output(tenant):
    run = tenant.finish("[[cut]]")
    assert run["state"] == "FAILED" and run["error"]["code"] == "provider_bad_response"
    assert run["status_message"]["message"] == run["error"]["message"]


def test_partial_text_is_seen_while_it_works(tenant):
    run_id = tenant.create("[[slow:20:6]]")["run_id"]

    def words():
        run = tenant.run(run_id)
        assert run["state"] in ("QUEUED", "INPROGRESS"), "ended before its words were seen"
        return run["state"] == "INPROGRESS" and run["status_message"] and run["status_message"]["message"]

    first = eventually(words, 4, "a first word in status_message")
    final = tenant.wait(run_id)
    assert final["output"].startswith(first[:5]) and len(final["output"]) > len(first)


def test_output_download(tenant):
    run = tenant.finish("[[echo:plain bytes]]")
    r = tenant.api("GET", f"/agent/runs/{run['run_id']}/files/output")
    assert r.status_code == 200 and r.content == b"plain bytes"
    assert r.headers["content-type"] == "application/octet-stream"
    assert r.headers["x-content-type-options"] == "nosniff"
    part = tenant.api("GET", f"/agent/runs/{run['run_id']}/files/output", headers={"Range": "bytes=6-10"})
    assert part.status_code == 206 and part.content == b"bytes"
    past = tenant.api("GET", f"/agent/runs/{run['run_id']}/files/output", headers={"Range": "bytes=11-"})
    assert past.status_code == 416 and past.headers["content-range"] == "bytes */11" and past.json()["request_id"]
    (item,) = ok(tenant.api("GET", f"/agent/runs/{run['run_id']}/files"))["files"]
    assert item["name"] == "output" and item["bytes"] == 11


def test_input_images_are_files_of_the_run(tenant, other):
    raw = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    body = {"prompt": "x", "images": [{"data": base64.b64encode(raw).decode(), "mime_type": "image/png"}]}
    run = tenant.finish(**body)
    files = {f["name"]: f for f in ok(tenant.api("GET", f"/agent/runs/{run['run_id']}/files"))["files"]}
    assert set(files) == {"image-1", "output"} and files["image-1"]["media_type"] == "image/png"
    assert files["image-1"]["sha256"] == hashlib.sha256(raw).hexdigest()
    r = tenant.api("GET", f"/agent/runs/{run['run_id']}/files/image-1")
    assert r.status_code == 200 and r.content == raw and r.headers["content-type"] == "application/octet-stream"
    assert_error(tenant.api("GET", f"/agent/runs/{run['run_id']}/files/image-2"), 404, "not_found")
    for path in ("", "/image-1", "/output"):
        assert_error(other.api("GET", f"/agent/runs/{run['run_id']}/files{path}"), 404, "not_found")


def test_images_leave_the_disk_with_their_run(make_server, model):
    server = make_server(provider_env(model))
    client = server.client("t")
    image = {"data": base64.b64encode(b"\x89PNG" + b"z" * 100).decode(), "mime_type": "image/png"}

    def stored():
        return [p for p in server.data.rglob("*") if p.is_file() and p.stat().st_size == 104]

    key = {"Idempotency-Key": "k"}
    body = {"prompt": "x", "images": [image]}
    first = ok(client.api("POST", "/agent/run", json=body, headers=key))["run_id"]
    assert len(stored()) == 1
    assert ok(client.api("POST", "/agent/run", json=body, headers=key))["run_id"] == first
    assert client.api("POST", "/agent/run", json={**body, "prompt": "y"}, headers=key).status_code == 422
    assert len(stored()) == 1, "a repetition leaves its images behind"
    client.wait(first)
    assert ok(client.api("DELETE", f"/agent/runs/{first}"))["success"] is True
    assert stored() == []


# --- long poll ---

def test_wait_answers_when_the_run_ends(tenant):
    run_id = tenant.create("[[slow:4:1.5]]")["run_id"]
    start = time.monotonic()
    run = ok(tenant.api("GET", f"/agent/runs/{run_id}", params={"wait": 30}))
    assert run["state"] == "SUCCEEDED" and 0.5 < time.monotonic() - start < 15


def test_wait_gives_the_live_run_after_its_time(tenant):
    run_id = tenant.create("[[stall]]")["run_id"]
    start = time.monotonic()
    run = ok(tenant.api("GET", f"/agent/runs/{run_id}", params={"wait": 1}))
    assert run["state"] not in TERMINAL and 0.8 < time.monotonic() - start < 5
    tenant.cancel(run_id)


def test_wait_on_an_ended_run_answers_at_once(tenant):
    run_id = tenant.finish()["run_id"]
    start = time.monotonic()
    ok(tenant.api("GET", f"/agent/runs/{run_id}", params={"wait": 30}))
    assert time.monotonic() - start < 3


def test_wait_sees_a_cancel(tenant, oz):
    run_id = tenant.create("[[stall]]")["run_id"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool, oz.client(tenant.token) as second:
        waiting = pool.submit(lambda: ok(second.api("GET", f"/agent/runs/{run_id}", params={"wait": 40})))
        time.sleep(0.5)
        assert tenant.cancel(run_id).status_code == 200
        assert waiting.result(15)["state"] == "CANCELLED"


@pytest.mark.parametrize("wait", ["abc", "-1", "", "51x"])
def test_wait_that_is_no_number(tenant, wait):
    run_id = tenant.create()["run_id"]
    assert_error(tenant.api("GET", f"/agent/runs/{run_id}", params={"wait": wait}), 400, "invalid_field", "wait")


def test_client_that_leaves_a_long_poll_harms_nothing(tenant, oz):
    run_id = tenant.create("[[slow:10:2]]")["run_id"]
    for _ in range(20):
        with oz.socket() as s:
            s.sendall(f"GET {API}/agent/runs/{run_id}?wait=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                      f"Authorization: Bearer {tenant.token}\r\n\r\n".encode())
            time.sleep(0.02)
    assert tenant.wait(run_id)["state"] == "SUCCEEDED"


# --- cancel ---

def test_cancel_answers_the_run_id_as_a_bare_string(tenant):
    run_id = tenant.create("[[stall]]")["run_id"]
    r = tenant.cancel(run_id)
    assert r.status_code == 200 and r.headers["content-type"].startswith("application/json")
    assert r.json() == run_id and r.headers["x-request-id"]
    run = tenant.wait(run_id)
    assert run["state"] == "CANCELLED" and run["completed_at"] and run["status_message"]["message"]
    assert run["error"]["code"] == "cancelled"


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b"x" * 20_000])
def test_cancel_ignores_its_body(tenant, body):
    run_id = tenant.create("[[stall]]")["run_id"]
    r = tenant.api("POST", f"/agent/runs/{run_id}/cancel", content=body, headers={"Content-Type": "application/json"})
    assert r.status_code == 200 and r.json() == run_id


def test_cancel_unknown_is_404(tenant):
    assert_error(tenant.cancel(new_run_id()), 404, "not_found")


@pytest.mark.parametrize("prompt,state", [("fine", "SUCCEEDED"), ("[[status:400]]", "FAILED")])
def test_cancel_never_changes_an_ended_run(tenant, prompt, state):
    before = tenant.finish(prompt, states=state)
    for _ in range(2):
        r = tenant.cancel(before["run_id"])
        assert r.status_code == 200 and r.json() == before["run_id"]
    after = tenant.run(before["run_id"])
    before.pop("request_id"), after.pop("request_id")
    assert after == before


def test_cancel_twice_keeps_the_first_end(tenant):
    run_id = tenant.create("[[stall]]")["run_id"]
    tenant.cancel(run_id)
    first = tenant.wait(run_id)["completed_at"]
    assert tenant.cancel(run_id).json() == run_id
    assert tenant.run(run_id)["completed_at"] == first


@pytest.mark.parametrize("marker", ["[[stall]]", "[[stallmid]]", "[[slow:100:60]]"])
def test_cancel_closes_the_upstream_connection(tenant, model, word, marker):
    run_id = tenant.create(f"{word} {marker}")["run_id"]
    model.wait_calls(1, word)
    time.sleep(0.2)
    assert model.calls(word)[0]["outcome"] == "open"
    tenant.cancel(run_id)
    model.wait_outcome("peer closed", word, timeout=5)
    assert tenant.wait(run_id)["state"] == "CANCELLED"
    assert len(model.calls(word)) == 1, "called again after the cancel"


def test_cancel_keeps_the_partial_output(tenant, model, word):
    run_id = tenant.create(f"{word} [[stallmid]]")["run_id"]
    eventually(lambda: tenant.run(run_id).get("output") or (tenant.run(run_id)["status_message"] or {}).get("message"),
               10, "partial output")
    tenant.cancel(run_id)
    run = tenant.wait(run_id)
    assert run["state"] == "CANCELLED" and run["output"] and "Hello from the scripted".startswith(run["output"][:10])


def test_cancel_of_a_pending_run(tenant, model, word):
    run_id = tenant.create(word, config={"environment_id": "debian:12"})["run_id"]
    assert tenant.cancel(run_id).json() == run_id
    run = tenant.wait(run_id)
    assert run["state"] == "CANCELLED" and run["started_at"] is None and model.calls(word) == []


def test_cancel_of_a_queued_run_never_calls_a_provider(make_server, model, word):
    server = make_server(provider_env(model, OZ_RUN_CONCURRENCY="1"))
    client = server.client("t")
    blocker = client.create(f"{word}-blocker [[stall]]")["run_id"]
    client.wait(blocker, "INPROGRESS")
    queued = client.create(f"{word}-queued")["run_id"]
    assert client.run(queued)["state"] == "QUEUED"
    client.cancel(queued)
    assert client.wait(queued)["state"] == "CANCELLED"
    client.cancel(blocker)
    client.wait(blocker)
    assert client.finish(f"{word}-after")["state"] == "SUCCEEDED"
    assert model.calls(f"{word}-queued") == []


def test_cancel_ends_the_whole_process_group(make_server, tmp_path):
    """The CLI, its child and its grandchild: all gone, also one that ignores SIGTERM."""
    pids = tmp_path / "pids"
    script = tmp_path / "agent.sh"
    script.write_text(f"""#!/bin/bash
echo $$ >>{pids}
(trap '' TERM; echo $BASHPID >>{pids}; while :; do sleep 1; done) &
(sleep 300 & echo $! >>{pids}; wait) &
echo working
sleep 300
""")
    script.chmod(0o755)
    server = make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": str(script)})
    client = server.client("t")
    run_id = client.create()["run_id"]
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 3, 10, "three processes")
    client.cancel(run_id)
    assert client.wait(run_id, timeout=15)["state"] == "CANCELLED"

    def alive(pid):
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    eventually(lambda: not any(alive(p) for p in pids.read_text().split()), 15, "the end of the process group")


def test_cancel_races_with_completion(tenant, oz, model):
    """Whoever wins, the run ends once and stays so."""
    def one(i):
        with oz.client(tenant.token) as client:
            run_id = client.create(f"race {i}")["run_id"]
            time.sleep(0.003 * (i % 7))
            assert client.cancel(run_id).json() == run_id
            end = client.wait(run_id)
            with client.events(run_id) as stream:
                events = stream.until_end()
            return end, client.run(run_id), events

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(60)))
    for end, later, events in results:
        assert end["state"] in ("SUCCEEDED", "CANCELLED") and later["state"] == end["state"]
        assert [e["event"] for e in events].count("end") == 1
        if end["state"] == "SUCCEEDED":
            assert end["output"] and end["error"] is None


def test_many_parallel_cancels_of_one_run(tenant, oz):
    run_id = tenant.create("[[stall]]")["run_id"]

    def one(_):
        with oz.client(tenant.token) as client:
            return client.cancel(run_id)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert {r.status_code for r in pool.map(one, range(32))} == {200}
    assert tenant.wait(run_id)["state"] == "CANCELLED"


# --- delete and rerun ---

def test_delete_an_ended_run(tenant):
    run_id = tenant.finish("to be deleted")["run_id"]
    assert tenant.api("DELETE", f"/agent/runs/{run_id}").status_code in (200, 204)
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/events"), ("GET", "/files/output")):
        assert_error(tenant.api(method, f"/agent/runs/{run_id}{path}"), 404, "not_found")
    assert tenant.list()["runs"] == []


def test_a_live_run_is_not_deleted(tenant):
    run_id = tenant.create("[[stall]]")["run_id"]
    r = tenant.api("DELETE", f"/agent/runs/{run_id}")
    assert_error(r, 409, "conflict")
    assert r.headers["x-should-retry"] == "false"
    assert tenant.run(run_id)["state"] not in TERMINAL
    tenant.cancel(run_id)


def test_rerun_makes_a_new_run_of_the_same_task(tenant, model, word):
    first = tenant.finish(word, title="once more", config={"name": "n"})
    again = ok(tenant.api("POST", f"/agent/runs/{first['run_id']}/rerun"))
    assert again["run_id"] != first["run_id"] and again["state"] == "QUEUED"
    run = tenant.wait(again["run_id"])
    assert run["prompt"] == word and run["title"] == "once more" and len(model.calls(word)) == 2
    assert tenant.run(first["run_id"])["completed_at"] == first["completed_at"]
    assert_error(tenant.api("POST", f"/agent/runs/{new_run_id()}/rerun"), 404, "not_found")


def test_rerun_with_a_key_is_per_source(tenant):
    one, two = (tenant.finish(f"same settings {i}")["run_id"] for i in range(2))
    key = {"Idempotency-Key": "again"}
    first = ok(tenant.api("POST", f"/agent/runs/{one}/rerun", headers=key))["run_id"]
    assert ok(tenant.api("POST", f"/agent/runs/{one}/rerun", headers=key))["run_id"] == first
    assert_error(tenant.api("POST", f"/agent/runs/{two}/rerun", headers=key), 422, "invalid_field")


def test_rerun_continues_the_same_conversation(tenant, model, word):
    first = tenant.finish(f"{word}-one [[echo:answer one]]")
    second = tenant.finish(f"{word}-two [[echo:answer two]]", conversation_id=first["conversation_id"])
    again = ok(tenant.api("POST", f"/agent/runs/{second['run_id']}/rerun"))["run_id"]
    assert tenant.wait(again)["conversation_id"] == first["conversation_id"]
    messages = [m["content"] for m in model.calls(f"{word}-two")[-1]["body"]["messages"] if m["role"] != "system"]
    assert messages[0].startswith(f"{word}-one") and messages[1] == "answer one"


def test_usage_is_reported(tenant):
    usage = tenant.finish("usage please")
    assert usage["state"] == "SUCCEEDED" and isinstance(usage.get("request_usage", {}), dict)


def test_truncated_answer_is_flagged(tenant):
    run = tenant.finish("[[length]]")
    assert run["state"] == "SUCCEEDED"
    assert "trunc" in str(run).lower() or "length" in str(run["provider"]).lower(), run


def test_invalid_utf8_of_a_cli_is_replaced_in_json_and_kept_in_the_download(make_server, tmp_path):
    script = tmp_path / "bytes.sh"
    script.write_text("#!/bin/sh\nprintf 'a\\377b\\300\\200c\\000d'\n")
    script.chmod(0o755)
    server = make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": str(script)})
    client = server.client("t")
    run = client.finish()
    assert run["state"] == "SUCCEEDED", run
    assert run["output"].startswith("a\ufffdb\ufffd") and run["output"].endswith("c\x00d"), repr(run["output"])
    raw = client.api("GET", f"/agent/runs/{run['run_id']}/files/output").content
    assert raw == b"a\xffb\xc0\x80c\x00d"


def test_environment_of_test_process_is_not_seen(tenant):
    """A guard of the harness itself: the server does not inherit this process's variables."""
    marker = f"MARK_{uuid.uuid4().hex}"
    os.environ[marker] = "1"
    try:
        assert marker not in open(f"/proc/{tenant.server.pid}/environ").read()
    finally:
        del os.environ[marker]
