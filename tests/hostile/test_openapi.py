"""The property-based API tester (schemathesis) on /openapi.json with a tenant key and the scripted provider:
0 server errors, 0 schema violations, in bounded time."""
import pathlib
import re
import subprocess
import sys

import pytest

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance," \
         "response_headers_conformance,negative_data_rejection,allow_header_conformance,missing_required_header"


@pytest.mark.timeout(900)
def test_schemathesis(request, oz, tmp_path):
    seconds = request.config.getoption("--schema-seconds")
    program = pathlib.Path(sys.executable).parent / "schemathesis"
    assert program.exists(), "schemathesis is not installed beside this python"
    # A text that is too long makes a body that is too large: 413 refuses it as well as 400 does.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.negative_data_rejection]\n'
        'expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]\n')
    # A stream has no end to wait for, and /metrics is the admin's: both have tests of their own.
    done = subprocess.run(
        [program, "--no-color", "run", f"{oz.url}/openapi.json", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
         "--exclude-path-regex", "/events$|/events/stream$|/metrics$|/ws$", "--header", "Authorization: Bearer schema-tenant",
         "--max-time", str(seconds), "--request-timeout", "60", "--continue-on-failure", "--seed", "7",
         "--suppress-health-check", "all", "--warnings", "off", "--max-failures", "40"],
        cwd=tmp_path, capture_output=True, text=True, timeout=seconds + 600,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SCHEMATHESIS_HOOKS": ""})
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
    tested = re.search(r"(\d+) generated", done.stdout) or re.search(r"Test cases:\s*\n?\s*(\d+)", done.stdout)
    assert tested and int(tested[1]) > 100, done.stdout[-3000:]
