/** A file out of what the page has. */
export function save(parts: BlobPart[], name: string, type: string) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replace(/[\u0000-\u001f/\\:*?"<>|]/g, "_").slice(0, 200);
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
