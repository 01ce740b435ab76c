"""libmuster as other programs get it: installed, found with pkg-config, compiled by cc, run."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MUSTER", ROOT / "build/dev/muster")).resolve().parent


def run(*words, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def cached(name):
    found = re.search(rf"^{name}:\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.M)
    return found[1] if found else ""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    place = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", BUILD, "--prefix", place, "--component", "library")
    return place


@pytest.fixture(scope="module")
def lib(prefix):
    return next(prefix.rglob("libmuster.so")).parent


@pytest.fixture(scope="module")
def env(lib):
    return os.environ | {"PKG_CONFIG_PATH": f"{lib}/pkgconfig", "LD_LIBRARY_PATH": str(lib)}


def compiler(language="c"):
    sanitize = cached("MU_SANITIZE")
    c = cached("CMAKE_C_COMPILER") or "cc"
    if language == "c++":
        c = shutil.which("clang++" if "clang" in c else "g++") or pytest.fail("there is no C++ compiler")
    return [c, *([f"-fsanitize={sanitize}"] if sanitize else [])]


def example(prefix):
    return next(prefix.rglob("control_plane.c"))


def test_the_example_is_one_page(prefix):
    assert len(example(prefix).read_text().splitlines()) <= 100
    assert example(prefix).read_text() == (ROOT / "examples/control_plane.c").read_text()


def check_run(program, env):
    out = run(program, env=env)
    said = out.splitlines()
    assert said[-1] == "COMPLETED (finished)", out
    assert "agent: I hear allow." in said, out
    numbers = [int(line.split()[0]) for line in said if re.match(r" *\d+ [A-Z]", line)]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers), out
    assert numbers[0] == 1
    for event in ("SESSION_CREATED", "APPROVAL_REQUESTED", "APPROVAL_RESOLVED", "SESSION_ENDED"):
        assert any(line.endswith(f" {event}") for line in said), out


@pytest.mark.parametrize("way", ["shared", "static"])
def test_the_example_compiles_against_what_is_installed_and_runs(prefix, lib, env, tmp_path, way):
    name = "muster" if way == "shared" else "muster-static"
    flags = run("pkg-config", "--cflags", "--libs", name, env=env).split()
    assert not [f for f in flags if str(ROOT) in f], "the build tree shows"
    program = tmp_path / "example"
    run(*compiler(), "-std=c11", "-Wall", "-Wextra", "-Werror", example(prefix), "-o", program, *flags,
        "-pthread", env=env)
    needed = run("objdump", "-p", program)
    assert ("libmuster.so.0" in needed) == (way == "shared")
    check_run(program, env | {"LD_LIBRARY_PATH": f"{lib}:{lib}/muster"})


def test_the_header_is_c_and_c_plus_plus(prefix, tmp_path):
    folder = next(prefix.rglob("control_plane.h")).parents[1]
    source = tmp_path / "host"
    source.write_text("#include <muster/control_plane.h>\nint main(void) { return (int)mu_cp_text(\"\").len; }\n")
    for language, words in (("c", ["-std=c11", "-x", "c"]), ("c++", ["-std=c++11", "-x", "c++"])):
        run(*compiler(language), "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", folder, *words, source)


def test_nothing_but_its_own_names_can_be_seen(lib):
    header = next(lib.parents[0].rglob("control_plane.h"), None) or next(lib.parents[1].rglob("control_plane.h"))
    declared = set(re.findall(r"\b(mu_cp_\w+)\(", "".join(
        part for part in re.findall(r"MU_CP_API[^;]*;", header.read_text()))))
    for words in (["nm", "-D", "--defined-only", lib / "libmuster.so"], ["nm", "-g", "--defined-only", lib / "libmuster.a"]):
        seen = {line.split()[2] for line in run(*words).splitlines() if len(line.split()) == 3}
        assert seen == declared, (words, seen ^ declared)
