import { expect, it } from "vitest";
import { filesOf, sidesOf, treeOf, unquote } from "./patch";

const PATCH = `diff --git a/README.md b/READ ME.md
similarity index 75%
rename from README.md
rename to READ ME.md
index 7e7a975..6f95d7c 100644
--- a/README.md
+++ b/READ ME.md\t
@@ -1,3 +1,4 @@
 # one
 
-A demo.
+A demo
+--- a/trap
\\ No newline at end of file
diff --git a/blob.bin b/blob.bin
new file mode 100644
index 0000000..e899662
Binary files /dev/null and b/blob.bin differ
diff --git a/src/list.c b/src/list.c
index 640bbe6..65e2b0a 100644
--- a/src/list.c
+++ b/src/list.c
@@ -5,3 +5,3 @@ int main(void)
 four
-five
+FIVE
 six
@@ -20,2 +20,1 @@
-twenty
 last
diff --git "a/tab\\tn\\303\\244me" "b/tab\\tn\\303\\244me"
deleted file mode 100644
--- "a/tab\\tn\\303\\244me"
+++ /dev/null
@@ -1 +0,0 @@
-diff --git a/no b/no
diff --git a/mode.sh b/mode.sh
old mode 100644
new mode 100755
`;

it("finds every file, its names, kind and numbers", () => {
  expect(filesOf(PATCH).map((f) => [f.path, f.oldPath, f.status, f.binary, f.additions, f.deletions])).toEqual([
    ["READ ME.md", "README.md", "renamed", false, 2, 1],
    ["blob.bin", undefined, "added", true, 0, 0],
    ["src/list.c", undefined, "modified", false, 1, 2],
    ["tab\tnäme", undefined, "deleted", false, 0, 1],
    ["mode.sh", undefined, "modified", false, 0, 0],
  ]);
});
it("makes both sides of it, with the numbers of their lines", () => {
  const list = filesOf(PATCH)[2]!;
  expect(sidesOf(PATCH, list)).toEqual({
    old: ["⋯ 4 lines as before · int main(void)", "four", "five", "six", "⋯ 12 lines as before", "twenty", "last"],
    new: ["⋯ 4 lines as before · int main(void)", "four", "FIVE", "six", "⋯ 12 lines as before", "last"],
    oldNumbers: [0, 5, 6, 7, 0, 20, 21],
    newNumbers: [0, 5, 6, 7, 0, 20],
  });
});
it("does not take what is in a file for a head", () => {
  const first = filesOf(PATCH)[0]!;
  expect(sidesOf(PATCH, first).new).toEqual(["# one", "", "A demo", "--- a/trap"]);
});
it("reads git's way of writing names", () => {
  expect(unquote('"a\\"b\\\\c\\n\\360\\237\\221\\215x"')).toBe('a"b\\c\n👍x');
  expect(unquote("plain name")).toBe("plain name");
});
it("has nothing of what is no patch", () => {
  expect(filesOf("")).toEqual([]);
  expect(filesOf("hello\nworld")).toEqual([]);
});
it("makes a tree and joins folders that have nothing else", () => {
  const tree = treeOf(["b.c", "src/lib/deep/x.c", "src/lib/deep/y.c", "a/one.c", "a/b/two.c"].map((path) => ({ path })));
  expect(tree.folders.map((f) => f.name)).toEqual(["a", "src/lib/deep"]);
  expect(tree.folders[0]!.folders[0]!.files.map((f) => f.file.path)).toEqual(["a/b/two.c"]);
  expect(tree.files.map((f) => f.name)).toEqual(["b.c"]);
});
it("takes ten megabytes at once", () => {
  const one = `diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n${"+some text of a line that was added\n".repeat(280)}`;
  const patch = one.repeat(1000);
  expect(patch.length).toBeGreaterThan(10e6);
  const began = performance.now();
  expect(filesOf(patch)).toHaveLength(1000);
  expect(performance.now() - began).toBeLessThan(1000);
});
