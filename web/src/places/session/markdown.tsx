import { memo } from "react";
import Markdown, { type Components } from "react-markdown";
import gfm from "remark-gfm";
import { visible } from "@/ui/text";

const WEB = /^https?:\/\//i;
const text = (children: unknown): string => (Array.isArray(children) ? children.map(text).join("") : typeof children === "string" ? children : "");

// No HTML of an agent gets through, no picture is fetched, and a link shows where it leads.
const PARTS: Components = {
  a: ({ href, children }) =>
    href && WEB.test(href) ? (
      <a href={href} title={href} target="_blank" rel="noopener noreferrer nofollow" className="text-accent underline underline-offset-2">
        {children}
      </a>
    ) : (
      <span>
        {children}
        {href ? <span className="text-muted"> ({href})</span> : null}
      </span>
    ),
  img: ({ src, alt }) => (
    <span className="text-muted">
      [picture {alt}: {String(src ?? "")}]
    </span>
  ),
  pre: ({ children }) => (
    <pre tabIndex={0} className="my-2 max-h-96 overflow-auto rounded-md border border-line bg-sunken px-3 py-2 font-mono text-[13px] leading-relaxed">
      {children}
    </pre>
  ),
  code: ({ children, className }) => <code className={className ? "font-mono" : "rounded bg-sunken px-1 py-0.5 font-mono text-[0.92em] break-words [pre_&]:bg-transparent [pre_&]:p-0"}>{visible(text(children))}</code>,
  table: ({ children }) => (
    <div className="my-2 overflow-x-auto" tabIndex={0} role="group" aria-label="Table">
      <table className="border-collapse [&_td]:border [&_td]:border-line [&_td]:px-2 [&_td]:py-1 [&_th]:border [&_th]:border-line [&_th]:bg-sunken [&_th]:px-2 [&_th]:py-1 [&_th]:text-left">{children}</table>
    </div>
  ),
  input: ({ checked }) => <span aria-label={checked ? "done" : "open"}>{checked ? "☑ " : "☐ "}</span>,
  // The page has its own headings.
  h1: ({ children }) => <p className="mt-3 mb-1 text-base font-semibold">{children}</p>,
  h2: ({ children }) => <p className="mt-3 mb-1 text-base font-semibold">{children}</p>,
  h3: ({ children }) => <p className="mt-2 mb-1 font-semibold">{children}</p>,
  h4: ({ children }) => <p className="mt-2 mb-1 font-semibold">{children}</p>,
  h5: ({ children }) => <p className="mt-2 mb-1 font-semibold">{children}</p>,
  h6: ({ children }) => <p className="mt-2 mb-1 font-semibold">{children}</p>,
};
const PLUGINS = [gfm];

export const Words = memo(function Words({ text }: { text: string }) {
  return (
    <div className="space-y-2 break-words [&_blockquote]:border-l-2 [&_blockquote]:border-line [&_blockquote]:pl-3 [&_blockquote]:text-muted [&_li]:my-0.5 [&_ol]:list-decimal [&_ol]:pl-6 [&_ul]:list-disc [&_ul]:pl-6">
      <Markdown remarkPlugins={PLUGINS} components={PARTS}>
        {text}
      </Markdown>
    </div>
  );
});
