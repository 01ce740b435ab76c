"""A container engine that exists only on a socket: images, volumes, containers with scripted programs, and every call
noted. It answers the way Docker does, cuts its bodies into odd pieces, and can be told to misbehave."""
import io
import json
import os
import re
import socket
import struct
import tarfile
import threading
import time
import urllib.parse


class Program:
    """What a container runs: lines with the stream and the pause before them, then its end."""

    def __init__(self, lines=(), code=0, term=143, oom=False, hold=False, files=None):
        self.lines, self.code, self.term, self.oom, self.hold = list(lines), code, term, oom, hold
        self.files = files or {}


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[0]
                tar.addfile(info)
            else:
                info.size = len(content)
                info.pax_headers = {"comment": "x" * 200}
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def files_of(data):
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            found[member.name] = tar.extractfile(member).read() if member.isfile() else None
    return found


class Engine:
    def __init__(self, path, api="1.44", arch="amd64"):
        self.path, self.api, self.arch = str(path), api, arch
        self.images = {}          # ref -> {"files", "arch", "digest", "user"}
        self.registry = {}        # ref -> the same: what a pull finds
        self.volumes = {}         # name -> files
        self.containers = {}      # id -> dict
        self.program = Program()  # of the next container
        self.calls = []           # "METHOD path?query" without version; ids as <n>
        self.bodies = []          # of create
        self.headers = []
        self.hooks = []           # (method, regex, function(engine, request) -> answer or None)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.next_id = 1
        self.listener, self.open = None, set()
        self.up()

    # --- sockets ---

    def up(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def down(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)
        with self.lock:
            for conn in list(self.open):
                conn.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            request = Request(conn)
            if request.read_head():
                self._answer(request)
        except OSError:
            pass
        finally:
            with self.lock:
                self.open.discard(conn)
            conn.close()

    # --- calls ---

    def _answer(self, q):
        version = re.match(r"/v(\d+\.\d+)(/.*)", q.path)
        if version:
            q.version, q.path = version[1], version[2]
        shown = q.target[len(version[1]) + 2:] if version else q.target
        shown = re.sub(r"[0-9a-f]{64}", lambda m: f"<{int(m[0], 16)}>", urllib.parse.unquote(shown))
        with self.lock:
            self.calls.append(f"{q.method} {shown}")
            self.headers.append(q.headers)
            self.changed.notify_all()
        for method, pattern, function in list(self.hooks):
            if method == q.method and re.search(pattern, q.path):
                if function(self, q) is not None:
                    return
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, q.path)
            if match and method == q.method:
                function(self, q, *match.groups())
                return
        q.error(404, "page not found")

    def wait_call(self, text, timeout=20):
        """Until a call that contains the text came in."""
        until = time.monotonic() + timeout
        with self.changed:
            while not any(text in c for c in self.calls):
                assert self.changed.wait(until - time.monotonic()), f"no call with {text!r}: {self.calls}"

    def container(self, q, name):
        with self.lock:
            for c in self.containers.values():
                if c["id"] == name or c["name"] == name:
                    return c
        q.error(404, f"No such container: {name}")
        return None

    def ping(self, q):
        q.reply(200, b"OK", {"Api-Version": self.api, "Content-Type": "text/plain"})

    def version(self, q):
        q.json(200, {"Version": "99.0", "ApiVersion": self.api, "Os": "linux", "Arch": self.arch})

    def info(self, q):
        q.json(200, {"CgroupDriver": "systemd", "CgroupVersion": "2", "MemoryLimit": True, "PidsLimit": True,
                     "CpuCfsQuota": True, "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]})

    def image(self, q, ref):
        image = self.images.get(ref)
        if image is None:
            return q.error(404, f"No such image: {ref}")
        q.json(200, {"Id": "sha256:" + "e" * 64, "Os": "linux", "Architecture": image.get("arch", self.arch),
                     "RepoDigests": [ref.split(":")[0] + "@sha256:" + image.get("digest", "d" * 64)],
                     "Config": {"User": image.get("user", "")}})

    def pull(self, q):
        ref = f'{q.query["fromImage"]}:{q.query["tag"]}'
        q.begin(200, {"Content-Type": "application/json"})
        q.chunk(json.dumps({"status": "Pulling from " + ref, "id": "latest"}).encode() + b"\r\n", cut=7)
        if ref in self.registry:
            self.images[ref] = self.registry[ref]
            q.chunk(json.dumps({"status": "Pull complete", "id": "abc"}).encode() + b"\r\n", cut=7)
        else:
            q.chunk(json.dumps({"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}).encode())
        q.end()

    def volume(self, q, name):
        if name not in self.volumes:
            return q.error(404, f"get {name}: no such volume")
        q.json(200, {"Name": name, "CreatedAt": "2026-01-01T00:00:00Z"})

    def volume_create(self, q):
        name = json.loads(q.body())["Name"]
        self.volumes.setdefault(name, {})
        q.json(201, {"Name": name, "CreatedAt": "2026-01-01T00:00:00Z"})

    def volume_delete(self, q, name):
        self.volumes.pop(name, None)
        q.reply(204)

    def create(self, q):
        body = json.loads(q.body())
        name = q.query.get("name", "")
        with self.lock:
            if name and any(c["name"] == name for c in self.containers.values()):
                return q.error(409, f'Conflict. The container name "/{name}" is already in use')
            if body["Image"] not in self.images:
                return q.error(404, "No such image: " + body["Image"])
            ident = f"{self.next_id:064x}"
            self.next_id += 1
            self.bodies.append(body)
            self.containers[ident] = {
                "id": ident, "name": name, "body": body, "status": "created", "code": 0, "oom": False, "frames": [],
                "program": self.program, "files": {}, "started": "", "kill": threading.Event()}
        q.json(201, {"Id": ident, "Warnings": []})

    def mounts(self, c):
        return {bind.split(":")[1]: bind.split(":")[0] for bind in c["body"].get("HostConfig", {}).get("Binds", [])}

    def lookup(self, c, path):
        """Files at a path as an archive of it: {name: content}, or None."""
        for target, volume in self.mounts(c).items():
            if path == target or path.startswith(target + "/"):
                files, path = self.volumes.get(volume, {}), path[len(target):]
                break
        else:
            files = {**c["files"], **c["program"].files}
        path = path.strip("/")
        base = path.rsplit("/", 1)[-1]
        if path in files:
            return {base: files[path]}
        below = {base + n[len(path):]: v for n, v in files.items() if n.startswith(path + "/")}
        return {base: None, **below} if below else None

    def archive_head(self, q, name):
        c = self.container(q, name)
        if c:
            q.reply(200 if self.lookup(c, q.query["path"]) is not None else 404)

    def archive_get(self, q, name):
        c = self.container(q, name)
        if c:
            found = self.lookup(c, q.query["path"])
            if found is None:
                return q.error(404, "Could not find the file in container")
            q.begin(200, {"Content-Type": "application/x-tar"})
            q.chunk(tar_of(found), cut=1000)
            q.end()

    def archive_put(self, q, name):
        c = self.container(q, name)
        if c:
            new = files_of(q.body())
            volume = self.mounts(c).get(q.query["path"])
            (c["files"] if volume is None else self.volumes.setdefault(volume, {})).update(new)
            q.reply(200)

    def export(self, q, name):
        c = self.container(q, name)
        if c:
            q.begin(200, {"Content-Type": "application/x-tar"})
            q.chunk(tar_of(self.images[c["body"]["Image"]].get("files", {})), cut=4000)
            q.end()

    def start(self, q, name):
        c = self.container(q, name)
        if not c:
            return
        if c["status"] != "created":
            return q.reply(304)
        with self.lock:
            c["status"], c["started"] = "running", time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
        threading.Thread(target=self._run, args=(c,), daemon=True).start()
        q.reply(204)

    def _run(self, c):
        program = c["program"]
        code = program.code
        for pause, stream, text in program.lines:
            if c["kill"].wait(pause):
                break
            with self.changed:
                c["frames"].append(struct.pack(">BxxxI", stream, len(text)) + text)
                self.changed.notify_all()
        if program.hold:
            c["kill"].wait()
        with self.changed:
            c["status"], c["code"], c["oom"] = "exited", c.get("signal_code", code), program.oom
            self.changed.notify_all()

    def wait(self, q, name):
        c = self.container(q, name)
        if not c:
            return
        q.begin(200, {"Content-Type": "application/json"})
        with self.changed:
            while c["status"] == "running" and c["id"] in self.containers:
                self.changed.wait(0.2)
        q.chunk(json.dumps({"StatusCode": c["code"]}).encode())
        q.end()

    def logs(self, q, name):
        c = self.container(q, name)
        if not c:
            return
        q.begin(200, {"Content-Type": "application/vnd.docker.multiplexed-stream"})
        sent = 0
        while True:
            with self.changed:
                while sent == len(c["frames"]) and c["status"] == "running" and "follow" in q.query:
                    self.changed.wait(0.2)
                    if q.gone():
                        return
                frames, over = c["frames"][sent:], c["status"] != "running" or "follow" not in q.query
                sent += len(frames)
            if frames:
                q.chunk(b"".join(frames), cut=5)  # heads and lines are cut wherever it hits
            if over and sent == len(c["frames"]):
                break
        q.end()

    def stop(self, q, name):
        c = self.container(q, name)
        if not c:
            return
        if c["program"].term is None:  # deaf to TERM: the engine kills after the grace
            time.sleep(float(q.query.get("t", 10)))
            self._signal(c, 137)
        else:
            self._signal(c, c["program"].term)
        q.reply(204)

    def _signal(self, c, code):
        with self.changed:
            if c["status"] == "running":
                c["signal_code"] = code
                c["kill"].set()
            self.changed.wait_for(lambda: c["status"] != "running", 5)

    def kill(self, q, name):
        c = self.container(q, name)
        if c and c["status"] != "running":
            return q.error(409, "container is not running")
        if c:
            self._signal(c, 137)
            q.reply(204)

    def inspect(self, q, name):
        c = self.container(q, name)
        if c:
            q.json(200, {"Id": c["id"], "Config": {"Labels": c["body"].get("Labels", {})}, "State": {
                "Status": c["status"], "Running": c["status"] == "running", "ExitCode": c["code"],
                "OOMKilled": c["oom"], "StartedAt": c["started"], "Error": ""}})

    def list(self, q):
        wanted = json.loads(q.query["filters"])["label"]
        found = []
        with self.lock:
            for c in self.containers.values():
                labels = [f"{k}={v}" for k, v in c["body"].get("Labels", {}).items()]
                if all(w in labels for w in wanted):
                    found.append({"Id": c["id"], "Labels": c["body"]["Labels"], "State": c["status"]})
        q.json(200, found)

    def delete(self, q, name):
        c = self.container(q, name)
        if c:
            self._signal(c, 137)
            with self.changed:
                self.containers.pop(c["id"], None)
                self.changed.notify_all()
            q.reply(204)


C = r"/containers/([^/]+)"
ROUTES = [
    ("GET", r"/_ping", Engine.ping), ("HEAD", r"/_ping", Engine.ping), ("GET", r"/version", Engine.version),
    ("GET", r"/info", Engine.info), ("GET", r"/images/(.+)/json", Engine.image),
    ("POST", r"/images/create", Engine.pull), ("POST", r"/volumes/create", Engine.volume_create),
    ("GET", r"/volumes/([^/]+)", Engine.volume), ("DELETE", r"/volumes/([^/]+)", Engine.volume_delete),
    ("POST", r"/containers/create", Engine.create), ("GET", r"/containers/json", Engine.list),
    ("HEAD", C + "/archive", Engine.archive_head), ("GET", C + "/archive", Engine.archive_get),
    ("PUT", C + "/archive", Engine.archive_put), ("GET", C + "/export", Engine.export),
    ("POST", C + "/start", Engine.start), ("POST", C + "/wait", Engine.wait), ("GET", C + "/logs", Engine.logs),
    ("POST", C + "/stop", Engine.stop), ("POST", C + "/kill", Engine.kill), ("GET", C + "/json", Engine.inspect),
    ("DELETE", C, Engine.delete)]


class Request:
    def __init__(self, conn):
        self.conn, self.file, self.version = conn, conn.makefile("rb"), None
        self.chunked = False

    def read_head(self):
        line = self.file.readline().decode().split()
        if len(line) != 3:
            return False
        self.method, self.target = line[0], line[1]
        self.headers = {}
        while (field := self.file.readline().strip()):
            name, _, value = field.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        split = urllib.parse.urlsplit(self.target)
        self.path = urllib.parse.unquote(split.path)
        self.query = dict(urllib.parse.parse_qsl(split.query))
        return True

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.file.read(int(self.headers.get("content-length", 0)))
        whole = b""
        while (size := int(self._line(), 16)):
            whole += self.file.read(size)
            assert self.file.read(2) == b"\r\n"
        assert self._line() == b"\r\n"
        return whole

    def _line(self):
        line = self.file.readline()
        if not line:
            raise OSError("the client went away")
        return line

    def gone(self):
        try:
            return self.conn.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def begin(self, status, headers):
        head = f"HTTP/1.1 {status} Some\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self.conn.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())

    def chunk(self, data, cut=None):
        whole = b"%x\r\n" % len(data) + data + b"\r\n" if data else b""
        step = cut or len(whole) or 1
        for at in range(0, len(whole), step):
            self.conn.sendall(whole[at:at + step])

    def end(self):
        self.conn.sendall(b"0\r\n\r\n")

    def reply(self, status, body=b"", headers=()):
        fields = "".join(f"{k}: {v}\r\n" for k, v in dict(headers).items())
        self.conn.sendall(f"HTTP/1.1 {status} Some\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return True

    def json(self, status, value):
        return self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status, message):
        return self.json(status, {"message": message})
