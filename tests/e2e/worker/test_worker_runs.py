"""What a run on a scripted worker looks like from both ends (oz-worker.md 18, checks 6, 7, 11 and 14 by their number)."""
import secrets
import struct

import pytest
from fleet import DIALECTS, FLEET, SIDECAR, begin, make, settled, workers
from harness import assert_error, assert_run, eventually
from worker_peers import Native, V, W

PR = "https://github.com/o/r/pull/7"

# --- (6) the transcripts of section 6 ---

def transcript(client, kind, server):
    """Success, failure, and cancel as section 6 draws them: the states that REST shows."""
    seen = []
    with kind(server) as peer:
        run_id = make(client, peer)
        task = peer.assigned(run_id)
        states = [client.run(run_id)["state"]]
        peer.claim(task)
        states.append(client.wait(run_id, "INPROGRESS")["state"])
        peer.complete(task)
        run = assert_run(client.wait(run_id))
        seen.append(states + [run["state"], bool(run["started_at"]), bool(run["completed_at"]), run["worker_id"] == peer.worker_id])
        task = begin(client, peer)
        peer.fail(task, "it broke")
        run = assert_run(client.wait(task["task_id"]))
        seen.append([run["state"], run["error"]["message"], run["status_message"]["message"]])
        task = begin(client, peer)
        assert client.cancel(task["task_id"]).json() == task["task_id"]
        first = client.run(task["task_id"])
        peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.confirm_cancel(task)
        settled(peer)
        run = assert_run(client.wait(task["task_id"]))
        seen.append([first["state"], run["state"], run["completed_at"] == first["completed_at"]])
    return seen


def test_6_v_w_and_native_transcripts_give_identical_rest_states(oz, client):
    v, w, native = (transcript(client, kind, oz) for kind in DIALECTS)
    assert v[0] == ["CLAIMED", "INPROGRESS", "SUCCEEDED", True, True, True]
    assert v[1] == ["FAILED", "it broke", "it broke"]
    assert v[2] == ["CANCELLED", "CANCELLED", True]
    assert v == w == native


def test_6_rejected_and_placed_elsewhere(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        run_id = make(client)
        first = a.assigned(run_id)
        a.reject(first)
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 20, "back to PENDING")
        eventually(lambda: workers(server)["a"]["saturated"], 20, "a is known as full")
        with V(server, "b") as b:
            second = b.assigned(run_id)
            assert second["execution_id"] != first["execution_id"]
            assert second["env_vars"]["OZ_RUN_TOKEN"] != first["env_vars"]["OZ_RUN_TOKEN"]
            b.claim(second)
            b.complete(second, output="done by b")
            run = client.wait(run_id, "SUCCEEDED")
            assert run["worker_id"] == "b" and run["output"] == "done by b"
    assert a.order(run_id).count("task_assignment") == 1


# --- (7) what a completion means ---

@pytest.mark.parametrize("kind", (V, Native))
def test_7_meaning_of_a_completion(oz, client, kind):
    def end(**data):
        with kind(oz) as peer:
            task = begin(client, peer)
            ids = {"task_id": task["task_id"]} if kind is V else peer.ids(task)
            peer.send("task_completed", {**ids, **data})
            return client.wait(task["task_id"])
    run = end()
    assert run["state"] == "SUCCEEDED" and run["error"] is None and run["exit_code"] is None
    run = end(exit_code=0, output="fine")
    assert run["state"] == "SUCCEEDED" and run["status_message"]["message"] == "fine" and run["exit_code"] == 0
    run = end(message="Task cancelled", task_state="CANCELLED")
    assert run["state"] == "CANCELLED"
    run = end(exit_code=3, task_state="CANCELLED")
    assert run["state"] == "CANCELLED", "task_state is looked at before anything else"
    run = end(exit_code=3, output="what it said")
    assert run["state"] == "FAILED" and run["error"]["message"] == "Worker exit code 3" and run["exit_code"] == 3
    assert run["output"] == "what it said"
    run = end(exit_code=-1)
    assert run["state"] == "FAILED" and run["error"]["message"] == "Worker exit code -1"


def test_7_failures(oz, client):
    with W(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "out of memory", "container_oom", 137)
        run = client.wait(task["task_id"], "FAILED")
        assert run["error"]["message"] == "out of memory" and run["exit_code"] == 137
        task = begin(client, peer)
        peer.send("task_failed", {"task_id": task["task_id"]})
        assert client.wait(task["task_id"], "FAILED")["error"]["message"] == "Task failed"
        task = begin(client, peer)
        peer.fail(task, "odd", "a_reason_of_the_future")
        assert client.wait(task["task_id"], "FAILED")["error"]["message"] == "odd"
    with V(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "pull failed", output="kept output " + PR)
        run = client.wait(task["task_id"], "FAILED")
        assert run["output"].startswith("kept output") and run["error"]["message"] == "pull failed"


def test_7_completion_without_a_claim_and_a_claim_after_it(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.complete(task, output="tiny")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "tiny"
        peer.claim(task)
        settled(peer)
        assert client.run(task["task_id"])["state"] == "SUCCEEDED"


def test_7_artifacts_links_and_raw_log_headers(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        peer.complete(task, output=f"see {PR} and {PR} and {PR}1", session_link="https://x.test/s/1")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert [a["data"]["url"] for a in run["artifacts"]] == [PR, PR + "1"] and run["session_link"] == "https://x.test/s/1"
        task = begin(client, peer)
        peer.complete(task, artifacts=[{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-31T12:00:00Z",
                                        "data": {"url": PR, "branch": "fix"}}], output=PR + "9")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["artifacts"] == [{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-31T12:00:00.000Z",
                                     "data": {"url": PR, "branch": "fix"}}]
        task = begin(client, peer)
        peer.complete(task, artifacts="no array", session_link=7, output="x")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["artifacts"] == [] and run["session_link"] is None
        task = begin(client, peer)
        raw = b"".join(struct.pack(">BxxxI", 1 + i % 2, len(t)) + t for i, t in enumerate((b"one\n", b"two\n", b"x" * 200)))
        peer.complete(task, output=raw)
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "one\ntwo\n" + "x" * 200


# --- (11) cancel frames ---

def test_11_cancel_frame_of_each_dialect_and_both_when_unknown(oz, client):
    for kind, expected in ((V, ["task_cancel"]), (W, ["task_cancellation"]), (Native, ["task_cancel"])):
        with kind(oz) as peer:
            task = begin(client, peer)
            client.cancel(task["task_id"])
            assert client.run(task["task_id"])["state"] == "CANCELLED"
            if kind is not Native:  # nothing gave the dialect away yet: both, V's first
                peer.expect("task_cancellation", task_id=task["task_id"])
                assert peer.order(task["task_id"]) == ["task_assignment", "task_cancel", "task_cancellation"]
                assert peer.of("task_cancel", task["task_id"]) == [{"task_id": task["task_id"]}]
                assert peer.of("task_cancellation", task["task_id"]) == [{"task_id": task["task_id"]}]
            peer.expect("task_cancel", task_id=task["task_id"]) if kind is not W else None
            peer.confirm_cancel(task)
            task = begin(client, peer)
            peer.complete(task, **({} if kind is W else {"output": "shows the dialect"}))
            client.wait(task["task_id"], "SUCCEEDED")
            assert workers(oz)[peer.worker_id]["dialect"] == peer.dialect
            task = begin(client, peer)
            client.cancel(task["task_id"])
            peer.expect(expected[0], task_id=task["task_id"])
            settled(peer)
            assert peer.order(task["task_id"]) == ["task_assignment", *expected]
            peer.confirm_cancel(task)


def test_11_dialect_is_remembered_across_reconnects(oz, client):
    with W(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "m", "container_exit", 1)
        client.wait(task["task_id"], "FAILED")
        peer.abort()
        peer.reconnect()
        task = begin(client, peer)
        client.cancel(task["task_id"])
        peer.expect("task_cancellation", task_id=task["task_id"])
        settled(peer)
        assert peer.order(task["task_id"]) == ["task_assignment", "task_cancellation"]


def test_11_cancel_while_waiting_means_no_assignment_ever(oz, client):
    name = "later-" + secrets.token_hex(4)
    run_id = make(client, worker_host=name)
    client.cancel(run_id)
    with V(oz, name) as peer:
        peer.nothing("task_assignment", 1.0)
    assert client.run(run_id)["state"] == "CANCELLED"


@pytest.mark.parametrize("kind", DIALECTS)
def test_11_cancel_for_an_absent_worker_is_sent_when_it_returns(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        client.cancel(task["task_id"])
        assert client.run(task["task_id"])["state"] == "CANCELLED"
        peer.reconnect()
        if kind is Native:  # not `stop`: nothing is ever heard of that again, and this one's end is waited for
            assert task["execution_id"] in peer.welcome["keep"] and peer.welcome["stop"] == []
        peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.confirm_cancel(task)
        eventually(lambda: workers(oz)[peer.worker_id]["in_flight"] == 0, 5, "its slot is free")
        settled(peer)
        assert client.run(task["task_id"])["state"] == "CANCELLED"


# --- (14) assignments ---

def test_14_assignments_decode_strictly(oz, client):
    """check_assignment() runs on every assignment of every test; here on one that uses everything."""
    env = client.environment(name="e <&>", docker_image="img:1", repos=["o/a", "o/b"], setup_commands=["make a", "make b"],
                             env_vars={"A": "1", "MULTI": "x\ny", "U": "ü\u2028"})
    prompt = 'Say "hi" <&> \u2028 \x01 🙂'
    with W(oz) as peer:
        run_id = client.create(prompt, title="A title", config={
            "environment_id": env["id"], "worker_host": peer.worker_id, "model_id": "claude-test", "base_prompt": "base",
            "computer_use_enabled": False, "mcp_servers": {"m": {"command": "x", "args": ["1"], "n": 1.5}}})["run_id"]
        data = peer.assigned(run_id)
        assert data["docker_image"] == "img:1" and data["sidecar_image"] == SIDECAR
        task, env_vars = data["task"], data["env_vars"]
        assert task["title"] == "A title" and task["task_definition"]["prompt"] == prompt
        config = task["agent_config_snapshot"]
        assert config["environment_id"] == env["id"] and config["model_id"] == "claude-test"
        assert config["base_prompt"] == "base" and config["computer_use_enabled"] is False
        assert config["mcp_servers"] == {"m": {"command": "x", "args": ["1"], "n": 1.5}}
        assert env_vars["OZ_TASK_PROMPT"] == prompt
        assert env_vars["OZ_ENV_REPOS"] == "o/a\no/b" and env_vars["OZ_ENV_SETUP_COMMANDS"] == "make a\nmake b"
        lines = env_vars["OZ_ENV_VARS"].split("\n")
        assert "A=1" in lines and "y" not in lines, "a value with a newline would be cut"
        assert env_vars["OZ_HARNESS"] and env_vars["OZ_MODEL_ID"] == "claude-test"
        assert len({m["data"]["execution_id"][-8:] for m in peer.messages}) == len(peer.messages)
        peer.complete(data)
        client.wait(run_id, "SUCCEEDED")


def test_14_large_prompts_go_by_url(oz, client):
    with V(oz) as peer:
        for size, by_url in ((96 * 1024, False), (96 * 1024 + 1, True), (900_000, True)):
            prompt = ("ü" * (size // 2) + "x" * size)[:size - size // 2]
            data = peer.assigned(make(client, peer, prompt=prompt), timeout=60)
            assert len(prompt.encode()) == size
            assert ("OZ_TASK_PROMPT_URL" in data["env_vars"]) is by_url
            if by_url:
                url = data["env_vars"]["OZ_TASK_PROMPT_URL"]
                assert url == f"/api/v1/agent/runs/{data['task_id']}/prompt"
                with oz.client(data["env_vars"]["OZ_RUN_TOKEN"]) as runner:
                    assert runner.get(url).text == prompt
            peer.complete(data)
            client.wait(data["task_id"], "SUCCEEDED")


def test_workers_list(oz, client):
    with Native(oz) as peer:
        task = begin(client, peer)
        view = workers(oz)[peer.worker_id]
        assert view["dialect"] == "native" and view["connected"] and view["in_flight"] == 1 and view["capacity"] == 5
        assert view["uid"] == peer.welcome["worker_uid"] and view["since"] and view["last_seen"]
        assert_error(client.api("GET", "/workers"), 403)
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
    view = eventually(lambda: not workers(oz)[peer.worker_id]["connected"] and workers(oz)[peer.worker_id], 20, "gone")
    assert view["in_flight"] == 0


def test_live_output_of_a_native_worker(oz, client):
    with Native(oz) as peer:
        task = begin(client, peer)
        peer.log(task, 0, "one ")
        peer.log(task, 0, "one ")  # sent again
        peer.log(task, 4, "two ")
        with client.events(task["task_id"]) as stream:
            text = ""
            for e in stream:  # a viewer that has not yet been shown what there is could come after the end
                text += e["data"]["text"] if e["event"] == "output" else ""
                if text == "one two ":
                    break
            peer.log(task, 8, "three")
            peer.complete(task)
            text += "".join(e["data"]["text"] for e in stream.until_end() if e["event"] == "output")
        assert text == "one two three"
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "one two three"
