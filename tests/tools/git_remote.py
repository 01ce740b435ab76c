"""Repositories behind git's own server on the loopback address."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from harness import eventually


@contextlib.contextmanager
def serving(name="repo", links=None, **files):
    """The URL of a repository with these files (and symbolic links) in its only commit."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="muster-remote-"))
    git = ["git", "-C", top / name, "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", top / name], check=True)
    for file, text in files.items():
        (top / name / file).parent.mkdir(parents=True, exist_ok=True)
        (top / name / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    for file, target in (links or {}).items():
        (top / name / file).parent.mkdir(parents=True, exist_ok=True)
        (top / name / file).symlink_to(target)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    subprocess.run([*git, "config", "receive.denyCurrentBranch", "ignore"], check=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    daemon = subprocess.Popen(["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={top}", "--export-all",
                               "--enable=receive-pack", "--reuseaddr"], stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"git://127.0.0.1:{port}/{name}"
    try:
        eventually(lambda: subprocess.run(["git", "ls-remote", url], capture_output=True).returncode == 0, what="git daemon")
        yield url
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()
        shutil.rmtree(top)


def push(url, **files):
    """Another commit with these files."""
    with tempfile.TemporaryDirectory(prefix="muster-push-") as top:
        git = ["git", "-C", top + "/c", "-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "clone", "-q", url, top + "/c"], check=True)
        for file, text in files.items():
            path = pathlib.Path(top) / "c" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", "more"], check=True)
        subprocess.run([*git, "push", "-q", "origin", "HEAD"], check=True)
