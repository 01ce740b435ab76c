"""A Podman service of our own: private storage, images made by `podman import`, nothing from any registry."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

APPLETS = "sh cat echo sleep true id ls mkdir cp env grep tail head kill mount touch ps printf seq tr wc dd rm stat".split()


class Podman:
    def __init__(self):
        missing = [p for p in ("podman", "crun", "busybox", "unshare") if not shutil.which(p)]
        assert not missing, f"not installed: {' '.join(missing)} (script/bootstrap test)"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="muster-podman-"))
        self.socket = self.dir / "podman.sock"
        # A container may have at most the limits that we have.
        (self.dir / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        self.env = {**os.environ, "CONTAINERS_CONF": str(self.dir / "containers.conf")}
        self.options = ["--root", self.dir / "storage", "--runroot", self.dir / "run", "--storage-driver", "vfs",
                        "--tmpdir", self.dir / "tmp"]
        self.log = open(self.dir / "service.log", "w")
        self.service = self.inside("system", "service", "--time=0", f"unix://{self.socket}", start=True)
        end = time.monotonic() + 30
        while not self.socket.exists():
            assert self.service.poll() is None and time.monotonic() < end, (self.dir / "service.log").read_text()
            time.sleep(0.05)

    def inside(self, *args, start=False, **more):
        """crun takes cgroups v1 or v2, but no mixture with controllers on both sides: it does not get to see v2 then."""
        words = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec podman "$@"', "podman",
                 *map(str, self.options), *map(str, args)]
        if start:
            return subprocess.Popen(words, env=self.env, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                                    cwd=self.dir)  # conmon leaves a file "oom" where it was started
        return subprocess.run(words, env=self.env, capture_output=True, timeout=120, cwd=self.dir, **more)

    def image(self, name, files=(), changes=(), busybox=True):
        root = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        root.chmod(0o755)
        for folder in ("bin", "etc", "tmp"):
            (root / folder).mkdir()
        if busybox:
            shutil.copy(shutil.which("busybox"), root / "bin/busybox")
            for applet in APPLETS:
                (root / "bin" / applet).symlink_to("busybox")
            (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n")
        for path, (content, mode) in dict(files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        tar = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
        done = self.inside("import", *(w for c in changes for w in ("--change", c)), "-", name, input=tar)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(root)

    def names(self):
        done = self.inside("ps", "-a", "--format", "{{.Names}}")
        return done.stdout.decode().split()

    def stop(self):
        for _ in range(3):
            if self.inside("rm", "-a", "-f", "-t", "0").returncode == 0:
                break
        self.service.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.service.wait(20)
        self.service.kill()
        self.service.wait()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)
