import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { ArrowLeft, Check } from "lucide-react";
import { Fragment, useEffect, useId, useRef, useState } from "react";
import { ApiError } from "@/api/client";
import { type Decision, gateKeys, resolveGate } from "@/api/gates";
import { sessionKeys } from "@/api/sessions";
import type { Approval } from "@/api/types";
import { useActions } from "@/keys/registry";
import { sessionLink } from "@/places/sessions/link";
import { readDraft, useDraft, writeDraft } from "@/state/drafts";
import { Badge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { ErrorBox } from "@/ui/states";
import { CodeText, visible, visibleName } from "@/ui/text";
import { Time } from "@/ui/time";
import { announce, toast } from "@/ui/toast";
import { exactOf, optionsOf, questionOf, takesSeveral } from "./exact";
import { Risk } from "./line";
import { ShareGate } from "./share";

const SEEN_MS = 400;
const DONE = { allow: "Allowed", deny: "Denied" };

/** What is short goes on a line beside its name; the command never does. */
const isLong = (e: { label: string; text: string }) => e.label === "command" || e.text.length > 80 || e.text.includes("\n");

interface Props {
  gate: Approval;
  /** It has taken the place of another by itself. */
  unasked?: boolean;
  back?(): void;
  next?(): void;
  /** In a conversation: as high as it is, and without what the page says already. */
  inline?: boolean;
  /** Whether a and d mean this one. */
  keys?: boolean;
}

export function GateCard({ gate, unasked = false, back, next, inline = false, keys = true }: Props) {
  const queries = useQueryClient();
  const id = useId();
  const draftAt = `/gates/${gate.approvalId}`;
  const [reason, setReason] = useDraft(draftAt, "reason");
  const [denying, deny] = useState(() => readDraft(draftAt, "reason") !== "");
  const field = useRef<HTMLTextAreaElement>(null);
  const votes = gate.votesNeeded ?? 0;
  const question = gate.kind === "question";
  const [answer, setAnswer] = useDraft(draftAt, "answer");
  const [chosen, choose] = useState<string[]>([]);
  const options = optionsOf(gate);
  const several = takesSeveral(gate);

  // Never optimistic: it counts only when the server has written it.
  const decide = useMutation({
    mutationFn: (decision: Decision) => resolveGate(gate, decision),
    onSuccess: (session, decision) => {
      const still = session.pendingApprovals.some((a) => a.approvalId === gate.approvalId);
      queries.setQueryData(sessionKeys.one(session.sessionId), session);
      void queries.invalidateQueries({ queryKey: gateKeys.all });
      void queries.invalidateQueries({ queryKey: sessionKeys.all });
      const said = question && decision.decision === "allow" ? "Answered" : DONE[decision.decision];
      const text = still ? "Your vote is recorded; one more person has to allow it." : `${said}: ${gate.description ?? questionOf(gate)}`;
      toast(text);
      announce(text);
      writeDraft(draftAt, "reason", "");
      writeDraft(draftAt, "answer", "");
      if (!still) next?.();
    },
    onError: (e) => {
      if (!(e instanceof ApiError) || (e.status !== 409 && e.status !== 404)) return;
      void queries.invalidateQueries({ queryKey: gateKeys.all });
      if (gate.sessionId) void queries.invalidateQueries({ queryKey: sessionKeys.one(gate.sessionId) });
    },
  });
  const busy = decide.isPending;
  // The second press on a key is meant for what was seen, not for what has just taken its place by itself.
  const since = useRef(unasked ? Date.now() : 0);
  useEffect(() => {
    if (keys && unasked) since.current = Date.now();
  }, [keys, unasked]);
  const say = (decision: Decision) => !busy && Date.now() - since.current >= SEEN_MS && decide.mutate(decision);
  const refuse = () => {
    if (denying) say({ decision: "deny", ...(reason.trim() ? { reason: reason.trim() } : {}) });
    else deny(true);
  };
  const own = answer.trim() ? [answer.trim()] : [];
  const answers = several || !own.length ? [...chosen, ...own] : own;
  const reply = () => answers.length > 0 && say({ decision: "allow", scope: "once", answer: { answers } });
  useEffect(() => {
    if (denying) field.current?.focus();
  }, [denying]);

  useActions(
    [
      ...(question
        ? []
        : [
            { id: "allow", label: "Allow once", group: "Gates", keys: "a", run: () => say({ decision: "allow", scope: "once" }) },
            { id: "allow session", label: "Allow for this session", group: "Gates", keys: "shift+a", run: () => say({ decision: "allow", scope: "session" }) },
          ]),
      { id: "deny", label: question ? "Dismiss the question" : "Deny with a reason", group: "Gates", keys: "d", run: () => deny(true) },
    ],
    keys,
  );

  const exact = exactOf(gate);
  const small = "md:h-8.5 md:px-3 md:text-sm";
  return (
    <article
      aria-label={questionOf(gate)}
      className={cx("flex flex-col", inline ? "overflow-hidden rounded-xl border border-warn-line bg-panel" : "h-full min-h-0 md:h-auto md:max-h-full md:rounded-xl md:border md:border-line md:bg-panel")}
    >
      <div className={inline ? "p-4" : "min-h-0 flex-1 overflow-y-auto pb-4 md:p-5"}>
        {back && (
          <Button kind="quiet" className="-ml-2 mb-1 md:hidden" onClick={back} icon={<ArrowLeft className="size-4" aria-hidden />}>
            All gates
          </Button>
        )}
        <div className="flex flex-wrap items-center gap-2">
          <h2 className={inline ? "font-semibold" : "text-lg font-semibold"}>{questionOf(gate)}</h2>
          {!question && <Risk risk={gate.risk} />}
          {votes > 1 && <Badge tone="info">{votes} people have to allow it</Badge>}
        </div>
        {gate.description && !exact.some((e) => e.text === gate.description) && <p className="mt-1 break-words whitespace-pre-wrap">{visible(gate.description)}</p>}
        <p className="mt-1 flex flex-wrap gap-x-3 text-[13px] text-muted">
          <span>
            Asked <Time at={gate.requestedAt} />
          </span>
          {gate.expiresAt && (
            <span>
              {question ? "Dismissed" : "Denied"} by itself <Time at={gate.expiresAt} />
            </span>
          )}
          {gate.sessionId && !inline && (
            <Link {...sessionLink(gate.sessionId)} className="text-accent underline underline-offset-2">
              Session
            </Link>
          )}
          <ShareGate gate={gate} />
        </p>
        <div className="mt-3 space-y-3">
          {exact.filter(isLong).map((e) => (
            <div key={e.label}>
              <p className="mb-1 text-xs text-muted">{e.label}</p>
              <CodeText text={e.text} label={e.label} />
            </div>
          ))}
          {exact.some((e) => !isLong(e)) && (
            <dl className="grid grid-cols-[auto_1fr] gap-x-4 gap-y-1 text-[13px]">
              {exact
                .filter((e) => !isLong(e))
                .map((e) => (
                  <Fragment key={e.label}>
                    <dt className="text-muted">{e.label}</dt>
                    <dd className="min-w-0 font-mono break-words">{visibleName(e.text)}</dd>
                  </Fragment>
                ))}
            </dl>
          )}
          {exact.length === 0 && !question && <p className="text-muted">The agent says no more than this.</p>}
        </div>
        {question && !denying && (
          <fieldset className="mt-3 space-y-2" disabled={busy}>
            <legend className={several ? "text-[13px] text-muted" : "sr-only"}>{several ? "Several may be chosen" : "Answer"}</legend>
            <div className="flex flex-wrap gap-2">
              {options.map((o) => {
                const on = chosen.includes(o);
                return (
                  <Button key={o} aria-pressed={on} className={cx("max-w-full", on && "border-accent! bg-accent-soft!")} icon={on ? <Check className="size-4" aria-hidden /> : undefined} onClick={() => choose(on ? chosen.filter((c) => c !== o) : several ? [...chosen, o] : [o])}>
                    <span className="truncate">{o}</span>
                  </Button>
                );
              })}
            </div>
            <label htmlFor={`${id}a`} className="block text-[13px] font-medium text-muted">
              {!options.length ? "Your answer" : several ? "And in your own words" : "Or in your own words, instead"}
            </label>
            <textarea id={`${id}a`} rows={2} maxLength={4000} value={answer} onChange={(e) => setAnswer(e.target.value)} className="field" onKeyDown={(e) => e.key === "Enter" && (e.metaKey || e.ctrlKey) && reply()} />
          </fieldset>
        )}
        {denying && (
          <div className="mt-4">
            <label htmlFor={`${id}r`} className="mb-1 block text-[13px] font-medium text-muted">
              Why not? The agent is told it.
            </label>
            <textarea id={`${id}r`} ref={field} rows={3} maxLength={2000} value={reason} onChange={(e) => setReason(e.target.value)} className="field" onKeyDown={(e) => e.key === "Enter" && (e.metaKey || e.ctrlKey) && refuse()} />
          </div>
        )}
        {decide.isError && <ErrorBox error={decide.error} className="mt-4" />}
      </div>
      <footer className={cx("shrink-0 border-t border-line py-3", inline ? "px-4" : "-mx-4 bg-bg px-4 md:mx-0 md:rounded-b-xl md:bg-panel md:px-5")}>
        <div className="grid grid-cols-2 gap-2 md:flex">
          {denying ? (
            <>
              <Button size="large" className={cx("order-1", small)} onClick={() => (deny(false), setReason(""))} disabled={busy}>
                Back
              </Button>
              <Button kind="danger" size="large" busy={busy} className={cx("order-2", small)} onClick={refuse}>
                {busy ? "Denying…" : question ? "Dismiss the question" : reason.trim() ? "Deny with this reason" : "Deny"}
              </Button>
            </>
          ) : question ? (
            <>
              <Button size="large" className={cx("md:order-2", small)} onClick={refuse} disabled={busy}>
                Dismiss…
              </Button>
              <Button kind="allow" size="large" busy={busy} disabled={!answers.length} className={cx("md:order-1", small)} onClick={reply}>
                {busy ? "Answering…" : "Answer"}
              </Button>
            </>
          ) : (
            <>
              <Button kind="danger" size="large" className={cx("md:order-3", small)} onClick={refuse} disabled={busy}>
                Deny…
              </Button>
              <Button kind="allow" size="large" busy={busy} className={cx("md:order-1", small)} onClick={() => say({ decision: "allow", scope: "once" })}>
                {busy ? "Deciding…" : "Allow once"}
              </Button>
              <Button className="col-span-2 h-10 md:order-2 md:h-8.5" onClick={() => say({ decision: "allow", scope: "session" })} disabled={busy}>
                Allow for this session
              </Button>
            </>
          )}
        </div>
      </footer>
    </article>
  );
}
