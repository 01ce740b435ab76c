"""Values of a session's secret variables never leave the sandbox (G9): not in words, tools, terminals, diffs, questions,
the log, the output, the patch or an artifact, however they are cut."""
import base64
import json
import time
import urllib.parse

import pytest
from runner_box import Box
from test_runner_live import call, make, open_terminal, ran  # noqa: F401

pytestmark = [pytest.mark.engine_free]
VALUE = 'k7"Qz/w+9 \\x:yB=ü4'  # whatever has to be quoted somewhere
PLAIN = "zq81-plain-looking-word-77"
KEY = "-----BEGIN THING-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7VJTU\n-----END THING-----\n"
TOKEN = "ghx_0123456789abcdefghijklmnopqrstuvwxyz"
GIVEN = {"API_SECRET": VALUE, "OPAQUE": PLAIN, "SIGNING": KEY, "GH_TOKEN": TOKEN, "NODE_ENV": "production", "PLACE": "/workspace/sub"}
ENV = {"OZ_ENV_VARS_JSON": json.dumps(GIVEN), "OZ_ENV_VARS": f"OPAQUE={PLAIN}\nNODE_ENV=production",
       "ANTHROPIC_API_KEY": "sk-model-key-0123456789", "OZ_RUN_TOKEN": "run-token-0123456789abcdef", "SHELL": "/bin/sh"}
SECRETS = [VALUE, PLAIN, TOKEN, "MIIEvQIBADANBgkqhkiG9w0BAQEF", "AASCBKcwggSjAgEAAoIBAQC7VJTU", ENV["ANTHROPIC_API_KEY"], ENV["OZ_RUN_TOKEN"]]


def forms(value):
    yield value
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)[3:-3]
    yield urllib.parse.quote(value)
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.quote_plus(value)
    for before in ("", "u", "us"):
        raw = (before + value).encode()
        whole = base64.b64encode(raw).decode()[:len(raw) * 8 // 6]
        yield whole[len(before) + 1 if before else 0:]


def clean(data):
    data = data if isinstance(data, bytes) else data.encode()
    for secret in SECRETS:
        for form in forms(secret):
            assert form.encode() not in data, (form, data[max(0, data.find(form.encode()) - 200):][:500])
    return data


def everything(live):
    """All that was sent, as text, with JSON's own escapes undone and not."""
    p = live.peer
    said = json.dumps(p.messages, ensure_ascii=False) + json.dumps(p.unnumbered, ensure_ascii=False) + json.dumps(p.hellos)
    strings = []

    def walk(v):
        if isinstance(v, str):
            strings.append(v)
        elif isinstance(v, dict):
            for k, x in v.items():
                strings.append(k)
                walk(x)
        elif isinstance(v, list):
            for x in v:
                walk(x)
    walk(p.messages)
    for kind in ("text", "thought"):  # as a viewer puts it together
        strings.append("".join(m["content"] for m in p.unnumbered if m["type"] == "stream" and m["kind"] == kind))
    for n in list(p.terminals):
        strings.append(p.screen(n).decode(errors="surrogateescape"))
    return (said + "\n".join(strings)).encode(errors="surrogateescape")


def make_with(make, **options):  # noqa: F811
    return make(env={**ENV, **options.pop("env", {})}, **options)


def test_words_in_pieces_of_any_length(make):  # noqa: F811
    live = make_with(make)
    for step in (1, 2, 3, 7, 100):
        for secret in (VALUE, TOKEN):
            text = f"<{secret}>"
            lines = ["say " + json.dumps(text[i:i + step]) for i in range(0, len(text), step)]
            turn, complete = live.turn(*lines)
            assert complete["outcome"] == "done"
            name = "API_SECRET" if secret == VALUE else "GH_TOKEN"
            assert live.peer.words(turn) == f"<[redacted:{name}]>"
    live.turn("think " + PLAIN[:9], "think " + PLAIN[9:], "say " + PLAIN[:12])
    clean(everything(live))
    offsets = [(m["offset"], m["offset"] + len(m["content"].encode())) for m in live.peer.unnumbered if m["type"] == "stream" and
               m["kind"] == "text" and m["turnId"] == live.peer.unnumbered[-1]["turnId"]]
    assert all(a[1] == b[0] for a, b in zip(offsets, offsets[1:])), "offsets count what was sent"
    live.peer.send("end-session")
    assert b"[redacted:API_SECRET]" in clean(live.end().output)


def test_tools_questions_and_paths(make):  # noqa: F811
    live = make_with(make, policy={"requiresApprovalFor": ["shell"]})
    p = live.peer
    turn = p.prompt("\n".join([
        "tool " + call("t1", "read", title=f"read {TOKEN}", rawInput={"path": f"/workspace/{PLAIN}", VALUE: [VALUE, {"deep": TOKEN}]}),
        "update " + json.dumps({"toolCallId": "t1", "status": "completed", "rawOutput": f"one {VALUE}\n" + "x" * 8140 + TOKEN,
                                "locations": [{"path": f"/workspace/{PLAIN}"}]}),
        "kind plan " + json.dumps({"entries": [{"content": TOKEN}]}),
        "ask " + ran(f"curl -H 'Authorization: Bearer {TOKEN}' '{VALUE}' " + "y" * 120 + TOKEN, "t2")]))
    question = p.wait_for("question")
    assert "[redacted:GH_TOKEN]" in question["approval"]["description"] and "[redacted:GH_TOKEN]" in question["approval"]["exact"]
    p.answer(question["questionId"], "allow")
    assert p.wait_for("complete", turnId=turn)["outcome"] == "done"
    assert p.words(turn) == "<selected allow>"
    tool = p.all("tool", callID="t1")[-1]
    assert tool["args"] == {"path": "/workspace/[redacted:OPAQUE]", "[redacted:API_SECRET]": ["[redacted:API_SECRET]", {"deep": "[redacted:GH_TOKEN]"}]}
    assert tool["result"].startswith("one [redacted:API_SECRET]\n") and tool["result"].endswith("x[redacted:GH_TOKEN]")
    assert p.events("FILE_TOUCHED")[0]["path"] == "[redacted:OPAQUE]"
    clean(everything(live))


def test_a_terminal_that_prints_it_slowly_and_in_other_forms(make):  # noqa: F811
    live = make_with(make, program="static", policy={"requiresApprovalFor": []})
    p = live.peer
    p.wait_for("boot", step="running")
    script = """for i in $(seq 0 %d); do printf %%s "$(printf %%s "$GH_TOKEN" | cut -c$((i + 1)))"; sleep 0.05; done; echo .
        echo "$API_SECRET"; echo "$SIGNING"; printf %%s "$GH_TOKEN" | base64; printf %%s "u:$GH_TOKEN" | base64
        printf '%%s\\033[1m%%s\\033[0m\\n' "<" "$OPAQUE"; env; echo fin''ished""" % (len(TOKEN) - 1)
    open_terminal(live, 1, command=script)
    p.wait_screen(b"finished", 1)
    screen = clean(p.screen(1))
    assert b"ghx[redacted:GH_TOKEN].\r\n" in screen  # three bytes of it, since it may have been somebody's typing
    assert b"[redacted:SIGNING]\r\n[redacted:SIGNING]\r\n" in screen and b"NODE_ENV=production\r\n" in screen
    assert b"PLACE=/workspace/sub" in screen and b"[redacted:OPAQUE]" in screen
    assert p.terminals[1]["end"] == len(screen) and not p.gaps, "offsets count what was sent"
    assert b"run-token" not in screen and b"LINK_KEY=" not in screen


def test_a_typed_word_that_begins_like_one_is_echoed(make):  # noqa: F811
    live = make_with(make)
    p = live.peer
    p.wait_for("boot", step="running")
    open_terminal(live, 1)
    p.send("input", terminal=1, data="echo gh")
    p.wait_screen(b"echo gh", 1, timeout=3)
    p.send("input", terminal=1, data="x_0 $((1+1))\r")
    p.wait_screen(b"ghx_0 2\r\n", 1)


def test_changes_patch_and_artifacts(make):  # noqa: F811
    live = make_with(make, start=False)
    live.box.repo("one", {"a.txt": "1\n"})
    live.env["OZ_ENV_REPOS"] = "file:///repos/one"
    live.start()
    p = live.peer
    live.turn(f"write /workspace/a.txt {TOKEN}", "say x")
    p.send("diff", requestId="d1", patch=True)
    assert "+[redacted:GH_TOKEN]" in p.wait_for("diff", requestId="d1")["patch"]
    artifacts = live.box.workspace / ".oz/artifacts"
    (artifacts / "deep").mkdir(parents=True)
    (artifacts / "deep/log.txt").write_text("a" * 70_000 + TOKEN + "\n" + VALUE + "\n")
    (artifacts / "deep/log.txt").chmod(0o444)
    (artifacts / "other.bin").write_bytes(bytes(range(256)) * 300)
    p.send("end-session")
    end = live.end()
    files = {f["name"]: f for f in end.result["files"]}
    log = artifacts / "deep/log.txt"
    assert log.read_text() == "a" * 70_000 + "[redacted:GH_TOKEN]\n[redacted:API_SECRET]\n"
    assert (artifacts / "other.bin").read_bytes() == bytes(range(256)) * 300
    assert [f["bytes"] for f in files.values() if f["path"].endswith("log.txt")] == [log.stat().st_size]
    patch = (live.box.workspace / ".oz/changes.patch").read_bytes()
    assert b"+[redacted:GH_TOKEN]" in clean(patch) and files["changes.patch"]["bytes"] == len(patch)
    assert (live.box.workspace / "a.txt").read_text() == TOKEN, "the files of the workspace are the agent's"
    clean(everything(live))
    clean(end.out)


@pytest.mark.parametrize("program", ["static", "sanitized"])
def test_a_one_shot_task(tmp_path, program):
    box = Box(tmp_path / "box", program)
    box.cli("claude", 'printf %s "$GH_TOKEN" | cut -c1-10 | tr -d "\\n"; sleep 0.3; printf "%s\\n" "$(printf %s "$GH_TOKEN" | cut -c11-)"; '
                      'echo "$API_SECRET" >&2; env; echo https://github.com/o/r/pull/1\n')
    end = box.run("--model", "claude", env={**ENV, "OZ_TASK_PROMPT": "x", "OZ_WORKER": "muster",
                                            "OZ_ENV_SETUP_COMMANDS": "echo set up with $OPAQUE"})
    assert end.status == 0, end
    assert clean(end.output).startswith(b"[redacted:GH_TOKEN]\n") and b"[redacted:API_SECRET]\n" in end.output
    assert b"set up with [redacted:OPAQUE]" in clean(end.out)
    assert [a["data"]["url"] for a in end.result["artifacts"]] == ["https://github.com/o/r/pull/1"]
    box = Box(tmp_path / "other", program)
    end = box.run("--model", "claude", env={**ENV, "OZ_TASK_PROMPT": "x", "OZ_WORKER": "muster", "OZ_ENV_REPOS": f"file:///repos/{TOKEN}"})
    assert end.status == 128
    clean(end.out)
    clean(json.dumps(end.result))


def test_a_flood_is_not_slower_for_it(make):  # noqa: F811
    """Bounded by what a terminal gives: what the search costs has its own measure in bench."""
    live = make_with(make, program="static")
    p = live.peer
    p.wait_for("boot", step="running")
    began = time.monotonic()
    open_terminal(live, 1, command="head -c 20000000 /dev/zero | tr '\\0' g; echo; echo fin''ished")
    p.wait_screen(b"finished", 1, timeout=60)
    print("seconds", time.monotonic() - began)
    assert p.screen(1).count(b"g") == 20000000 and not p.gaps
