#!/usr/bin/env python3
"""Writes the files of a folder as C: what the server hands to browsers (src/face/web/web.h).

    web_assets.py OUT [DIST]

Each file is kept as it is, and compressed with gzip and Brotli where that is smaller. Without DIST, or when it has no
index.html, the table is empty. The same files give the same bytes. Brotli comes from libbrotlienc, which libcurl brings
along; without it there is none.
"""
import ctypes
import ctypes.util
import gzip
import hashlib
import pathlib
import re
import sys

TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "mjs": "text/javascript; charset=utf-8",
         "css": "text/css; charset=utf-8", "json": "application/json", "map": "application/json", "svg": "image/svg+xml",
         "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "ico": "image/x-icon", "woff2": "font/woff2",
         "woff": "font/woff", "ttf": "font/ttf", "wasm": "application/wasm", "txt": "text/plain; charset=utf-8",
         "webmanifest": "application/manifest+json", "xml": "application/xml", "md": "text/markdown; charset=utf-8"}
HASHED = re.compile(r"/assets/.*[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+")
MOST_FILES, MOST_BYTES = 2000, 64 << 20


def brotli_encoder():
    name = ctypes.util.find_library("brotlienc") or "libbrotlienc.so.1"
    try:
        lib = ctypes.CDLL(name)
    except OSError:
        return None
    lib.BrotliEncoderCompress.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p,
                                          ctypes.POINTER(ctypes.c_size_t), ctypes.c_char_p]
    lib.BrotliEncoderMaxCompressedSize.restype = ctypes.c_size_t
    lib.BrotliEncoderMaxCompressedSize.argtypes = [ctypes.c_size_t]

    def encode(data):
        size = ctypes.c_size_t(lib.BrotliEncoderMaxCompressedSize(len(data)) or len(data) + 1024)
        out = ctypes.create_string_buffer(size.value)
        good = lib.BrotliEncoderCompress(11, 24, 0, len(data), data, ctypes.byref(size), out)
        return out.raw[:size.value] if good else None
    return encode


ESCAPES = ["\\%03o" % i for i in range(256)]
for c in range(32, 127):
    if chr(c) not in '"\\?':
        ESCAPES[c] = chr(c)


def literal(data):
    """Octal escapes have three digits, so that no digit that follows belongs to one."""
    lines = []
    for at in range(0, len(data), 4096):
        lines.append('"' + "".join([ESCAPES[b] for b in data[at:at + 4096]]) + '"')
    return "\n".join(lines) or '""'


def main():
    out = pathlib.Path(sys.argv[1])
    dist = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] else None
    found = []
    if dist and (dist / "index.html").is_file():
        found = [p for p in dist.rglob("*") if p.is_file()]
    if len(found) > MOST_FILES or sum(p.stat().st_size for p in found) > MOST_BYTES:
        sys.exit(f"{dist}: more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB: that is no web app of ours")
    files = sorted(("/" + p.relative_to(dist).as_posix(), p) for p in found)
    files.sort(key=lambda f: f[0].encode())
    brotli = brotli_encoder()
    made_of = hashlib.sha256(pathlib.Path(__file__).read_bytes() + (b"+" if brotli else b"-"))
    for path, file in files:
        made_of.update(f"{path} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    mark = f"/* Made by cmake/web_assets.py of {made_of.hexdigest()} */\n"
    if out.exists():
        with out.open() as old:
            if old.readline() == mark:
                return  # compressing takes longer than everything else
    texts, rows = [mark + '#include "main/web_assets.h"\n'], []
    for n, (path, file) in enumerate(files):
        if not re.fullmatch(r"[A-Za-z0-9/._@~+-]+", path):
            sys.exit(f"{file}: a name with characters that need escaping in an address")
        data = file.read_bytes()
        forms = {"plain": data, "gzip": gzip.compress(data, 9, mtime=0)}
        if brotli and (coded := brotli(data)) is not None:
            forms["brotli"] = coded
        members = []
        for form, content in forms.items():
            if form != "plain" and len(content) >= len(data):
                continue
            texts.append(f"static const char {form}_{n}[] =\n{literal(content)};\n")
            members.append(f".{form} = {{{form}_{n}, {len(content)}}}")
        kind = TYPES.get(file.suffix.lstrip(".").lower(), "application/octet-stream")
        rows.append(f'    {{.path = "{path}", .type = "{kind}", .sha256 = "{hashlib.sha256(data).hexdigest()}", '
                    f'.immutable = {"true" if HASHED.fullmatch(path) else "false"},\n     {", ".join(members)}}},\n')
    table = f"static const struct mu_web_asset items[] = {{\n{''.join(rows)}}};\n" if rows else ""
    texts.append(table +
                 f"const struct mu_web_assets mu_embedded_assets = {{{'items' if rows else 'NULL'}, {len(rows)}}};\n")
    text = "\n".join(texts)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


if __name__ == "__main__":
    main()
