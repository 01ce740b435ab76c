import { MergeView, unifiedMergeView } from "@codemirror/merge";
import { EditorState, type Extension } from "@codemirror/state";
import { EditorView, highlightSpecialChars, lineNumbers } from "@codemirror/view";
import { useEffect, useRef } from "react";
import type { Sides } from "./patch";

const theme = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--panel)", fontSize: "13px" },
  "&.cm-focused": { outline: "none" },
  ".cm-content": { fontFamily: "var(--font-mono, ui-monospace, Menlo, Consolas, 'Liberation Mono', monospace)", lineHeight: "1.5" },
  ".cm-content:focus-visible": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-gutters": { backgroundColor: "var(--sunken)", color: "var(--muted)", borderRight: "1px solid var(--line)" },
  ".cm-specialChar": { color: "var(--bad)", backgroundColor: "var(--bad-soft)" },
  "&.cm-merge-a .cm-changedLine, .cm-deletedChunk, .cm-deletedLine": { backgroundColor: "var(--bad-soft)" },
  "&.cm-merge-b .cm-changedLine, .cm-insertedLine": { backgroundColor: "var(--ok-soft)" },
  "&.cm-merge-a .cm-changedText, .cm-deletedChunk .cm-deletedText": { background: "none", textDecoration: "underline", textDecorationColor: "var(--bad)", textDecorationThickness: "2px" },
  "&.cm-merge-b .cm-changedText": { background: "none", textDecoration: "underline", textDecorationColor: "var(--ok)", textDecorationThickness: "2px" },
  ".cm-deletedChunk del": { textDecoration: "none" },
  ".cm-changeGutter": { width: "3px", paddingLeft: "0" },
});

const common = (label: string, numbers: number[]): Extension => [
  theme,
  EditorState.readOnly.of(true),
  EditorView.editable.of(false),
  EditorView.contentAttributes.of({ tabindex: "0", "aria-label": label }),
  highlightSpecialChars(),
  lineNumbers({ formatNumber: (n) => (numbers[n - 1] ? String(numbers[n - 1]) : "") }),
];

const whole = (color: string) => EditorView.theme({ ".cm-line": { backgroundColor: color } });

/** Before and after of one file. It lives in a shadow root, where its styles may be constructed sheets. */
export default function DiffView({ sides, name, unified, line }: { sides: Sides; name: string; unified: boolean; line: number | undefined }) {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const el = host.current!;
    const root = el.shadowRoot ?? el.attachShadow({ mode: "open" });
    const box = document.createElement("div");
    root.append(box);
    const [before, after] = [sides.old.join("\n"), sides.new.join("\n")];
    const diffConfig = { scanLimit: 2000, timeout: 400 };
    let shown: EditorView;
    let end: () => void;
    if (!sides.old.length || !sides.new.length) {
      // A file that came or went has one side.
      const came = !sides.old.length;
      shown = new EditorView({
        root,
        parent: box,
        doc: came ? after : before,
        extensions: [common(`${name}, ${came ? "added" : "deleted"}`, came ? sides.newNumbers : sides.oldNumbers), EditorView.lineWrapping, whole(came ? "var(--ok-soft)" : "var(--bad-soft)")],
      });
      end = () => shown.destroy();
    } else if (unified) {
      shown = new EditorView({
        root,
        parent: box,
        doc: after,
        extensions: [common(`${name}, changes`, sides.newNumbers), EditorView.lineWrapping, unifiedMergeView({ original: before, mergeControls: false, highlightChanges: true, gutter: true, diffConfig, syntaxHighlightDeletions: false })],
      });
      end = () => shown.destroy();
    } else {
      const merge = new MergeView({
        root,
        parent: box,
        a: { doc: before, extensions: [common(`${name}, before`, sides.oldNumbers), EditorView.lineWrapping] },
        b: { doc: after, extensions: [common(`${name}, after`, sides.newNumbers), EditorView.lineWrapping] },
        highlightChanges: true,
        gutter: true,
        diffConfig,
      });
      shown = merge.b;
      end = () => merge.destroy();
    }
    const at = line ? sides.newNumbers.indexOf(line) : -1;
    if (at >= 0) {
      const place = shown.state.doc.line(at + 1).from;
      shown.dispatch({ selection: { anchor: place }, effects: EditorView.scrollIntoView(place, { y: "center" }) });
    }
    return () => {
      end();
      box.remove();
    };
  }, [sides, name, unified, line]);
  return <div ref={host} className="min-h-0 flex-1 overflow-auto" />;
}
