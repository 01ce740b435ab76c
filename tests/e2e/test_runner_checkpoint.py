"""Checkpoints of live sessions (docs/runner-protocol.md): what `muster runner` packs after a turn, and that a session in
another sandbox, restored from it, has the same files, the same `git status` and the same conversation."""
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from runner_box import git
from test_runner_live import Live, maker

pytestmark = [pytest.mark.engine_free]


class Session(Live):
    def __init__(self, place, repos="", origin=None, restore=None, start=True, env=None, **options):
        """restore: (a session, a checkpoint's number or None); origin: a session whose /repos it has."""
        options.setdefault("checkpoints", True)
        env = {"OZ_ENV_REPOS": repos, **(env or {})}
        if restore:
            env["MUSTER_RESTORE"] = "/link/restore"
        super().__init__(place, start=False, env=env, **options)
        self.peer.workspace = self.box.workspace
        self.home = self.box.root / "home"
        if origin:
            shutil.rmtree(self.box.repos)
            shutil.copytree(origin.box.repos, self.box.repos, symlinks=True)
        if restore:
            self.put_restore(*restore)
        if start:
            self.start()

    def put_restore(self, source, number=None):
        folder = self.box.root / "link/restore"
        folder.mkdir()
        chain = source.peer.chain(number)
        (folder / "checkpoint.json").write_text(json.dumps({"checkpoints": chain}))
        for part in (p for c in chain for p in c["parts"]):
            (folder / part["name"]).write_bytes(source.peer.files[part["name"]])

    def checkpoint(self, *lines, timeout=60):
        """A turn, and its checkpoint."""
        turn, complete = self.turn(*lines, timeout=timeout)
        assert complete["outcome"] == "done", complete
        return self.peer.wait_for("checkpoint", turnId=turn, timeout=timeout)

    def finish(self):
        self.peer.send("end-session")
        return self.end()

    # --- as it is ---
    def files(self):
        return look(self.box.workspace)

    def status(self, where=""):
        return status(self.box.workspace / where)


def look(top):
    """Every file below it but git's and ours: kind, whether it may be run, content."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in list(folders) + files:
            path = os.path.join(folder, name)
            at = os.path.relpath(path, os.fsencode(top))
            if name in (b".git", b".oz"):
                if name in folders:
                    folders.remove(name)
            elif os.path.islink(path):
                found[at] = ("link", os.readlink(path))
            elif os.path.isfile(path):
                found[at] = ("file", bool(os.stat(path).st_mode & 0o100), pathlib.Path(os.fsdecode(path)).read_bytes())
    return found


def status(repo):
    out = git(repo, "status", "--porcelain=v1", "-z", "-uall", "--branch")
    out = b"\0".join(line for line in out.split(b"\0") if not line.startswith(b"?? .oz/"))
    heads = subprocess.run(["git", "-C", str(repo), "rev-parse", "HEAD"], capture_output=True).stdout
    return out, heads, (repo / ".git/HEAD").read_text()


make = maker(Session)


def again(make, source, number=None, repos="", **options):
    """The same session somewhere else, ready for its next prompt."""
    new = make(repos=repos, origin=source, restore=(source, number), **options)
    new.peer.wait_for("boot", step="running")
    assert [m["step"] for m in new.peer.all("boot")] == ["clone", "restore", "setup", "agent", "running"]
    return new


def same(old_files, old_status, new, where=""):
    assert new.files() == old_files
    assert new.status(where) == old_status


def repo_files():
    return {"a.txt": "a\n" * 50, "b.txt": "b\n", "gone.txt": "x\n", "run.sh": "#!/bin/sh\n", "bin.dat": bytes(range(256)) * 40,
            ".gitignore": "ignored/\n*.log\n", "dir/deep/file": "deep\n", "link": "nothing\n", "crlf.txt": "one\r\ntwo\r\n"}


def change(w):
    """Everything that can happen to a work tree at once."""
    (w / "a.txt").write_text("changed\n")
    (w / "b.txt").write_text("staged\n")
    git(w, "add", "b.txt")
    (w / "b.txt").write_text("staged, then changed\n")
    (w / "gone.txt").unlink()
    (w / "run.sh").chmod(0o755)
    (w / "bin.dat").write_bytes(os.urandom(20000))
    (w / "link").unlink()
    (w / "link").symlink_to("../elsewhere")
    (w / "dir/deep/file").unlink()
    (w / "new file").write_text("untracked\n")
    (w / "sub").mkdir()
    (w / "sub/añ\n\tb\"c").write_text("a strange name\n")
    (w / "ends with space ").write_text("x")
    (w / "staged-new").write_text("new\n")
    git(w, "add", "staged-new")
    (w / "empty").write_bytes(b"")
    (w / "ignored").mkdir()
    (w / "ignored/x").write_text("not kept\n")
    (w / "y.log").write_text("not kept\n")
    (w / "crlf2.txt").write_bytes(b"a\r\nb\n")


@pytest.mark.parametrize("program", ["static", "sanitized"])
def test_a_work_tree_comes_back_as_it_was(make, program):
    s = make(program=program, start=False)
    url = s.box.repo("one", repo_files())
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    first = s.checkpoint("say nothing yet")
    assert first["number"] == 1 and "prev" not in first and [r["kind"] for r in first["roots"]][:1] == ["checkout"]
    change(s.box.workspace)
    second = s.checkpoint("say changed")
    assert second["prev"] == 1 and second["parts"] and second["bytes"] == sum(p["bytes"] for p in second["parts"])
    root = second["roots"][0]
    assert root["base"] == root["head"] == git(s.box.repos / "one", "rev-parse", "HEAD").decode().strip() and root["branch"] == "main"
    files, was = s.files(), s.status()
    for name in (b"ignored/x", b"y.log"):
        del files[name]
    new = again(make, s, repos=url, program=program)
    same(files, was, new)
    git(new.box.workspace, "fsck", "--strict")
    old = again(make, s, number=1, repos=url, program=program)
    assert old.status()[0] == b"## main...origin/main\0" and old.files()[b"a.txt"][2] == b"a\n" * 50


def test_commits_and_branches_of_the_agent_come_back(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "a\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.checkpoint("say 1")
    w = s.box.workspace
    git(w, "checkout", "-q", "-b", "topic/x")
    (w / "a").write_text("b\n")
    git(w, "commit", "-qam", "second")
    (w / "c").write_text("c\n")
    git(w, "add", "-A")
    git(w, "commit", "-qm", "third")
    (w / "d").write_text("dirty\n")
    m = s.checkpoint("say 2")
    assert m["roots"][0]["branch"] == "topic/x" and m["roots"][0]["head"] != m["roots"][0]["base"]
    was, log, files = s.status(), git(w, "log", "--format=%H %s"), s.files()
    # meanwhile others went on, so that a shallow clone does not have the first commit any more
    git(s.box.repos / "one", "commit", "-q", "--allow-empty", "-m", "upstream")
    new = again(make, s, repos=url)
    same(files, was, new)
    assert git(new.box.workspace, "log", "--format=%H %s") == log
    # what it tells is against where everybody began, and its own next checkpoint can be restored too
    (new.box.workspace / "e").write_text("later\n")
    m = new.checkpoint("say 3")
    assert "prev" not in m and m["roots"][0]["base"] == git(s.box.repos / "one", "rev-parse", "HEAD^").decode().strip()
    assert new.peer.events("DIFF_SUMMARY")[-1]["filesChanged"] == 4 and not new.peer.events("GIT_COMMIT")
    was, files = new.status(), new.files()
    third = again(make, new, repos=url)
    same(files, was, third)
    # detached
    git(third.box.workspace, "checkout", "-q", "--detach")
    third.checkpoint("say 4")
    same(third.files(), third.status(), again(make, third, repos=url))


def test_several_repositories_and_what_lies_beside_them(make):
    s = make(start=False)
    urls = s.box.repo("one", {"a": "1\n"}) + "\n" + s.box.repo("two", {"a": "2\n"})
    s.env["OZ_ENV_REPOS"] = urls
    s.start()
    s.peer.wait_for("boot", step="running")
    w = s.box.workspace
    (w / "one/a").write_text("changed\n")
    (w / "two/new").write_text("new\n")
    (w / "beside").write_text("beside\n")
    (w / "folder").mkdir()
    (w / "folder/x").write_text("x\n")
    m = s.checkpoint("say 1")
    assert sorted((r["kind"], r["path"]) for r in m["roots"] if r["kind"] != "home") == [("checkout", "one"), ("checkout", "two"), ("workspace", "")]
    (w / "folder/x").unlink()
    (w / "folder").rmdir()
    (w / "folder").write_text("a file now\n")
    s.checkpoint("say 2")
    files, one, two = s.files(), s.status("one"), s.status("two")
    new = again(make, s, repos=urls)
    same(files, one, new, "one")
    assert new.status("two") == two


def test_repositories_that_the_agent_made(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.box.repo("lib", {"l": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running")
    w = s.box.workspace
    git(w, "clone", "-q", str(s.box.repos / "lib"), "vendor/lib")
    (w / "vendor/lib/l").write_text("2\n")
    git(w, "init", "-q", "-b", "trunk", "fresh")  # without a commit
    (w / "fresh/f").write_text("f\n")
    (w / "fresh/g").write_text("g\n")
    git(w / "fresh", "add", "g")
    for i in range(3):
        git(w / "vendor/lib", "commit", "-q", "--allow-empty", "-m", f"{i}")
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{w}/vendor/lib", str(w / "shallow")], check=True)
    s.checkpoint("say 1")
    was = [s.status(x) for x in ("", "vendor/lib", "fresh", "shallow")]
    files = s.files()
    new = again(make, s, repos=url)
    assert new.files() == files
    for x, before in zip(("", "vendor/lib", "fresh", "shallow"), was):
        after = new.status(x)
        assert after[1:] == before[1:]
        # a remote is configuration, and that is not kept
        assert after[0].split(b"\0")[1:] == before[0].split(b"\0")[1:], x
    assert git(new.box.workspace / "vendor/lib", "log", "--format=%s") == b"2\n1\n0\nthe first one\n"
    assert git(new.box.workspace / "shallow", "log", "--format=%s") == b"2\n"


def test_a_workspace_without_a_repository(make):
    s = make()
    m = s.checkpoint("say 1")
    assert [r["kind"] for r in m["roots"]] in ([], ["home"])
    w = s.box.workspace
    (w / "a").write_text("a\n")
    (w / "sub").mkdir()
    (w / "sub/b").write_bytes(b"\r\n\0")
    (w / "sub/.gitattributes").write_text("* text=auto eol=lf\n")
    (w / "x\ny").symlink_to("a")
    s.checkpoint("say 2")
    new = again(make, s)
    assert new.files() == s.files()
    subprocess.run(["git", "init", "-q", "-b", "main", str(w)], check=True)
    git(w, "add", "a")
    git(w, "commit", "-qm", "its own")
    assert b".oz/checkpoint" not in git(w, "status", "--porcelain", "-uall")
    m = s.checkpoint("say 3")
    assert ("checkout", "") in [(r["kind"], r["path"]) for r in m["roots"]]
    new = again(make, s)
    same(s.files(), s.status(), new)


def test_nothing_changed_costs_nothing(make):
    s = make(start=False)
    s.env["OZ_ENV_REPOS"] = s.box.repo("one", {"a": "1\n"})
    s.start()
    s.checkpoint("write /workspace/n 1")
    home = (s.home / "fake-acp-history")
    numbers = []
    for i in range(3):
        before = home.read_bytes()
        m = s.checkpoint("say the same")
        numbers.append(m["number"])
        roots = {r["kind"]: r for r in m["roots"]}
        assert roots["checkout"]["parts"] == 0
        assert home.read_bytes() != before and roots["home"]["parts"] == 1  # the agent's own file
    assert numbers == [2, 3, 4]


def test_a_chain_of_25_and_each_of_it(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running")
    w, seen = s.box.workspace, {}
    for i in range(25):
        (w / f"f{i}").write_text(f"{i}\n" * 100)
        if i % 5 == 4:
            (w / f"f{i - 1}").unlink()
        if i % 7 == 6:
            git(w, "add", "-A")
            git(w, "commit", "-qm", f"at {i}")
        m = s.checkpoint(f"say {i}")
        seen[m["number"]] = (s.files(), s.status())
    full = [m["number"] for m in s.peer.all("checkpoint") if "prev" not in m]
    assert full == [1, 21]
    for number in (1, 7, 20, 21, 25):
        new = again(make, s, number=number, repos=url)
        same(*seen[number], new)
        new.finish()


def alone(folder):
    """How many objects lie alone."""
    try:
        return len(list(folder.glob("objects/??/*")))
    except FileNotFoundError:  # one is just being cleared away
        return 1


def folders(session):
    """Of each folder of ours: how many objects lie alone, and what is among its packs."""
    place = session.box.workspace / ".oz/checkpoint"
    return {d.name: (alone(d), [p.name for p in d.glob("objects/pack/*")]) for d in place.iterdir() if (d / "objects").is_dir()}


def tidied(session):
    """Nothing but packs is left, no more than a chain has; waits for it, since it is done when there is time."""
    def is_tidy():
        return all(not loose and sum(n.endswith(".pack") for n in names) <= 20 and all(n.startswith("ck") for n in names)
                   for loose, names in folders(session).values())
    end = time.monotonic() + 10
    while not is_tidy() and time.monotonic() < end:
        time.sleep(0.05)
    assert is_tidy(), folders(session)


def test_thirty_turns_leave_packs_only(make):
    s = make(start=False)
    url = s.box.repo("one", {f"d{i % 4}/f{i}": f"{i}\n" * 50 for i in range(40)})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running")
    w, seen = s.box.workspace, {}
    for i in range(30):
        (w / f"d{i % 4}/f{i}").write_text(f"turn {i}\n" * 200)
        (w / "same size").write_text(f"{i:04}\n")  # within the second in which the last one was taken
        (w / "random").write_bytes(os.urandom(400 << 10))
        if i in (3, 17):
            (w / "large").write_bytes(os.urandom(5 << 20))
        if i == 9:
            (w / "d1/f1").unlink()
        if i in (5, 24):
            git(w, "add", "-A")
            git(w, "commit", "-qm", f"at {i}")
        m = s.checkpoint(f"say {i}")
        seen[m["number"]] = (s.files(), s.status())
        if i % 10 == 4:
            tidied(s)
    tidied(s)
    last = max(seen)
    assert sum("prev" not in m for m in s.peer.all("checkpoint")) >= 2  # more than one chain
    for number in (last - 11, last):
        new = again(make, s, number=number, repos=url)
        same(*seen[number], new)
        new.finish()


def test_what_is_not_stored_does_not_pile_up(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    w = s.box.workspace
    s.checkpoint("say 1")
    refused = []

    def refuse(name):
        refused.append(int(name.split("-")[2]))
        return "the server refused it"
    s.peer.on_put = refuse
    for i in range(45):
        (w / f"f{i}").write_text(f"{i}\n")
        s.turn(f"say {i}")
    s.peer.wait(lambda: refused and refused[-1] == 46)
    tidied(s)
    s.peer.on_put = None
    m = s.checkpoint("say all")
    assert "prev" not in m
    tidied(s)
    same(s.files(), s.status(), again(make, s, repos=url))


def test_the_conversation_goes_on(make):
    s = make(start=False)
    s.home.joinpath("before").write_text("of the image\n")
    time.sleep(1.1)
    s.start()
    s.peer.wait_for("boot", step="running")
    m = s.checkpoint("say hello")
    home = s.home
    for name in (".ssh/id", ".claude/.credentials.json", ".cache/x", "a/node_modules/y", ".claude/projects/p.jsonl", ".config/tool/conf"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (home / "large").write_bytes(b"x" * (17 << 20))
    m = s.checkpoint("say more")
    conversation = s.peer.wait_for("boot", step="running")["conversationId"]
    assert m["conversationId"] == conversation
    new = again(make, s)
    assert set(look(new.home)) == {b"fake-acp-history", b".claude/projects/p.jsonl", b".config/tool/conf"}
    assert (new.home / ".config/tool/conf").stat().st_mode & 0o777 == 0o600
    boot = new.peer.wait_for("boot", step="running")
    assert boot["resumed"] and boot["conversationId"] == conversation
    assert (new.home / "fake-acp-history").read_bytes() == b"say hello\0say more\0"
    new.checkpoint("say third")
    third = again(make, new)
    assert (third.home / "fake-acp-history").read_bytes() == b"say hello\0say more\0say third\0"


HOSTILE = """[core]
\tfsmonitor = {0}
\thooksPath = /workspace/hooks
\tpager = {0}
\teditor = {0}
\tsshCommand = {0}
[filter "bad"]
\tclean = {0}
\tsmudge = {0}
\tprocess = {0}
\trequired = true
[diff]
\texternal = {0}
[diff "bad"]
\ttextconv = {0}
[alias]
\tadd = !{0}
\tread-tree = !{0}
[gpg]
\tprogram = {0}
[commit]
\tgpgSign = true
[uploadpack]
\tpackObjectsHook = {0}
[credential]
\thelper = !{0}
"""


def test_nothing_of_a_hostile_repository_runs(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n", "b": "2\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running")
    w = s.box.workspace
    (w / "ran.sh").write_text("#!/bin/sh\necho $0 $* >> /workspace/RAN\ncat\n")
    (w / "ran.sh").chmod(0o755)
    (w / "hooks").mkdir()
    subprocess.run(["git", "init", "-q", str(w / "nested")], check=True)
    for where in (w, w / "nested"):
        (where / "c").write_text("to be filtered\n")
        (where / ".gitattributes").write_text("* filter=bad diff=bad ident text eol=crlf\n$Id$\n")
        (where / ".git/info/attributes").write_text("* filter=bad\n")
        for hook in ("pre-commit", "post-index-change", "reference-transaction", "post-checkout", "pre-auto-gc"):
            for folder in (where / ".git/hooks", w / "hooks"):
                folder.mkdir(exist_ok=True)
                shutil.copy2(w / "ran.sh", folder / hook)
    git(w / "nested", "-c", "filter.bad.required=false", "add", "c")
    git(w / "nested", "commit", "-qm", "x")
    (w / "RAN").unlink(missing_ok=True)
    git(w, "-c", "filter.bad.required=false", "update-index", "--add", "--cacheinfo",
        "160000," + git(w / "nested", "rev-parse", "HEAD").decode().strip() + ",nested")
    (w / "nested/c").write_text("dirty\n")
    for where in (w, w / "nested"):
        (where / ".git/config").write_text((where / ".git/config").read_text() + HOSTILE.format("/workspace/ran.sh"))
    (s.home / ".gitconfig").write_text(HOSTILE.format("/workspace/ran.sh"))
    (w / "RAN").unlink(missing_ok=True)
    m = s.checkpoint("say 1")
    assert not s.peer.events("ALERT_RAISED") and len(m["roots"]) == 3
    assert not (w / "RAN").exists(), (w / "RAN").read_text()
    # also of our own folder, which the agent can reach
    for place in (w / ".oz/checkpoint").iterdir():
        if (place / "config").exists():
            (place / "config").write_text(HOSTILE.format("/workspace/ran.sh"))
            (place / "info/attributes").write_text("* filter=bad\n")
            (place / "hooks").mkdir()
            shutil.copy2(w / "ran.sh", place / "hooks/post-index-change")
    (w / "a").write_text("again\n")
    s.checkpoint("say 2")
    assert not (w / "RAN").exists(), (w / "RAN").read_text()
    files = s.files()
    new = again(make, s, repos=url)
    assert not (new.box.workspace / "RAN").exists()
    assert new.files() == files  # byte for byte, whatever the attributes say


@pytest.mark.parametrize("fault", ["refused", "cut", "silent", "removed", "linked"])
def test_a_checkpoint_that_is_not_stored_is_told_and_the_next_has_all(make, fault):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.checkpoint("say 1")
    (s.box.workspace / "n").write_text("new\n")
    p, hits = s.peer, []

    def trouble(name):
        if hits:
            return None
        hits.append(name)
        if fault == "refused":
            return "the server refused it"
        if fault == "cut":
            s.peer.drop()
            return False
        return False
    place = s.box.workspace / ".oz/checkpoint"
    if fault == "removed":
        shutil.rmtree(place)
    elif fault == "linked":
        shutil.rmtree(place)
        elsewhere = s.box.root / "elsewhere"
        elsewhere.mkdir()
        place.symlink_to("/elsewhere")
    else:
        p.on_put = trouble
    turn, _ = s.turn("say 2")
    if fault == "refused":
        p.wait(lambda: p.events("ALERT_RAISED"))
        assert "refused" in p.events("ALERT_RAISED")[0]["description"]
    elif fault == "silent":
        p.wait(lambda: hits)
    else:
        m = p.wait_for("checkpoint", turnId=turn)
        assert ("prev" in m) == (fault == "cut") and m["number"] == 2
        if fault == "linked":
            assert not list((s.box.root / "elsewhere").iterdir())
    m = s.checkpoint("say 3")
    if fault in ("refused", "silent"):
        assert not p.find("checkpoint", turnId=turn) and m["prev"] == 1 and m["number"] == 3
    same(s.files(), s.status(), again(make, s, repos=url))


def test_the_server_lost_one(make):
    s = make()
    (s.box.workspace / "a").write_text("1")
    s.checkpoint("say 1")
    s.peer.send("checkpoint", number=1, ok=False, error="its parts are not there")
    m = s.checkpoint("say 2")
    assert "prev" not in m and m["number"] == 2


def test_the_server_lost_one_while_the_next_is_stored(make):
    s = make()
    (s.box.workspace / "a").write_text("1")
    s.checkpoint("say 1")

    def lose(name):
        s.peer.on_put = None
        s.peer.send("checkpoint", number=1, ok=False, error="its parts are not there")
    s.peer.on_put = lose
    (s.box.workspace / "b").write_text("2")
    m = s.checkpoint("say 2")
    assert m["prev"] == 1  # it has no more than that: without `prev` the server would take it for all
    s.peer.send("checkpoint", number=2, ok=False, error="the one before is not there")
    assert "prev" not in s.checkpoint("say 3")
    assert set(again(make, s).files()) == {b"a", b"b"}


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_a_repository_whose_borders_are_no_file_holds_nothing_up(make, kind):
    s = make()
    s.peer.wait_for("boot", step="running")
    subprocess.run(["git", "init", "-q", str(s.box.workspace / "own")], check=True)
    border = s.box.workspace / "own/.git/shallow"
    if kind == "pipe":
        os.mkfifo(border)
    else:
        border.symlink_to("/dev/zero")
    s.turn("say 1")
    s.peer.wait(lambda: s.peer.all("checkpoint") or s.peer.events("ALERT_RAISED"))
    border.unlink()
    assert s.checkpoint("say 2")["roots"][0]["path"] == "own"


def test_borders_of_a_history_are_all_there_or_it_is_told(make):
    s = make()
    s.peer.wait_for("boot", step="running")
    subprocess.run(["git", "init", "-q", str(s.box.workspace / "own")], check=True)
    borders = [f"{n:040x}" for n in range(1, 66)]
    (s.box.workspace / "own/.git/shallow").write_text("\n".join(borders[:64]) + "\n")
    assert s.checkpoint("say 1")["roots"][0]["shallow"] == borders[:64]
    (s.box.workspace / "own/.git/shallow").write_text("\n".join(borders) + "\n")
    s.turn("say 2")
    alert = s.peer.wait(lambda: s.peer.events("ALERT_RAISED"), "an alert")[0]
    assert "own: its history has more than 64 shallow borders" in alert["description"]
    assert len(s.peer.all("checkpoint")) == 1


def test_a_last_one_before_the_end(make):
    s = make()
    s.checkpoint("say 1")
    (s.box.workspace / "late").write_text("typed in a terminal\n")
    s.peer.send("end-session")
    s.peer.wait_for("checkpoint", number=2)
    assert s.end().status == 0
    assert again(make, s).files()[b"late"][2] == b"typed in a terminal\n"
    s = make()
    s.checkpoint("say 1")
    (s.box.workspace / "late").write_text("before a stop\n")
    s.peer.send("stop", graceMs=8000)
    s.peer.wait_for("checkpoint", number=2)
    assert s.end().status == 143
    s = make()
    s.checkpoint("say 1")
    s.finish()
    assert len(s.peer.all("checkpoint")) <= 2


def test_a_hold_that_is_asked_for_anew_has_a_checkpoint_of_its_own(make):
    s = make()
    s.peer.wait_for("boot", step="running")
    (s.box.workspace / "large").write_bytes(os.urandom(64 << 20))
    s.peer.send("hibernate", requestId="one")
    s.peer.wait(lambda: (s.box.workspace / ".oz/checkpoint/0/index.lock").exists(), "git at work")
    s.peer.send("hibernate-cancel", requestId="one")  # from here to the next line the agent may have gone on
    s.peer.send("hibernate", requestId="two")
    s.peer.wait_for("checkpoint", number=2, timeout=60)
    s.peer.send("checkpoint", number=2, ok=True)
    answer = s.peer.wait_for("hibernate", requestId="two")
    assert answer["ok"] and answer["number"] == 2


def test_what_is_typed_into_a_screen_is_kept_when_it_is_quiet(make):
    s = make(mode="interactive", harness="shell")
    s.peer.wait_for("boot", step="running")
    s.peer.send("input", terminal=0, data="for i in 1 2 3; do sleep 0.6; echo $i; done; echo typed >by-hand\r")
    typed = s.peer.wait_for("checkpoint", number=1)
    assert "turnId" not in typed and typed["parts"]
    m = s.checkpoint("for i in 1 2 3; do sleep 0.6; echo $i; done; echo late >late")
    assert m["prev"] == 1 and m["parts"]
    kept = again(make, s, mode="interactive", harness="shell").files()
    assert kept[b"by-hand"][2] == b"typed\n" and kept[b"late"][2] == b"late\n"
    first = s.peer.prompt("sleep 0.3; echo 1 >one")
    second = s.peer.prompt("sleep 0.3; echo 2 >two")  # does not wait for that of the first one
    s.peer.wait_for("checkpoint", turnId=second)
    assert not s.peer.all("checkpoint", turnId=first)
    s.peer.send("input", terminal=0, data="cat one two; echo gone-$((6*7))\r")
    s.peer.wait_screen(b"gone-42")
    assert again(make, s, mode="interactive", harness="shell").files()[b"two"][2] == b"2\n"


def test_the_next_prompt_waits_for_packing_only(make):
    s = make()
    s.peer.on_put = lambda name: False
    (s.box.workspace / "a").write_text("1")
    s.turn("say 1")
    _, complete = s.turn("say 2", timeout=10)
    assert complete["outcome"] == "done" and not s.peer.all("checkpoint")


def test_without_git_it_is_told_once(make):
    s = make(start=False)
    s.process = s.box.start("agent", "run", "--model", "claude", env=s.env, pid1=True, path="/fake")
    s.turn("say 1")
    s.turn("say 2")
    assert [e["description"] for e in s.peer.events("ALERT_RAISED")] == ["there is no git in the sandbox"]
    assert not s.peer.all("checkpoint")


def test_a_restore_that_cannot_be_says_why(make):
    s = make(start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    (s.box.workspace / "n").write_text("new\n")
    m = s.checkpoint("say 1")
    for spoil in ("part", "missing", "manifest", "repository"):
        new = make(repos="" if spoil == "repository" else url, origin=s, restore=(s, None), start=False)
        folder = new.box.root / "link/restore"
        part = folder / m["parts"][0]["name"]
        if spoil == "part":
            data = bytearray(part.read_bytes())
            data[len(data) // 2] ^= 0xff
            part.write_bytes(data)
        elif spoil == "missing":
            part.unlink()
        elif spoil == "manifest":
            (folder / "checkpoint.json").write_text("{}")
        new.start()
        end = new.end()
        assert end.status == 128 and "the checkpoint was not restored" in end.result["message"], (spoil, end)
        new.peer.wait_for("exited", exitCode=128)


def test_a_large_file_is_stored_in_parts(make):
    s = make(program="static", start=False)
    url = s.box.repo("one", {"a": "1\n"})
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running")
    with open(s.box.workspace / "large", "wb") as f:
        for _ in range(200):
            f.write(os.urandom(1 << 20))
    m = s.checkpoint("say 1", timeout=90)
    assert len(m["parts"]) >= 13 and m["bytes"] > 200 << 20
    print(f"200 MB untracked: {m['durationMs']} ms")
    m = s.checkpoint("say 2")
    assert m["bytes"] < 1 << 20
    new = again(make, s, repos=url, program="static")
    assert subprocess.run(["cmp", str(s.box.workspace / "large"), str(new.box.workspace / "large")]).returncode == 0


@pytest.mark.timeout(420)  # its clone alone may take long beside other work
def test_an_unchanged_checkout_of_a_gigabyte_takes_no_time(make):
    s = make(program="static", start=False)

    def fill(path):
        block = os.urandom(100 << 10)
        for i in range(100):
            (path / f"d{i}").mkdir()
            for k in range(100):
                (path / f"d{i}" / f"f{k}").write_bytes(b"%d %d\n" % (i, k) + block)
    url = s.box.repo("large", {"a": "1\n"}, prepare=fill)
    s.env["OZ_ENV_REPOS"] = url
    s.start()
    s.peer.wait_for("boot", step="running", timeout=300)
    first = s.checkpoint("say 1")
    times = [s.checkpoint(f"say {i}")["durationMs"] for i in range(5)]
    print(f"1 GB, 10,000 files: first {first['durationMs']} ms, then {times} ms")
    assert min(times) <= 1000  # busy machines; what it takes is printed
