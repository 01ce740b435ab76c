"""What a task leaves: its output, result.json, the patch, files; and what a hostile repository or agent cannot do
(oz-worker.md 13.5, 14)."""
import json
import os
import shutil
import subprocess
import time

import pytest
from runner_box import Box, git

pytestmark = [pytest.mark.engine_free]
PROMPT = {"OZ_TASK_PROMPT": "please do it"}


@pytest.fixture(params=["static", "sanitized"])
def box(request, tmp_path):
    return Box(tmp_path / "box", request.param)


@pytest.fixture
def static(tmp_path):
    return Box(tmp_path / "box")


def run(box, script, env=None, **options):
    box.cli("claude", script)
    return box.run("--model", "claude", env={**PROMPT, **(env or {})}, **options)


# --- output ---

def test_output_is_seen_while_it_appears(box):
    box.cli("claude", "echo first; while [ ! -e go ]; do sleep 0.05; done; echo last >&2\n")
    process = box.start("--model", "claude", env=PROMPT)
    box.wait_output(b"first\n")
    assert os.read(process.stdout.fileno(), 100) == b"first\n"
    (box.workspace / "go").touch()
    end = box.end(process)
    assert end.status == 0 and end.output == b"first\nlast\n" and end.out == b"last\n"


def test_long_output_keeps_its_first_mebibyte_and_its_last_seven(box):
    end = run(box, "seq -f 'line %.0f of the output' 1 1000000\n", timeout=120)
    whole = b"".join(b"line %d of the output\n" % i for i in range(1, 1000001))
    head, tail = 1 << 20, 7 << 20
    assert end.status == 0 and end.result["output_truncated"] is True
    assert end.output[:head] == whole[:head] and end.output[-tail:] == whole[-tail:]
    mark = end.output[head:-tail].decode()
    assert len(mark) == 64 and int(mark.split()[1]) == len(whole) - head - tail and mark[0] == mark[-1] == "\n"
    assert end.out.startswith(whole[:head]) and len(end.out) <= (8 << 20) + (64 << 10)


def test_output_of_exactly_eight_mebibytes_is_whole(static):
    end = run(static, f"head -c {8 << 20} /dev/zero | tr '\\0' x\n")
    assert end.output == b"x" * (8 << 20) and end.result["output_truncated"] is False


def test_any_bytes_survive(box):
    end = run(box, r"printf 'a\000b\377\r\n\033[1m'" + "\n")
    assert end.output == b"a\0b\xff\r\n\x1b[1m" and end.out.endswith(end.output)


def test_nobody_who_does_not_read_stops_the_runner(static):
    static.cli("claude", "head -c 1000000 /dev/zero; echo done > finished\n")
    process = static.start("--model", "claude", env=PROMPT)
    time.sleep(1)
    os.kill(process.pid, 15)
    start = time.monotonic()
    while process.poll() is None and time.monotonic() - start < 15:
        time.sleep(0.05)
    assert process.returncode == 143 and time.monotonic() - start < 4
    assert json.loads((static.workspace / ".oz/result.json").read_text())["exit_code"] == 143
    process.communicate()


# --- what is read from it ---

def test_pull_requests_and_the_session(box):
    end = run(box, """echo see https://github.com/o/r/pull/7. and https://github.com/o-1/r.x_/pull/42/files
echo again https://github.com/o/r/pull/7 https://github.com/o/r/issues/3 http://github.com/o/r/pull/9
echo "Your Session is at <https://chat.example/s/1?x=1> and https://no"; exit 1
""")
    prs = end.result["artifacts"]
    assert [a["data"]["url"] for a in prs] == ["https://github.com/o/r/pull/7", "https://github.com/o-1/r.x_/pull/42"]
    assert {a["artifact_type"] for a in prs} == {"PULL_REQUEST"} and {a["data"]["branch"] for a in prs} == {"unknown"}
    assert len(prs[0]["created_at"]) == 20 and prs[0]["created_at"].endswith("Z")
    assert end.result["session_link"] == "https://chat.example/s/1?x=1"


def test_at_most_a_hundred_pull_requests(box):
    end = run(box, "for i in $(seq 150); do echo https://github.com/o/r/pull/$i; done\n")
    assert [a["data"]["url"].rsplit("/")[-1] for a in end.result["artifacts"]] == [str(i) for i in range(1, 101)]


def test_the_branch_of_a_pull_request_is_the_one_the_task_made(box):
    script = "git checkout -q -b 'fix/\"odd\"-ü'; echo https://github.com/o/r/pull/7\n"
    end = run(box, script, {"OZ_ENV_REPOS": box.repo("r")})
    assert end.result["artifacts"][0]["data"]["branch"] == 'fix/"odd"-ü', end


# --- variables ---

def test_variables_from_lines_and_from_json(box):
    lines = "A=1\nB=x=y \n=no\n1C=no\nD-E=no\nno\nF=\nG=from lines"
    as_json = json.dumps({"G": "from-json!", "M": "two\nlines\t\u00fc \U0001f600", "bad-name": "x", "Z": "a\0b", "E": ""})
    end = run(box, 'env -0 | tr "\\n\\0" "|\\n" >seen; cat seen\n', {"OZ_ENV_VARS": lines, "OZ_ENV_VARS_JSON": as_json, "Z": "kept"})
    said = (box.workspace / "seen").read_text()  # what is shown of them is another question
    seen = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert b"[redacted:G]" in end.output and b"from-json!" not in end.output
    assert {k: seen.get(k) for k in "ABFGMEZ"} == {"A": "1", "B": "x=y ", "F": "", "G": "from-json!", "E": "",
                                                  "M": "two|lines\t\u00fc \U0001f600", "Z": "kept"}
    assert not {"1C", "D-E", "no", "bad-name"} & set(seen)


def test_variables_choose_the_agents_program(box):
    box.cli("other", "echo other $2\n")
    assert run(box, "echo claude\n", {"OZ_ENV_VARS": "OZ_SIDECAR_CLAUDE_CMD=other"}).output == b"other please do it\n"


# --- the patch ---

def apply(box, url, patch):
    """The repository as it was, with the patch."""
    target = box.place / "again"
    shutil.rmtree(target, ignore_errors=True)
    git(box.place, "clone", "-q", str(box.root) + url.removeprefix("file://"), str(target))
    git(target, "apply", "--index", "-", input=patch)
    return target


def tree(path):
    found = {}
    for p in sorted(path.rglob("*")):
        name = p.relative_to(path)
        if name.parts[0] not in (".git", ".oz") and (p.is_symlink() or p.is_file()):
            found[str(name)] = (os.readlink(p) if p.is_symlink() else p.read_bytes(), bool(not p.is_symlink() and p.stat().st_mode & 0o100))
    return found


CHANGES = r"""set -e
git config user.email a@example.test; git config user.name a
echo committed > committed.txt; git add committed.txt; git commit -qm one
git checkout -q -b other
echo staged > staged.txt; git add staged.txt
echo changed >> README.md
printf 'a\000b\377\nc' > binary.dat
rm gone.txt; git mv old.txt new.txt; chmod +x run.sh
ln -s /etc/passwd link
mkdir -p "deep/with space/ü"; printf 'no newline' > "deep/with space/ü/f"
printf 'x' > "-option"; printf 'y' > '"quoted"'
echo ignored > x.o
echo hello
"""
FILES = {"README.md": "readme\n", "gone.txt": "gone\n", "old.txt": "old\n" * 50, "run.sh": "#!/bin/sh\n", ".gitignore": "*.o\n"}


def test_the_patch_is_all_that_changed(box):
    url = box.repo("a", FILES)
    end = run(box, CHANGES, {"OZ_ENV_REPOS": url})
    assert end.output == b"hello\n", end
    listed = end.result["files"][0]
    assert listed == {"path": "/workspace/.oz/changes.patch", "name": "changes.patch", "media_type": "text/x-diff; charset=utf-8",
                      "bytes": len(box.patch())}
    (box.workspace / "x.o").unlink()
    assert tree(apply(box, url, box.patch())) == tree(box.workspace)
    assert ".oz" not in box.patch().decode() and not (box.workspace / ".oz/patch").exists()


def test_the_patch_of_two_repositories(box):
    a, b = box.repo("a", FILES), box.repo("b", FILES)
    run(box, "echo 1 > a/one; echo 2 > b/two; rm b/gone.txt\n", {"OZ_ENV_REPOS": f"{a}\n{b}"})
    target = box.place / "both"
    target.mkdir()
    git(target, "init", "-q")
    for name in "ab":
        git(box.place, "clone", "-q", str(box.repos / name), str(target / name))
        shutil.rmtree(target / name / ".git")
    git(target, "apply", "-", input=box.patch())
    shutil.rmtree(box.workspace / "a/.git")
    shutil.rmtree(box.workspace / "b/.git")
    assert tree(target) == tree(box.workspace)


def test_no_change_is_no_patch(box):
    end = run(box, "touch README.md; git status > /dev/null; echo x > .oz/mine\n", {"OZ_ENV_REPOS": box.repo("a")})
    assert end.result["files"] == [] and box.patch() is None, end


def test_a_change_in_the_same_second_and_of_the_same_size_is_seen(box):
    url = box.repo("a", {"f": "aaaa\n"})
    run(box, "printf 'bbbb\\n' > f\n", {"OZ_ENV_REPOS": url})
    assert b"+bbbb" in box.patch()


def test_a_patch_of_a_linked_work_tree(box):
    """What a worker may hand in: .git is a file that names a folder elsewhere."""
    box.repo("a", FILES)
    git(box.repos / "a", "worktree", "add", "-q", str(box.workspace / "tree"), "-b", "work")
    inside = "gitdir: /repos/a/.git/worktrees/tree\n"
    (box.workspace / "tree/.git").write_text(inside)
    end = run(box, "cd tree && echo more > more.txt\n")
    assert b"b/tree/more.txt" in box.patch(), end


def test_files_that_are_too_large_are_left_out_and_named(static):
    end = run(static, "head -c 17825792 /dev/zero > large.bin; echo small > small.txt; echo x > 'large*'\n", {"OZ_ENV_REPOS": static.repo("a")})
    assert b"small.txt" in static.patch() and b"large.bin" not in static.patch() and b"large*" in static.patch()
    assert "without large.bin" in end.text


def test_a_patch_that_is_too_large_is_given_up(static):
    script = "for i in 1 2 3 4 5 6; do head -c 15000000 /dev/urandom > r$i; done\n"
    end = run(static, script, {"OZ_ENV_REPOS": static.repo("a")}, timeout=120)
    assert end.status == 0 and end.result["files"] == [] and static.patch() is None and "too large" in end.text, end


@pytest.mark.timeout(300)
def test_a_hundred_thousand_files(static):
    def fill(path):
        for d in range(100):
            (path / str(d)).mkdir()
            for f in range(1000):
                (path / str(d) / str(f)).write_bytes(b"x")
    url = static.repo("many", prepare=fill)
    end = run(static, "echo y > 5/new; rm 7/8; echo z > 9/9\n", {"OZ_ENV_REPOS": url}, timeout=200)
    assert end.status == 0 and static.patch().count(b"diff --git") == 3, end
    begun = time.monotonic()
    end = run(static, "echo again > 6/new\n", timeout=120)  # the same workspace: nothing to clone
    assert static.patch().count(b"diff --git") == 4 and time.monotonic() - begun < 30


# --- hostile repositories: nothing of them runs, and nothing of them breaks the end ---

HIT = "#!/bin/sh\necho hit >> /tmp/hit\n"


def hits(box):
    path = box.root / "tmp/hit"
    return path.read_text() if path.exists() else None


def test_nothing_of_a_repositorys_configuration_runs_for_the_patch(box):
    url = box.repo("a", {**FILES, ".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    script = r"""
for key in core.fsmonitor core.sshCommand core.editor core.pager core.askPass diff.external diff.evil.command diff.evil.textconv \
  filter.evil.clean filter.evil.smudge filter.evil.process credential.helper gpg.program uploadpack.packObjectsHook core.gitProxy; do
  git config "$key" /fake/evil
done
git config filter.evil.required true; git config core.hooksPath /fake/hooks; git config core.worktree /etc; git config alias.add '!/fake/evil'
git config alias.diff '!/fake/evil'; git config include.path /fake/config
mkdir -p .git/hooks
for h in pre-commit post-checkout post-index-change reference-transaction fsmonitor-watchman pre-auto-gc; do cp /fake/evil .git/hooks/$h; done
for h in pre-commit post-checkout post-index-change reference-transaction; do cp /fake/evil /fake/hooks/$h; done
echo changed > README.md; echo new > new.txt
mkdir inner && cd inner && git init -q && git config core.fsmonitor /fake/evil && echo x > f
cd ..; unset GIT_DIR; git -c core.worktree=/workspace -c safe.directory='*' status; test -s /tmp/hit && echo it works; rm -f /tmp/hit
"""
    box.cli("evil", "echo hit >> /tmp/hit\n")
    (box.fake / "hooks").mkdir()
    (box.fake / "config").write_text("[core]\n\tfsmonitor = /fake/evil\n")
    end = run(box, script, {"OZ_ENV_REPOS": url})
    assert b"it works" in end.output, ("the trap is none", end)
    assert hits(box) is None, (hits(box), end)
    assert end.status == 0 and b"+changed" in box.patch() and b"+new" in box.patch(), (end, box.patch())


def test_hooks_and_submodules_of_a_clone_do_not_run(box):
    inner = box.repo("inner")

    def prepare(path):
        (path / "hooks").mkdir()
        (path / "hooks/post-checkout").write_text(HIT)
        (path / "hooks/post-checkout").chmod(0o755)
        (path / ".lfsconfig").write_text("[lfs]\n\turl = http://127.0.0.1:1/\n")
        (path / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
        (path / "big.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n")
        git(path, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(box.root) + inner.removeprefix("file://"), "sub")
        (path / ".gitmodules").write_text(f'[submodule "sub"]\n\tpath = sub\n\turl = {inner}\n\tupdate = !touch /tmp/hit\n')
    url = box.repo("outer", prepare=prepare)
    end = run(box, "cat big.bin; ls -A sub; echo more >> big.bin\n", {"OZ_ENV_REPOS": url})
    assert end.status == 0 and hits(box) is None and end.output.startswith(b"version https://git-lfs"), end
    assert not any((box.workspace / "sub").iterdir()) and b"+more" in box.patch() and b"sub" not in box.patch()


@pytest.mark.parametrize("kind", ["link to a folder", "link to a file", "file", "folder with results"])
def test_a_repository_that_brings_its_own_oz(box, kind):
    outside = box.root / "tmp/outside"
    outside.mkdir()
    (outside / "result.json").write_text("untouched")

    def prepare(path):
        if kind == "folder with results":
            (path / ".oz").mkdir()
            (path / ".oz/result.json").symlink_to("/tmp/outside/result.json")
            (path / ".oz/agent_output.txt").symlink_to("/tmp/outside/result.json")
            (path / ".oz/changes.patch").mkdir()
            (path / ".oz/changes.patch/x").write_text("x")
        elif kind == "file":
            (path / ".oz").write_text("mine\n")
        else:
            (path / ".oz").symlink_to("/tmp/outside" if kind == "link to a folder" else "/tmp/outside/result.json")
    url = box.repo("a", prepare=prepare)
    end = run(box, "echo said; echo new > new\n", {"OZ_ENV_REPOS": url})
    assert end.status == 0 and end.output == b"said\n" and end.result["exit_code"] == 0, end
    assert (outside / "result.json").read_text() == "untouched" and not (box.workspace / ".oz").is_symlink()
    assert sorted(p.name for p in outside.iterdir()) == ["result.json"]
    assert b"+new" in box.patch() and b".oz" not in box.patch()


@pytest.mark.parametrize("script", [
    "echo said; rm -rf .oz; echo more\n",
    "echo said; echo more; git clean -qfdx\n",
    "echo said; echo more; rm -rf .oz; ln -s /tmp/outside .oz\n",
    "echo said; echo more; rm -rf .oz; echo x > .oz\n",
    "echo said; echo more; rm .oz/*; mkdir .oz/result.json .oz/agent_output.txt .oz/changes.patch; touch .oz/result.json/x\n",
    "echo said; echo more; ln -sf /tmp/outside/result.json .oz/result.json; ln -sf /tmp/outside/result.json .oz/agent_output.txt\n",
    "echo said; echo more; mv .oz elsewhere\n",
])
def test_an_agent_that_destroys_its_results_folder(box, script):
    outside = box.root / "tmp/outside"
    outside.mkdir()
    (outside / "result.json").write_text("untouched")
    end = run(box, script, {"OZ_ENV_REPOS": box.repo("a")})
    assert end.status == 0 and end.result["exit_code"] == 0 and end.output == b"said\nmore\n", end
    assert (outside / "result.json").read_text() == "untouched" and [p.name for p in outside.iterdir()] == ["result.json"]


def test_an_agent_that_deletes_the_repository(box):
    end = run(box, "rm -rf .git\n", {"OZ_ENV_REPOS": box.repo("a")})
    assert end.status == 0 and end.result["files"] == [] and "changes.patch was not made" in end.text, end


def test_an_agent_that_breaks_the_index(box):
    end = run(box, "echo new > new; head -c 3000 /dev/urandom > .git/index\n", {"OZ_ENV_REPOS": box.repo("a")})
    assert end.status == 0 and b"+new" in box.patch(), end


def test_the_sha256_format(box):
    def prepare(path):
        shutil.rmtree(path / ".git")
        git(path, "init", "-q", "-b", "main", "--object-format=sha256")
    end = run(box, "echo new > new\n", {"OZ_ENV_REPOS": box.repo("a", prepare=prepare)})
    assert b"+new" in box.patch(), end


# --- files that a task leaves ---

def test_artifacts_are_listed_by_name(box):
    script = """mkdir -p .oz/artifacts/shots; cd .oz/artifacts
printf 'x' > report.md; printf 'png' > shots/one.PNG; printf 'p' > changes.patch; printf o > output; printf s > shots-one.PNG; printf u > 'ü.x'; printf '' > empty; printf 'y' > .hidden
ln -s /etc/passwd link; mkfifo pipe; ln report.md second-name-of-a-file; printf z > 'name with blank'
mkdir -p a/b/c/d/e/f/g/h/i/j; printf deep > a/b/c/d/e/f/g/h/i/j/too-deep; printf ok > a/b/ok.json
"""
    end = run(box, script)
    files = [(f["path"], f["name"], f["media_type"], f["bytes"]) for f in end.result["files"]]
    base, binary = "/workspace/.oz/artifacts/", "application/octet-stream"
    assert files == [(base + p, n, t, s) for p, n, t, s in [
        (".hidden", "_hidden", binary, 1), ("a/b/ok.json", "a-b-ok.json", "application/json", 2),
        ("changes.patch", "changes-2.patch", "text/x-diff; charset=utf-8", 1), ("empty", "empty", binary, 0),
        ("name with blank", "name_with_blank", binary, 1), ("output", "output-2", binary, 1),
        ("shots-one.PNG", "shots-one.PNG", "image/png", 1), ("shots/one.PNG", "shots-one-2.PNG", "image/png", 3),
        ("ü.x", "__.x", binary, 1)]], end
    assert "5 of the artifacts were left out" in end.text, end  # link, pipe, two names of one file, too deep


def test_at_most_64_files_and_of_bounded_size(static):
    end = run(static, "mkdir .oz/artifacts; for i in $(seq 130); do echo $i > .oz/artifacts/$i; done; truncate -s 33M .oz/artifacts/large\n")
    assert len(end.result["files"]) == 64 and all(f["bytes"] < 10 for f in end.result["files"])
    assert "67 of the artifacts were left out" in end.text


def test_a_killed_runner_leaves_a_result_once_the_agent_ended(static):
    """The first result.json is there before the patch is made: a KILL in between loses only the patch."""
    def fill(path):
        for i in range(3000):
            (path / f"f{i}").write_bytes(b"x" * 100)
    url = static.repo("many", prepare=fill)
    static.cli("claude", "for i in $(seq 3000); do echo y > f$i; done; echo done\n")
    process = static.start("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": url})
    path = static.workspace / ".oz/result.json"
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    result = json.loads(path.read_text())
    assert result["exit_code"] == 0 and result["output_path"] == "/workspace/.oz/agent_output.txt"


def test_the_workspace_may_lie_elsewhere(static):
    """The direct back end has no container: MUSTER_WORKSPACE names the folder."""
    (static.root / "elsewhere").mkdir()
    static.cli("claude", "pwd\n")
    static.start("agent", "run", "--model", "claude", env={**PROMPT, "MUSTER_WORKSPACE": "/elsewhere"},
                 entry=("/agent/bin/muster",)).communicate(timeout=30)
    result = json.loads((static.root / "elsewhere/.oz/result.json").read_text())
    assert result["output_path"] == "/workspace/.oz/agent_output.txt", "what the worker asks for"
    assert (static.root / "elsewhere/.oz/agent_output.txt").read_text() == "/elsewhere\n"
    assert not (static.workspace / ".oz").exists()


def test_a_workspace_that_cannot_be_written_is_1(static):
    subprocess.run(["chmod", "555", static.workspace], check=True)
    if os.getuid() == 0:
        (static.workspace / "x").touch()
        end = static.run("--model", "claude", env={**PROMPT, "MUSTER_WORKSPACE": "/proc/no/such"})
    else:
        end = static.run("--model", "claude", env=PROMPT)
    assert end.status == 1 and "cannot be" in end.text, end
