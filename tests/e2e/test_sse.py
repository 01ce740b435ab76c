"""Live events of a run (oz-api.md 15.6, README 8): order, numbers, resuming, keep-alives, gaps."""
import concurrent.futures
import contextlib
import json
import os
import socket
import sqlite3
import time

import pytest
from harness import API, assert_dense, assert_error, delta_text, eventually, logged, new_run_id, provider_env


def test_whole_story_of_a_run(tenant):
    run_id = tenant.create("[[slow:10:1]]")["run_id"]
    with tenant.events(run_id) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store" and stream.response.headers["x-request-id"]
        events = stream.until_end()
        assert list(stream) == [], "something after `end`"
    assert_dense(events)
    kinds = [e["event"] for e in events]
    assert kinds[0] == "state" and kinds[-1] == "end" and kinds.count("end") == 1
    assert set(kinds) <= {"state", "output", "artifact", "end"}
    assert "QUEUED" in json.dumps(events[0]["data"]) and "SUCCEEDED" in json.dumps(events[-1]["data"])
    assert any("INPROGRESS" in json.dumps(e["data"]) for e in events if e["event"] == "state")
    assert all(e["id"] is None for e in events if e["event"] == "output"), "deltas have no number"
    run = tenant.run(run_id)
    assert delta_text(events).strip() == run["output"] and "word9" in run["output"]


def test_deltas_arrive_while_the_provider_answers(tenant):
    run_id = tenant.create("[[slow:10:2]]")["run_id"]
    with tenant.events(run_id) as stream:
        events = stream.until_end()
    outputs = [e["at"] for e in events if e["event"] == "output"]
    assert len(outputs) >= 5 and events[-1]["at"] - outputs[0] > 1.0, "they came together"


def test_deltas_carry_their_offset(tenant):
    run_id = tenant.create("[[slow:10:1]] ünï")["run_id"]
    with tenant.events(run_id) as stream:
        outputs = [e for e in stream.until_end() if e["event"] == "output"]
    position = None
    for e in outputs:
        offsets = [v for k, v in e["data"].items() if k in ("offset", "pos") and isinstance(v, int)]
        assert offsets, f"no offset: {e}"
        if position is not None:
            assert offsets[0] == position, e
        position = offsets[0] + len(delta_text([e]).encode())


def test_events_that_the_api_does_not_have_are_left_out(make_server, model):
    """The log of a run may hold what only other APIs show: their numbers are left out."""
    server = make_server(provider_env(model))
    client = server.client("t")
    run_id = client.finish("hello")["run_id"]
    with client.events(run_id) as stream:
        before = logged(stream.until_end())
    server.stop()
    this = f"stream_id = '{run_id.removeprefix('run_')}' AND type = 4"
    change = [f"UPDATE events SET seq = seq + 1 WHERE {this}",
              "INSERT INTO events (stream_id, seq, at_ms, type, data) "
              f"SELECT stream_id, seq - 1, at_ms, 20, '{{\"text\":\"hidden\"}}' FROM events WHERE {this}",
              f"UPDATE streams SET last_seq = last_seq + 1 WHERE id = '{run_id.removeprefix('run_')}'"]
    if server.postgres:
        server.postgres.sql("; ".join(change), server.database_url.split("///")[1].split("?")[0])
    else:
        with contextlib.closing(sqlite3.connect(server.data / "muster.db")) as db, db:
            assert [db.execute(text).rowcount for text in change] == [1, 1, 1]
    server.start()
    client = server.client("t")
    last = int(before[-1]["id"])
    for after in (None, last - 1, last):
        with client.events(run_id, headers={"Last-Event-ID": str(after)} if after else None) as stream:
            now = logged(stream.until_end())
        assert "hidden" not in json.dumps([e["data"] for e in now])
        assert now[-1]["event"] == "end" and int(now[-1]["id"]) == last + 1
        assert len(now) == (1 if after else len(before))


def test_events_of_an_ended_run_are_replayed(tenant):
    run_id = tenant.finish("[[echo:see https://github.com/a/b/pull/1 now]]")["run_id"]
    with tenant.events(run_id) as stream:
        first = stream.until_end()
    with tenant.events(run_id) as stream:
        second = stream.until_end()
    assert_dense(first)
    assert [(e["id"], e["event"], e["data"]) for e in logged(first)] == \
        [(e["id"], e["event"], e["data"]) for e in logged(second)]
    assert [e["data"]["data"]["url"] for e in first if e["event"] == "artifact"] == ["https://github.com/a/b/pull/1"]


@pytest.mark.parametrize("how", ["header", "query", "both"])
def test_resume_after_a_number(tenant, how):
    run_id = tenant.finish()["run_id"]
    with tenant.events(run_id) as stream:
        everything = logged(stream.until_end())
    for after in range(len(everything)):
        headers = {"Last-Event-ID": str(after)} if how != "query" else {}
        query = {"after": after} if how == "query" else {"after": 0} if how == "both" else {}
        with tenant.events(run_id, headers=headers, **query) as stream:
            assert_dense(stream.until_end(), first=after + 1)


def test_resume_after_the_last_number_ends_at_once(tenant):
    run_id = tenant.finish()["run_id"]
    with tenant.events(run_id) as stream:
        last = logged(stream.until_end())[-1]["id"]
    start = time.monotonic()
    with tenant.events(run_id, after=last, timeout=10) as stream:
        assert logged(list(stream)) == []
    assert time.monotonic() - start < 5


def test_resume_in_the_middle_of_a_live_run(tenant):
    run_id = tenant.create("[[slow:20:3]]")["run_id"]
    seen = []
    with tenant.events(run_id) as stream:
        for e in stream:
            seen.append(e)
            if e["event"] == "output":
                break
    last = max(e["id"] for e in logged(seen))
    with tenant.events(run_id, headers={"Last-Event-ID": str(last)}) as stream:
        rest = stream.until_end()
    assert_dense(logged(seen) + logged(rest))


def test_position_beyond_the_log_is_a_reset(tenant):
    """A number that this log never had: said explicitly, or refused; never silence."""
    run_id = tenant.finish()["run_id"]
    with tenant.events(run_id, after=1_000_000, timeout=10) as stream:
        if stream.response.status_code != 200:
            assert stream.response.status_code == 400
            return
        events = list(stream)
    assert any(e["event"] == "reset" for e in events), events


@pytest.mark.parametrize("query,headers,field", [
    ({"after": "x"}, {}, "after"), ({"after": "-1"}, {}, "after"), ({"after": ""}, {}, "after"),
    ({"after": "9" * 30}, {}, "after"), ({}, {"Last-Event-ID": "x"}, None), ({}, {"Last-Event-ID": "-5"}, None)])
def test_malformed_position(tenant, query, headers, field):
    run_id = tenant.create()["run_id"]
    r = tenant.api("GET", f"/agent/runs/{run_id}/events", params=query, headers=headers)
    assert_error(r, 400, "invalid_field", field)


def test_events_of_an_unknown_run_are_404_not_a_stream(tenant):
    assert_error(tenant.api("GET", f"/agent/runs/{new_run_id()}/events"), 404, "not_found")


def test_cancel_ends_the_stream(tenant, model, word):
    run_id = tenant.create(f"{word} [[stall]]")["run_id"]
    model.wait_calls(1, word)
    with tenant.events(run_id) as stream, concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (time.sleep(0.5), tenant.server.client(tenant.token).cancel(run_id)))
        events = stream.until_end()
    assert "CANCELLED" in json.dumps(events[-1]["data"])
    assert_dense(events)


def test_failure_is_told(tenant):
    run_id = tenant.create("[[status:400]]")["run_id"]
    with tenant.events(run_id) as stream:
        end = stream.until_end()[-1]
    assert "FAILED" in json.dumps(end["data"]) and "provider_bad_request" in json.dumps(end["data"])


def test_discarded_text_of_a_failed_provider_is_not_in_the_deltas_of_the_next(make_server, model, word):
    server = make_server({"OZ_PROVIDER_CUSTOM_TYPE": "openai_compatible", "OZ_PROVIDER_CUSTOM_MODEL": "a",
                          "OZ_PROVIDER_CUSTOM_BASE_URL": model.base(f"c-{word}"),
                          "OZ_PROVIDER_SECOND_TYPE": "openai_compatible", "OZ_PROVIDER_SECOND_MODEL": "b",
                          "OZ_PROVIDER_SECOND_BASE_URL": model.base(f"s-{word}"),
                          "OZ_PROVIDER_FALLBACK_ORDER": "second"})
    model.behave(f"c-{word}", "cut")
    client = server.client("t")
    run_id = client.create("[[echo:ABCDEFGHIJKLMNOPQRSTUVWXYZ]]")["run_id"]
    with client.events(run_id) as stream:
        events = stream.until_end()
    assert_dense(events)
    run = client.run(run_id)
    assert run["state"] == "SUCCEEDED" and run["output"] == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    # What a viewer shows: deltas at their offsets; a delta at 0 (or a reset) begins anew.
    text = ""
    for e in events:
        if e["event"] == "reset":
            text = ""
        if e["event"] == "output":
            offset = next(v for k, v in e["data"].items() if k in ("offset", "pos"))
            text = text[:offset] + delta_text([e])
    assert text.strip() == run["output"]


def test_pending_run_streams_its_state_and_waits(tenant):
    run_id = tenant.create(config={"environment_id": "debian:12"})["run_id"]
    with tenant.events(run_id, timeout=10) as stream:
        first = next(iter(stream))
        assert first["event"] == "state" and first["id"] == 1 and "PENDING" in json.dumps(first["data"])


@pytest.mark.timeout(60)
def test_keep_alive_comments(tenant):
    run_id = tenant.create("[[stall]]")["run_id"]
    with tenant.events(run_id, timeout=25) as stream:
        start = time.monotonic()
        for line in stream.response.iter_lines():
            if line.startswith(":") and time.monotonic() - start > 5:
                break
        assert 10 < time.monotonic() - start < 20
    tenant.cancel(run_id)


def test_twenty_viewers_see_the_same(tenant, oz):
    run_id = tenant.create("[[slow:10:2]]")["run_id"]

    def view(i):
        time.sleep(0.05 * i)
        with oz.client(tenant.token) as client, client.events(run_id) as stream:
            return stream.until_end()

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        views = list(pool.map(view, range(20)))
    for events in views:
        assert_dense(events)
    stories = {json.dumps([(e["id"], e["event"], e["data"]) for e in logged(events)]) for events in views}
    assert len(stories) == 1


def test_viewers_that_leave_harm_nothing(tenant, oz):
    run_id = tenant.create("[[slow:20:2]]")["run_id"]
    request = (f"GET {API}/agent/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
               f"Authorization: Bearer {tenant.token}\r\n\r\n").encode()
    for i in range(30):
        s = oz.socket()
        s.sendall(request)
        if i % 3:
            s.recv(100)
        if i % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        s.close()
    assert tenant.wait(run_id)["state"] == "SUCCEEDED"


def test_a_viewer_that_reads_nothing_delays_nobody(tenant, oz, model):
    run_id = tenant.create("[[big:6MB]]")["run_id"]
    stuck = oz.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall((f"GET {API}/agent/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                   f"Authorization: Bearer {tenant.token}\r\n\r\n").encode())
    start = time.monotonic()
    run = tenant.wait(run_id, timeout=40)
    assert run["state"] in ("SUCCEEDED", "FAILED") and time.monotonic() - start < 30
    stuck.close()


def test_stream_survives_a_restart_by_resuming(make_server, model):
    server = make_server(provider_env(model))
    client = server.client("t")
    run_id = client.create("[[slow:6:3]]")["run_id"]
    client.wait(run_id, "INPROGRESS")
    seen = []
    with client.events(run_id) as stream:
        for e in stream:
            seen.append(e)
            if e["event"] == "output":
                break
    server.kill9()
    server.start()
    client = server.client("t")
    with client.events(run_id, after=logged(seen)[-1]["id"]) as stream:
        rest = stream.until_end()
    assert_dense(logged(seen) + logged(rest))
    assert client.run(run_id)["state"] == "SUCCEEDED"


def test_shutdown_ends_streams(make_server, model):
    server = make_server(provider_env(model, OZ_SHUTDOWN_GRACE_MS="500"))
    client = server.client("t")
    run_id = client.create("[[stall]]")["run_id"]
    client.wait(run_id, "INPROGRESS")
    with concurrent.futures.ThreadPoolExecutor(1) as pool, client.events(run_id) as stream:
        next(iter(stream))
        done = pool.submit(server.stop)
        try:
            list(stream)
        except Exception:  # a cut connection is as good an end as a proper one
            pass
        done.result(30)


def test_head_of_a_stream_has_no_body(tenant):
    run_id = tenant.finish()["run_id"]
    r = tenant.api("HEAD", f"/agent/runs/{run_id}/events")
    assert r.status_code in (200, 405) and r.content == b""


def test_numbers_do_not_jump_between_runs(tenant):
    for run_id in [tenant.finish(str(i))["run_id"] for i in range(5)]:
        with tenant.events(run_id) as stream:
            assert_dense(stream.until_end())


def test_two_hundred_streams_are_closed_again(tenant, oz):
    run_id = tenant.create("[[stall]]")["run_id"]
    sockets = []
    for _ in range(200):
        s = oz.socket()
        s.sendall((f"GET {API}/agent/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                   f"Authorization: Bearer {tenant.token}\r\n\r\n").encode())
        sockets.append(s)
    for s in sockets:
        assert s.recv(20).startswith(b"HTTP/1.1 200")
    for s in sockets:
        s.close()
    eventually(lambda: len(os.listdir(f"/proc/{oz.pid}/fd")) < 120, 10, "closed connections")
    tenant.cancel(run_id)
