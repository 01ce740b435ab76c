import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { KeyRound, Plus, Server } from "lucide-react";
import { type ReactNode, useState } from "react";
import { type Enrolment, enrolmentsQuery, type Key, keyKeys, keysQuery, revokeEnrolment, revokeKey } from "@/api/keys";
import { useRights } from "@/api/rights";
import { useActions } from "@/keys/registry";
import { Page } from "@/shell/page";
import { Badge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { useNow } from "@/ui/clock";
import { Confirm } from "@/ui/confirm";
import { Paged } from "@/ui/paged";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { toast } from "@/ui/toast";
import { NewEnrolment } from "./new-enrolment";
import { NewKey } from "./new-key";
import type { KeySearch } from "./search";
import { roleName, stateOf } from "./words";

export function Keys() {
  const search = useSearch({ from: "/keys" });
  const navigate = useNavigate();
  const rights = useRights();
  const all = search.all === true;
  const go = (part: KeySearch, replace = false) => void navigate({ to: "/keys", search: { ...(all ? { all: true as const } : {}), ...part }, replace });
  useActions(
    [
      ...(rights.admin ? [{ id: "key new", label: "New key", group: "Keys", keys: "n", icon: <KeyRound className="size-4" aria-hidden />, run: () => go({ new: "key" }) }] : []),
      { id: "enrolment new", label: "New enrolment token", group: "Keys", keys: "w", icon: <Server className="size-4" aria-hidden />, run: () => go({ new: "enrolment" }) },
    ],
    rights.orgAdmin,
  );
  if (!rights.orgAdmin) {
    return (
      <Page title="Keys">
        <Empty icon={<KeyRound className="size-8" aria-hidden />} title="Your key does not issue others">
          Whoever runs this server issues keys; an administrator of your organisation lets workers in.
        </Empty>
      </Page>
    );
  }
  return (
    <Page
      title="Keys"
      actions={
        <label className="flex items-center gap-2 text-[13px] text-muted">
          <input type="checkbox" className="size-4 accent-(--accent-fill)" checked={all} onChange={(e) => void navigate({ to: "/keys", search: e.target.checked ? { all: true } : {}, replace: true })} />
          Also what cannot be used any more
        </label>
      }
    >
      <div className="space-y-8">
        {rights.admin && <ApiKeys all={all} make={() => go({ new: "key" })} />}
        <Enrolments all={all} make={() => go({ new: "enrolment" })} />
      </div>
      {search.new === "key" && rights.admin && <NewKey close={() => go({})} />}
      {search.new === "enrolment" && <NewEnrolment admin={rights.admin} close={() => go({})} />}
    </Page>
  );
}

function Section({ title, hint, make, makeText, children }: { title: string; hint: string; make(): void; makeText: string; children: ReactNode }) {
  return (
    <section aria-label={title}>
      <header className="mb-2 flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-0 flex-1 basis-64">
          <h2 className="font-semibold">{title}</h2>
          <p className="text-[13px] text-muted">{hint}</p>
        </div>
        <Button icon={<Plus className="size-4" aria-hidden />} onClick={make}>
          {makeText}
        </Button>
      </header>
      {children}
    </section>
  );
}

const LIST = "overflow-hidden rounded-lg border border-line bg-panel";
const Nothing = ({ children }: { children: ReactNode }) => <p className="rounded-lg border border-dashed border-line px-4 py-6 text-center text-muted">{children}</p>;
const ROW = "flex min-h-13 flex-wrap items-center gap-x-3 gap-y-1 border-b border-line px-4 py-2 last:border-0";

function ApiKeys({ all, make }: { all: boolean; make(): void }) {
  const queries = useQueryClient();
  const keys = useQuery({ ...keysQuery, refetchInterval: 15_000 });
  const now = useNow(15_000);
  const [revoking, revoke] = useState<Key | null>(null);
  const items = keys.data?.filter((k) => all || stateOf(k, now) === "live");
  return (
    <Section title="API keys" hint="For people, programs and other servers; each acts for one organisation." make={make} makeText="New key">
      {keys.isError && !items ? (
        <ErrorBox error={keys.error} retry={() => void keys.refetch()} />
      ) : !items ? (
        <Skeleton rows={3} />
      ) : items.length === 0 ? (
        <Nothing>No key yet. Issue one for each person and each program, so that one can be revoked without the others.</Nothing>
      ) : (
        <Paged
          className={LIST}
          items={items}
          label="API keys"
          row={(k) => {
            const state = stateOf(k, now);
            return (
              <li key={k.id} className={ROW}>
                <span className="min-w-0 flex-1 basis-56">
                  <span className="font-medium break-words">{k.name}</span>
                  <span className="block text-[13px] break-words text-muted">
                    <span className="font-mono">{k.prefix}…</span>
                    {k.tenant !== k.name && ` · for ${k.tenant}`} · made <Time at={k.created_at} />
                  </span>
                </span>
                <span className="text-[13px] text-muted">
                  {k.last_used_at ? (
                    <>
                      used <Time at={k.last_used_at} />
                    </>
                  ) : (
                    "never used"
                  )}
                  {state === "live" && k.expires_at && (
                    <>
                      {" · ends "}
                      <Time at={k.expires_at} />
                    </>
                  )}
                </span>
                <span className="ml-auto flex items-center gap-3">
                  <Badge tone={k.role === "admin" ? "accent" : "quiet"}>{k.role === "admin" ? "Administrator" : roleName(k.role)}</Badge>
                  {state === "live" ? (
                    <Button size="small" kind="danger" onClick={() => revoke(k)} aria-label={`Revoke ${k.name}`}>
                      Revoke
                    </Button>
                  ) : (
                    <Badge tone="bad">{state === "revoked" ? "Revoked" : "Expired"}</Badge>
                  )}
                </span>
              </li>
            );
          }}
        />
      )}
      <Confirm
        open={revoking !== null}
        close={() => revoke(null)}
        title={`Revoke ${revoking?.name ?? ""}?`}
        does="Revoke"
        act={() => revokeKey(revoking!.id)}
        done={() => {
          toast(`${revoking!.name} is revoked.`);
          void queries.invalidateQueries({ queryKey: keyKeys.all });
        }}
      >
        <p>Whoever uses it is refused at once, browsers that signed in with it too. It cannot be made valid again.</p>
      </Confirm>
    </Section>
  );
}

const STATUS: Record<string, string> = { used: "Used up", expired: "Expired", revoked: "Revoked" };

function Enrolments({ all, make }: { all: boolean; make(): void }) {
  const queries = useQueryClient();
  const tokens = useQuery({ ...enrolmentsQuery(all), refetchInterval: 15_000, placeholderData: (before) => before });
  const { user } = useRights();
  const [revoking, revoke] = useState<Enrolment | null>(null);
  const nameOf = (e: Enrolment) => e.name || `${e.prefix}…`;
  return (
    <Section title="Enrolment tokens" hint="Each lets a worker of another machine in, which then has a credential of its own." make={make} makeText="New token">
      {tokens.isError && !tokens.data ? (
        <ErrorBox error={tokens.error} retry={() => void tokens.refetch()} />
      ) : !tokens.data ? (
        <Skeleton rows={2} />
      ) : tokens.data.length === 0 ? (
        <Nothing>No token that can be used. Make one, then start a worker with it on the machine that is to hold sandboxes.</Nothing>
      ) : (
        <Paged
          className={LIST}
          items={tokens.data}
          label="Enrolment tokens"
          row={(e) => (
            <li key={e.enrolmentId} className={ROW}>
              <span className="min-w-0 flex-1 basis-56">
                <span className="font-medium break-words">{nameOf(e)}</span>
                <span className="block text-[13px] break-words text-muted">
                  <span className="font-mono">{e.prefix}…</span>
                  {e.orgId && e.orgId !== user?.orgId && ` · for ${e.orgId}`} · made <Time at={e.createdAt} />
                </span>
              </span>
              <span className="text-[13px] text-muted">
                {e.lastUsedAt && (
                  <>
                    used <Time at={e.lastUsedAt} /> {" · "}
                  </>
                )}
                {e.usesLeft === 1 ? "one worker" : `${e.usesLeft} workers`} left
                {e.status === "active" && e.expiresAt && (
                  <>
                    {" · ends "}
                    <Time at={e.expiresAt} />
                  </>
                )}
              </span>
              <span className="ml-auto flex items-center gap-3">
                {e.shared && <Badge tone="accent">For everybody</Badge>}
                {e.status === "active" ? (
                  <Button size="small" kind="danger" onClick={() => revoke(e)} aria-label={`Revoke ${nameOf(e)}`}>
                    Revoke
                  </Button>
                ) : (
                  <Badge tone={e.status === "used" ? "quiet" : "bad"}>{STATUS[e.status] ?? e.status}</Badge>
                )}
              </span>
            </li>
          )}
        />
      )}
      <Confirm
        open={revoking !== null}
        close={() => revoke(null)}
        title={`Revoke ${revoking ? nameOf(revoking) : ""}?`}
        does="Revoke"
        act={() => revokeEnrolment(revoking!.enrolmentId)}
        done={() => {
          toast("The token is revoked.");
          void queries.invalidateQueries({ queryKey: keyKeys.enrolments });
        }}
      >
        <p>No worker enrols with it any more. Workers that did stay.</p>
      </Confirm>
    </Section>
  );
}
