import { useQuery } from "@tanstack/react-query";
import { Download, ExternalLink, Eye, FileText } from "lucide-react";
import { useEffect, useState } from "react";
import { isEnded } from "@/api/sessions";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { CodeText, visible, visibleName } from "@/ui/text";
import { Time } from "@/ui/time";
import { artifactsQuery, fileAddress, filesQuery } from "./calls";
import { size } from "./conversation";
import type { TabProps } from "./session";

const TEXT_MAX = 256 * 1024;
const IMAGE_MAX = 10 * 1024 * 1024;
const IMAGES = /^image\/(png|jpeg|gif|webp|avif|bmp)$/;
const isText = (type: string) => /^text\/|^application\/(json|xml|x-sh|javascript|toml|yaml|x-ndjson)/.test(type);

interface File {
  name: string;
  bytes: number;
  media_type: string;
  created_at?: string;
}

/** What the session leaves behind: links that it made, and files. */
export default function FilesTab({ session: s }: TabProps & { shownNow: boolean }) {
  const id = s.sessionId;
  const files = useQuery(filesQuery(id));
  const artifacts = useQuery(artifactsQuery(id));
  const [shown, show] = useState<File | null>(null);
  if (files.isPending || artifacts.isPending) return <Skeleton rows={3} className="p-4" />;
  const list = files.data?.files ?? [];
  const links = (artifacts.data?.artifacts ?? []).map((a) => ({ type: String(a.artifact_type ?? "artifact"), data: (a.data ?? {}) as Record<string, unknown> }));
  if (!list.length && !links.length && !files.isError && !artifacts.isError) {
    return (
      <Empty icon={<FileText className="size-8" aria-hidden />} title="No files yet">
        {isEnded(s.state) ? "The session left none." : "What the agent puts into .oz/artifacts, its patch and its output are here when the session has ended; pull requests as soon as they are told."}
      </Empty>
    );
  }
  return (
    <div className="min-h-0 flex-1 space-y-4 overflow-y-auto p-4">
      {files.isError && <ErrorBox error={files.error} retry={() => void files.refetch()} />}
      {artifacts.isError && <ErrorBox error={artifacts.error} retry={() => void artifacts.refetch()} />}
      {links.length > 0 && (
        <section>
          <h2 className="mb-1 font-semibold">Artifacts</h2>
          <ul className="divide-y divide-line rounded-lg border border-line">
            {links.map((a, i) => {
              const url = typeof a.data.url === "string" && /^https?:\/\//i.test(a.data.url) ? a.data.url : undefined;
              return (
                <li key={i} className="flex items-center gap-3 px-3 py-2">
                  <span className="min-w-0 flex-1">
                    <span className="font-medium">{{ PULL_REQUEST: "Pull request", PLAN: "Plan" }[a.type] ?? a.type}</span>
                    <span className="block text-[13px] break-all text-muted">{visible(String(a.data.title ?? a.data.url ?? JSON.stringify(a.data)))}</span>
                  </span>
                  {url && (
                    <a href={url} target="_blank" rel="noopener noreferrer nofollow" className="inline-flex items-center gap-1 text-accent underline underline-offset-2">
                      Open <ExternalLink className="size-3.5" aria-hidden />
                    </a>
                  )}
                </li>
              );
            })}
          </ul>
        </section>
      )}
      {list.length > 0 && (
        <section>
          <h2 className="mb-1 font-semibold">Files</h2>
          <ul className="divide-y divide-line rounded-lg border border-line">
            {list.map((f) => (
              <li key={f.name} className="flex items-center gap-3 px-3 py-2">
                <span className="min-w-0 flex-1">
                  <span className="font-mono text-[13px] break-all">{visibleName(f.name)}</span>
                  <span className="block text-[13px] text-muted">
                    {size(f.bytes)} · {f.media_type.split(";")[0]} · <Time at={f.created_at} />
                  </span>
                </span>
                {(isText(f.media_type) || IMAGES.test(f.media_type)) && (
                  <Button size="small" onClick={() => show(f)} icon={<Eye className="size-3.5" aria-hidden />} aria-label={`Look at ${f.name}`}>
                    Look
                  </Button>
                )}
                <a href={fileAddress(id, f.name)} download={f.name} className="inline-flex size-8 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text" aria-label={`Download ${f.name}`} title="Download">
                  <Download className="size-4" aria-hidden />
                </a>
              </li>
            ))}
          </ul>
        </section>
      )}
      {shown && <Preview id={id} file={shown} close={() => show(null)} />}
    </div>
  );
}

function Preview({ id, file: f, close }: { id: string; file: File; close(): void }) {
  const image = IMAGES.test(f.media_type);
  const got = useQuery({
    queryKey: ["preview", id, f.name, f.bytes],
    gcTime: 30_000,
    queryFn: async ({ signal }) => {
      if (image && f.bytes > IMAGE_MAX) throw new Error("This picture is too large to be shown; download it.");
      const answer = await fetch(fileAddress(id, f.name), { credentials: "same-origin", signal, headers: image || f.bytes <= TEXT_MAX ? {} : { Range: `bytes=0-${TEXT_MAX - 1}` } });
      if (!answer.ok) throw new Error(`The file cannot be read (${answer.status}).`);
      return image ? new Blob([await answer.arrayBuffer()], { type: f.media_type }) : (await answer.text()).slice(0, TEXT_MAX);
    },
  });
  const [url, setUrl] = useState<string>();
  const [broken, setBroken] = useState(false);
  useEffect(() => {
    if (!(got.data instanceof Blob)) return;
    const made = URL.createObjectURL(got.data);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [got.data]);
  return (
    <Dialog open onOpenChange={close} title={f.name} description={`${size(f.bytes)}${!image && f.bytes > TEXT_MAX ? `, of which the first ${size(TEXT_MAX)} are shown` : ""}`}>
      {got.isError ? (
        <ErrorBox error={got.error} retry={() => void got.refetch()} />
      ) : got.isPending ? (
        <Skeleton rows={3} />
      ) : broken ? (
        <p className="text-muted">This is no picture that a browser can show.</p>
      ) : image ? (
        url && <img src={url} alt={f.name} className="max-h-[60dvh] max-w-full" onError={() => setBroken(true)} />
      ) : (
        <CodeText text={got.data as string} label={f.name} className="max-h-[60dvh]!" />
      )}
    </Dialog>
  );
}
