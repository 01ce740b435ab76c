#!/usr/bin/env python3
"""Turns sql/NNNN_name.sql into C initialisers: { version, "name", "sha256", "text" }. Usage: migrations.py OUT FILE..."""
import hashlib
import os
import re
import sys


def c_string(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "\n".join('  "%s"' % line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines)


def main() -> None:
    out, files = sys.argv[1], sorted(sys.argv[2:])
    rows = []
    for index, path in enumerate(files, start=1):
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", os.path.basename(path))
        if not match or int(match.group(1)) != index:
            sys.exit(f"{path}: migrations are numbered 0001, 0002, … without a hole")
        text = open(path, encoding="utf-8").read()
        digest = hashlib.sha256(text.encode()).hexdigest()
        rows.append('{ %d, "%s", "%s",\n%s },' % (index, match.group(2), digest, c_string(text)))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, "w", encoding="utf-8") as f:
        f.write("/* generated from sql/ by cmake/migrations.py */\n" + "\n".join(rows) + "\n")


main()
