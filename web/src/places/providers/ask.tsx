import { useMutation } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { inputLimits } from "@/api/limits-of";
import { createRun } from "@/api/runs";
import { RunWatch } from "@/places/runs/watch";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { TextArea } from "@/ui/field";
import { fieldErrors } from "@/ui/field-errors";
import { Empty, ErrorBox } from "@/ui/states";
import type { Provider } from "./health";

/** A real run with its model; who answered, and who was tried before, is told by the run. */
export function AskProvider({ provider: p, run, started, again, close }: { provider: Provider | undefined; run?: string; started(run: string): void; again(): void; close(): void }) {
  const shell = p?.type === "shell";
  const [text, setText] = useState(shell ? "echo ready; uname -srm" : "Answer with the single word: ready");
  const key = useRef({ body: "", key: "" });
  const start = useMutation({
    mutationFn: () => {
      if (key.current.body !== text) key.current = { body: text, key: crypto.randomUUID() };
      return createRun({ title: `Test of ${p!.key}`.slice(0, 200), prompt: text, config: { model_id: p!.key } }, key.current.key);
    },
    onSuccess: (made) => {
      key.current = { body: "", key: "" };
      started(made.run_id);
    },
  });
  const errors = fieldErrors(start.error, ["prompt"]);
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && close()}
      side="right"
      title={p ? `Ask ${p.key}` : "Ask"}
      description={
        shell
          ? "A script on the server itself, as a run of the administrator's."
          : `A run for which it is asked first${p?.limit ? "; it counts as one message of its quota" : ""}. When it cannot answer, the next provider of the order does.`
      }
      actions={
        p && !run ? (
          <>
            <Button onClick={close}>Close</Button>
            <Button kind="primary" busy={start.isPending} disabled={!text.trim()} onClick={() => start.mutate()}>
              {start.isPending ? "Asking…" : "Ask"}
            </Button>
          </>
        ) : undefined
      }
    >
      {!p ? (
        <Empty title="This provider does not exist">It may have been taken out of the server's settings.</Empty>
      ) : run ? (
        <RunWatch key={run} id={run} again={again} />
      ) : (
        <>
          <TextArea label={shell ? "Script" : "Question"} code={shell} rows={3} value={text} maxLength={inputLimits("createRun", "prompt").maxLength} onChange={(e) => setText(e.target.value)} error={errors.at("prompt")} />
          {start.isError && errors.elsewhere && <ErrorBox error={start.error} className="mt-3" />}
        </>
      )}
    </Dialog>
  );
}
