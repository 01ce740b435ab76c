"""What may not be left on the machine, and which process is what in a sandbox."""
import contextlib
import os
import pathlib


def _read(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _pids():
    return [int(e.name) for e in pathlib.Path("/proc").iterdir() if e.name.isdigit() and int(e.name) != os.getpid()]


def _status(pid):
    lines = _read(pathlib.Path(f"/proc/{pid}/status")).decode(errors="replace").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def processes(*folders):
    """Keepers, sandboxes and workers of these folders: what names one of them on its command line or in its environment."""
    words, found = [str(f).encode() for f in folders], []
    for pid in _pids():
        p = pathlib.Path(f"/proc/{pid}")
        text = _read(p / "cmdline") + b"\0" + _read(p / "environ")
        if any(w in text for w in words) and _status(pid).get("State", "Z")[0] != "Z":
            found.append(pid)
    return found


def of_sandbox(execution, which):
    """The pid of the task's program, of process 1 or of the keeper; None when it is gone."""
    pid, levels = execution.pid, []
    if execution.execution_id.encode() not in _read(pathlib.Path(f"/proc/{pid}/environ")):
        return None
    while pid > 1:
        status = _status(pid)
        if "NSpid" not in status:
            return None
        levels.append(pid)
        if status["NSpid"].split()[-1] == "1":
            keeper = int(status["PPid"])
            if execution.execution_id.encode() not in _read(pathlib.Path(f"/proc/{keeper}/cmdline")):
                return None
            return {"task": execution.pid, "process 1": pid, "keeper": keeper}[which]
        pid = int(status["PPid"])
    return None


def groups(names):
    """Control groups of these workers."""
    root = pathlib.Path("/sys/fs/cgroup")
    return [p for name in names for p in root.glob(f"**/muster-{name}")]


def remove_groups(names):
    for top in groups(names):
        for p in [*top.iterdir(), top]:
            with contextlib.suppress(OSError):
                p.rmdir()


def find(lab):
    """After the workers' clean stop: words for whatever is still there."""
    folders = [lab.dir, *(w.dir for w in lab.workers)]
    found = [f"left over: process {pid} {_read(pathlib.Path(f'/proc/{pid}/cmdline'))[:200]}" for pid in processes(*folders)]
    for line in _read(pathlib.Path("/proc/self/mountinfo")).decode().splitlines():
        if any(str(f) in line for f in folders):
            found.append(f"left over: mount {line}")
    found += [f"left over: control group {p}" for p in groups(lab.names)]
    for w in lab.workers:
        for part in ("s", "direct", "workspaces"):
            if (w.state / part).exists():
                found += [f"left over: {p}" for p in (w.state / part).iterdir()]
    return found


def blobs(data):
    return [f"left over: {p}" for p in data.rglob("*.tmp")]
