import { useQuery } from "@tanstack/react-query";
import { ChevronRight, Columns2, Download, FileDiff, Folder as FolderIcon, RotateCw, Rows2 } from "lucide-react";
import { lazy, Suspense, useEffect, useMemo, useState } from "react";
import { isEnded } from "@/api/sessions";
import { type FilePatch, filesOf, type Folder, sidesOf, treeOf } from "@/diff/patch";
import { Button, IconButton } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { visibleName } from "@/ui/text";
import { diffQuery, fileAddress, filesQuery } from "./calls";
import { size } from "./conversation";
import { Lines } from "./rows";
import { save } from "./save";
import type { TabProps } from "./session";
import { useWide } from "./split";

const DiffView = lazy(() => import("@/diff/view"));
const PATCH = "changes.patch";
/** A patch above this is for a program, not for a page; one file above that as well. */
const PATCH_MAX = 40 * 1024 * 1024;
const FILE_MAX = 1024 * 1024;

interface Entry {
  path: string;
  oldPath?: string;
  status: string;
  additions: number;
  deletions: number;
  patch?: FilePatch;
}

export default function ChangesTab({ session: s, search, change }: TabProps & { shownNow: boolean }) {
  const id = s.sessionId;
  const ended = isEnded(s.state);
  const diff = useQuery(diffQuery(id));
  const files = useQuery({ ...filesQuery(id), enabled: ended });
  const kept = files.data?.files.find((f) => f.name === PATCH);
  const tooLarge = (kept?.bytes ?? 0) > PATCH_MAX;
  const stored = useQuery({
    queryKey: ["patch", id, kept?.sha256],
    enabled: kept !== undefined && !tooLarge,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 60_000,
    queryFn: async ({ signal }) => {
      const answer = await fetch(fileAddress(id, PATCH), { credentials: "same-origin", signal });
      if (!answer.ok) throw new Error(`The patch cannot be read (${answer.status}).`);
      return answer.text();
    },
  });
  const patch = (ended ? stored.data : diff.data?.patch) ?? "";
  const entries = useMemo(() => {
    const patches = filesOf(patch);
    const byPath = new Map(patches.map((p) => [p.path, p]));
    const told = (diff.data?.files ?? []).map((f): Entry => ({ path: f.path ?? "?", oldPath: f.oldPath, status: f.status ?? "modified", additions: f.additions ?? 0, deletions: f.deletions ?? 0, patch: byPath.get(f.path ?? "") }));
    const known = new Set(told.map((e) => e.path));
    return [...told, ...patches.filter((p) => !known.has(p.path)).map((p): Entry => ({ path: p.path, oldPath: p.oldPath, status: p.status, additions: p.additions, deletions: p.deletions, patch: p }))];
  }, [patch, diff.data]);
  const tree = useMemo(() => treeOf(entries), [entries]);
  const wide = useWide();
  const named = (file: string) => entries.find((e) => e.path === file) ?? entries.find((e) => file.endsWith(`/${e.path}`) || e.path.endsWith(`/${file}`));
  const entry = search.file ? named(search.file) : wide ? firstOf(tree) : undefined;
  // Side by side where there is room for it, unless somebody chose.
  const [box, setBox] = useState<HTMLDivElement | null>(null);
  const [room, setRoom] = useState(0);
  useEffect(() => {
    if (!box) return;
    const watch = new ResizeObserver(() => setRoom(box.clientWidth));
    watch.observe(box);
    return () => watch.disconnect();
  }, [box]);
  const unified = !wide || (search.view ? search.view === "unified" : room < 820);
  const reading = diff.isPending || (ended && (files.isPending || stored.isLoading));

  if (diff.isError && !diff.data) return <ErrorBox error={diff.error} retry={() => void diff.refetch()} className="m-4" />;
  if (reading) return <Skeleton rows={4} className="p-4" />;
  if (!entries.length) {
    return (
      <Empty icon={<FileDiff className="size-8" aria-hidden />} title="Nothing is changed" action={!ended && <Button onClick={() => void diff.refetch()}>Look again</Button>}>
        {ended ? "The session ended without changes against the commit that it began with." : "What the agent changes is here after each of its turns."}
      </Empty>
    );
  }
  const d = diff.data;
  return (
    <div ref={setBox} className="flex min-h-0 flex-1 flex-col">
      <div className="flex shrink-0 flex-wrap items-center gap-2 border-b border-line px-3 py-1.5">
        <span className="font-medium">{entries.length === 1 ? "1 file" : `${entries.length} files`}</span>
        {d && <Lines added={d.linesAdded} removed={d.linesRemoved} />}
        <span className="ml-auto flex items-center gap-1">
          {!ended && (
            <IconButton label="Read the changes again" onClick={() => void diff.refetch()}>
              <RotateCw className={cx("size-4", diff.isFetching && "motion-safe:animate-spin")} aria-hidden />
            </IconButton>
          )}
          {wide && (
            <>
              <IconButton label="Side by side" aria-pressed={!unified} className={unified ? "" : "bg-hover"} onClick={() => change({ view: "split" })}>
                <Columns2 className="size-4" aria-hidden />
              </IconButton>
              <IconButton label="One under the other" aria-pressed={unified} className={unified ? "bg-hover" : ""} onClick={() => change({ view: "unified" })}>
                <Rows2 className="size-4" aria-hidden />
              </IconButton>
            </>
          )}
          {kept ? (
            <a href={fileAddress(id, PATCH)} download={`${id}.patch`} className="inline-flex size-8 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text" aria-label="Download the patch" title="Download the patch">
              <Download className="size-4" aria-hidden />
            </a>
          ) : (
            patch && (
              <IconButton label="Download the patch" onClick={() => save([patch], `${id}.patch`, "text/x-diff")}>
                <Download className="size-4" aria-hidden />
              </IconButton>
            )
          )}
        </span>
      </div>
      {(d?.truncated || tooLarge) && <p className="shrink-0 border-b border-line bg-warn-soft px-3 py-1 text-[13px] text-warn">{tooLarge ? `The patch has ${size(kept!.bytes)}: too much for a page. Download it.` : "The changes are larger than what is shown while it runs; all of them are here when it has ended."}</p>}
      {stored.isError && <ErrorBox error={stored.error} retry={() => void stored.refetch()} className="m-3" />}
      <div className="flex min-h-0 flex-1 max-md:flex-col">
        <nav aria-label="Changed files" className={cx("shrink-0 overflow-auto border-line py-1 md:w-56 md:border-r", entry && "max-md:max-h-32 max-md:border-b")}>
          <Branch folder={tree} depth={0} current={entry?.path} choose={(path) => change({ tab: "changes", file: path, line: undefined })} />
        </nav>
        {entry ? (
          <One key={entry.path} entry={entry} patch={patch} unified={unified} line={search.line} />
        ) : (
          <div className="hidden flex-1 md:block">
            <Empty title={search.file ? "This file is not changed" : "Choose a file"}>{search.file ? visibleName(search.file) : "Its changes are shown here."}</Empty>
          </div>
        )}
      </div>
    </div>
  );
}

const firstOf = (f: Folder<Entry>): Entry | undefined => (f.folders[0] ? firstOf(f.folders[0]) : f.files[0]?.file);

const MARK: Record<string, { mark: string; tone: string }> = {
  added: { mark: "A", tone: "text-ok" },
  deleted: { mark: "D", tone: "text-bad" },
  modified: { mark: "M", tone: "text-warn" },
  renamed: { mark: "R", tone: "text-info" },
  copied: { mark: "C", tone: "text-info" },
};

function Branch({ folder, depth, current, choose }: { folder: Folder<Entry>; depth: number; current: string | undefined; choose(path: string): void }) {
  return (
    <ul>
      {folder.folders.map((f) => (
        <Closable key={f.name} folder={f} depth={depth} current={current} choose={choose} />
      ))}
      {folder.files.map(({ name, file }) => {
        const m = MARK[file.status] ?? { mark: "M", tone: "text-muted" };
        return (
          <li key={file.path}>
            <button
              type="button"
              aria-current={file.path === current || undefined}
              title={file.oldPath ? `${file.oldPath} → ${file.path}` : file.path}
              onClick={() => choose(file.path)}
              className={cx("flex min-h-7 w-full items-center gap-1.5 px-2 text-left hover:bg-hover", file.path === current && "bg-accent-soft")}
              style={{ paddingLeft: 8 + depth * 12 }}
            >
              <span className={cx("w-3.5 shrink-0 text-center text-xs font-semibold", m.tone)} aria-label={file.status}>
                {m.mark}
              </span>
              <span className="min-w-0 flex-1 truncate text-[13px]">{visibleName(name)}</span>
              <Lines added={file.additions} removed={file.deletions} />
            </button>
          </li>
        );
      })}
    </ul>
  );
}

function Closable({ folder, depth, current, choose }: { folder: Folder<Entry>; depth: number; current: string | undefined; choose(path: string): void }) {
  const [open, setOpen] = useState(true);
  return (
    <li>
      <button type="button" aria-expanded={open} onClick={() => setOpen(!open)} className="flex min-h-7 w-full items-center gap-1.5 px-2 text-left text-muted hover:bg-hover" style={{ paddingLeft: 8 + depth * 12 }}>
        <ChevronRight className={cx("size-3.5 shrink-0 transition-transform", open && "rotate-90")} aria-hidden />
        <FolderIcon className="size-3.5 shrink-0" aria-hidden />
        <span className="truncate text-[13px]">{visibleName(folder.name)}</span>
      </button>
      {open && <Branch folder={folder} depth={depth + 1} current={current} choose={choose} />}
    </li>
  );
}

function One({ entry: e, patch, unified, line }: { entry: Entry; patch: string; unified: boolean; line: number | undefined }) {
  const p = e.patch;
  const large = p !== undefined && p.to - p.from > FILE_MAX;
  const sides = useMemo(() => (p && !p.binary && !large ? sidesOf(patch, p) : undefined), [p, patch, large]);
  const nothing = sides && !sides.old.length && !sides.new.length;
  return (
    <section aria-label={e.path} className="flex min-h-0 min-w-0 flex-1 flex-col">
      <header className="flex shrink-0 items-center gap-2 border-b border-line bg-sunken px-3 py-1 font-mono text-[13px]">
        <span className="min-w-0 flex-1 break-all">
          {e.oldPath && <span className="text-muted">{visibleName(e.oldPath)} → </span>}
          {visibleName(e.path)}
        </span>
        <Lines added={e.additions} removed={e.deletions} />
      </header>
      {!p ? (
        <Empty title="Its text is not here">The changes that are shown while the session runs are limited; look again when it has ended.</Empty>
      ) : p.binary ? (
        <Empty title="Not a text">{e.status === "deleted" ? "It was deleted." : "What is in it cannot be compared here."}</Empty>
      ) : large ? (
        <Empty title="Too large to be shown" action={<Button onClick={() => save([patch.slice(p.from, p.to)], `${e.path.split("/").at(-1)}.patch`, "text/x-diff")}>Download its changes</Button>}>
          {size(p.to - p.from)} of changes in one file.
        </Empty>
      ) : nothing ? (
        <Empty title="Only its name or mode is changed" />
      ) : (
        <Suspense fallback={<Skeleton rows={4} className="p-4" />}>
          <DiffView sides={sides!} name={e.path} unified={unified} line={line} />
        </Suspense>
      )}
    </section>
  );
}
