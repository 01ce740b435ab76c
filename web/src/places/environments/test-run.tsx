import { useMutation } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { inputLimits } from "@/api/limits-of";
import { createRun } from "@/api/runs";
import type { Environment } from "@/api/types";
import { RunWatch } from "@/places/runs/watch";
import { readDraft, writeDraft } from "@/state/drafts";
import { Button } from "@/ui/button";
import { Dialog } from "@/ui/dialog";
import { fieldErrors } from "@/ui/field-errors";
import { TextArea } from "@/ui/field";
import { Empty, ErrorBox } from "@/ui/states";
import { TEST_SCRIPT } from "./script";

/** A run of the shell agent in the environment, watched in place: nothing but what a real run finds. */
export function TestEnvironment({ environment: e, run, close, started, again }: { environment: Environment | undefined; run?: string; close(): void; started(run: string): void; again(): void }) {
  const draftAt = `/environments?test=${e?.environment_id ?? ""}`;
  const [script, put] = useState(() => readDraft(draftAt, "script") || TEST_SCRIPT);
  const setScript = (text: string) => {
    put(text);
    writeDraft(draftAt, "script", text === TEST_SCRIPT ? "" : text);
  };
  const key = useRef({ body: "", key: "" });
  const start = useMutation({
    mutationFn: () => {
      if (key.current.body !== script) key.current = { body: script, key: crypto.randomUUID() };
      return createRun({ title: `Test of ${e!.name}`.slice(0, 200), prompt: script, config: { environment_id: e!.environment_id, harness: "shell" } }, key.current.key);
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
      title={e ? `Test ${e.name}` : "Test"}
      description="A script runs as an agent would: in this environment's sandbox, after its set-up, with its variables."
      actions={
        e && !run ? (
          <>
            {script !== TEST_SCRIPT && (
              <Button kind="quiet" className="mr-auto" onClick={() => setScript(TEST_SCRIPT)}>
                The usual script
              </Button>
            )}
            <Button onClick={close}>Close</Button>
            <Button kind="primary" busy={start.isPending} disabled={!script.trim()} onClick={() => start.mutate()}>
              {start.isPending ? "Starting…" : "Run the test"}
            </Button>
          </>
        ) : undefined
      }
    >
      {!e ? (
        <Empty title="This environment does not exist">It may have been deleted.</Empty>
      ) : run ? (
        <RunWatch key={run} id={run} again={again} />
      ) : (
        <>
          <TextArea label="Script" code rows={8} value={script} spellCheck={false} maxLength={inputLimits("createRun", "prompt").maxLength} onChange={(ev) => setScript(ev.target.value)} error={errors.at("prompt")} />
          {start.isError && errors.elsewhere && <ErrorBox error={start.error} className="mt-3" />}
        </>
      )}
    </Dialog>
  );
}
