/** Git's patches, file by file: the text of each is taken apart only when somebody looks at it. */
export interface FilePatch {
  path: string;
  oldPath?: string;
  status: "added" | "deleted" | "modified" | "renamed" | "copied";
  binary: boolean;
  additions: number;
  deletions: number;
  /** Its piece of the patch. */
  from: number;
  to: number;
}
export interface Sides {
  old: string[];
  new: string[];
  /** The number of each line in its file; 0: a line of ours. */
  oldNumbers: number[];
  newNumbers: number[];
}

const ESCAPES: Record<string, number> = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13, '"': 34, "\\": 92 };

/** A name as git writes it: in quotes, with octal bytes, when it has letters of other kinds. */
export function unquote(name: string): string {
  if (!name.startsWith('"') || !name.endsWith('"') || name.length < 2) return name;
  const bytes: number[] = [];
  const encoder = new TextEncoder();
  const inner = name.slice(1, -1);
  for (let i = 0; i < inner.length; i++) {
    const c = inner[i]!;
    if (c !== "\\") {
      const code = inner.codePointAt(i)!;
      bytes.push(...encoder.encode(String.fromCodePoint(code)));
      if (code > 0xffff) i++;
      continue;
    }
    const octal = /^[0-3][0-7]{2}/.exec(inner.slice(i + 1, i + 4))?.[0];
    if (octal) {
      bytes.push(Number.parseInt(octal, 8));
      i += 3;
    } else {
      i++;
      const next = inner[i] ?? "\\";
      bytes.push(ESCAPES[next] ?? next.charCodeAt(0));
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

const without = (name: string, prefix: string) => {
  const plain = unquote(name.replace(/\t$/, ""));
  return plain.startsWith(prefix) ? plain.slice(prefix.length) : plain;
};

/** Both names out of `a/x b/x`, where nothing else says them: they are the same. */
function names(rest: string): string {
  if (rest.startsWith('"')) return without(rest.slice(0, rest.indexOf('" ') + 1) || rest, "a/");
  return rest.slice(2, 2 + (rest.length - 5) / 2);
}

const HEAD = "diff --git ";

/** Where each file is. What is in a file begins with a space, plus or minus, so nothing in it looks like a head. */
export function filesOf(patch: string): FilePatch[] {
  const out: FilePatch[] = [];
  let at = patch.startsWith(HEAD) ? 0 : patch.indexOf(`\n${HEAD}`) + 1;
  if (at === 0 && !patch.startsWith(HEAD)) return out;
  while (at < patch.length) {
    const next = patch.indexOf(`\n${HEAD}`, at);
    const to = next < 0 ? patch.length : next + 1;
    out.push(fileOf(patch, at, to));
    at = to;
  }
  return out;
}

function fileOf(patch: string, from: number, to: number): FilePatch {
  let end = patch.indexOf("\n", from);
  if (end < 0 || end > to) end = to;
  const f: FilePatch = { path: names(patch.slice(from + HEAD.length, end)), status: "modified", binary: false, additions: 0, deletions: 0, from, to };
  let inHunk = false;
  for (let at = end + 1; at < to; ) {
    let stop = patch.indexOf("\n", at);
    if (stop < 0 || stop > to) stop = to;
    const c = patch.charCodeAt(at);
    if (c === 64 /* @ */) inHunk = true;
    else if (inHunk) {
      if (c === 43) f.additions++;
      else if (c === 45) f.deletions++;
    } else header(f, patch.slice(at, stop));
    at = stop + 1;
  }
  return f;
}

function header(f: FilePatch, line: string) {
  const after = (word: string) => (line.startsWith(word) ? line.slice(word.length) : undefined);
  let rest: string | undefined;
  if (line.startsWith("new file")) f.status = "added";
  else if (line.startsWith("deleted file")) f.status = "deleted";
  else if ((rest = after("rename from ")) !== undefined) [f.oldPath, f.status] = [unquote(rest), "renamed"];
  else if ((rest = after("rename to ")) !== undefined) f.path = unquote(rest);
  else if ((rest = after("copy from ")) !== undefined) [f.oldPath, f.status] = [unquote(rest), "copied"];
  else if ((rest = after("copy to ")) !== undefined) f.path = unquote(rest);
  else if ((rest = after("+++ ")) !== undefined && rest !== "/dev/null") f.path = without(rest, "b/");
  else if ((rest = after("--- ")) !== undefined && rest !== "/dev/null" && f.status === "deleted") f.path = without(rest, "a/");
  else if (line.startsWith("Binary files ") || line.startsWith("GIT binary patch")) f.binary = true;
}

/** Before and after, as far as the patch shows them; what it leaves out is one line on both sides. */
export function sidesOf(patch: string, f: FilePatch): Sides {
  const s: Sides = { old: [], new: [], oldNumbers: [], newNumbers: [] };
  let [o, n] = [1, 1];
  let inHunk = false;
  for (const line of patch.slice(f.from, f.to).split("\n")) {
    const hunk = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)$/.exec(line);
    if (hunk) {
      inHunk = true;
      const [from, to] = [Number(hunk[1]), Number(hunk[2])];
      const skipped = to - n;
      if (skipped > 0) {
        const text = `⋯ ${skipped === 1 ? "1 line" : `${skipped} lines`} as before${hunk[3] ? ` ·${hunk[3]}` : ""}`;
        s.old.push(text);
        s.new.push(text);
        s.oldNumbers.push(0);
        s.newNumbers.push(0);
      }
      [o, n] = [from, to];
    } else if (inHunk) {
      const [mark, rest] = [line[0], line.slice(1)];
      if (mark === " " || mark === "-") {
        s.old.push(rest);
        s.oldNumbers.push(o++);
      }
      if (mark === " " || mark === "+") {
        s.new.push(rest);
        s.newNumbers.push(n++);
      }
    }
  }
  return s;
}

/** Folders with their files, as they are shown: a folder that has only one folder is one with it. */
export interface Folder<T> {
  name: string;
  folders: Folder<T>[];
  files: { name: string; file: T }[];
}
export function treeOf<T extends { path: string }>(files: readonly T[]): Folder<T> {
  const root: Folder<T> = { name: "", folders: [], files: [] };
  const known = new Map<string, Folder<T>>([["", root]]);
  const folder = (path: string): Folder<T> => {
    const old = known.get(path);
    if (old) return old;
    const cut = path.lastIndexOf("/");
    const made: Folder<T> = { name: path.slice(cut + 1), folders: [], files: [] };
    folder(cut < 0 ? "" : path.slice(0, cut)).folders.push(made);
    known.set(path, made);
    return made;
  };
  for (const file of files) {
    const cut = file.path.lastIndexOf("/");
    folder(cut < 0 ? "" : file.path.slice(0, cut)).files.push({ name: file.path.slice(cut + 1), file });
  }
  const fold = (f: Folder<T>): Folder<T> => {
    let one = f;
    while (one !== root && one.folders.length === 1 && !one.files.length) one = { ...one.folders[0]!, name: `${one.name}/${one.folders[0]!.name}` };
    const by = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    return { ...one, folders: one.folders.map(fold).sort(by), files: one.files.sort(by) };
  };
  return fold(root);
}
