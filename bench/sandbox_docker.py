#!/usr/bin/env python3
"""What the docker driver adds to a container: a task through it (image looked at, volume, create, start, wait, log,
removal) against plain `podman run --rm` of the same image on the same engine, one after the other in turns.

    bench/sandbox_docker.py [--rounds 15] [--tool build/release/tests/unit/sandbox-run]

Needs root and Podman (script/bootstrap test). The program is the image's own shell behind an entrypoint of two lines, so
that the runner's work is in neither figure.
"""
import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/tools"))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=15)
    args.add_argument("--tool", default=str(ROOT / "build/asan/tests/unit/sandbox-run"))
    options = args.parse_args()
    os.environ["SANDBOX_RUN"] = options.tool
    import podman as podman_tool
    from sandbox_box import Box
    bundle = pathlib.Path(tempfile.mkdtemp())
    (bundle / "entrypoint.sh").write_text("#!/bin/sh\nexec /bin/echo done\n")
    (bundle / "entrypoint.sh").chmod(0o755)
    engine = podman_tool.Podman()
    plain, ours, ended = [], [], []
    try:
        engine.image("localhost/task:1")
        box = Box("--driver", "docker", host=f"unix://{engine.socket}", bundle=bundle, image="localhost/task:1", net="none",
                  execution="exec-bench", env=["PATH=/bin"])
        for number in range(options.rounds + 1):
            began = time.monotonic()
            done = engine.inside("run", "--rm", "--network", "none", "--security-opt", "no-new-privileges",
                                 "localhost/task:1", "/bin/echo", "done")
            assert done.stdout == b"done\n", done.stderr
            middle = time.monotonic()
            box.log, box.first_offset = b"", 0
            box.say("start")
            assert box.until("ended")["exit_code"] == 0 and box.log == b"done\n"
            end = time.monotonic()
            box.release()
            if number:  # the first one fills the volume
                plain.append(middle - began)
                ended.append(end - middle)
                ours.append(time.monotonic() - middle)
        box.close()
    finally:
        engine.stop()

    def show(name, values):
        print(f"{name:34} median {statistics.median(values) * 1000:7.0f} ms   best {min(values) * 1000:7.0f} ms")

    show("podman run --rm", plain)
    show("driver: start to ended", ended)
    show("driver: start to released", ours)
    ratio = statistics.median(ours) / statistics.median(plain)
    print(f"overhead {100 * (ratio - 1):+.0f} % by the median, {100 * (min(ours) / min(plain) - 1):+.0f} % by the best")


if __name__ == "__main__":
    main()
