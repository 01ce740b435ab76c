import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Plug } from "lucide-react";
import { providersQuery } from "@/api/catalog";
import { useRights } from "@/api/rights";
import { Page } from "@/shell/page";
import { Badge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { AskProvider } from "./ask";
import { canBeAsked, healthOf, type Provider, TYPES, used, windowText } from "./health";
import type { ProviderSearch } from "./search";

export function Providers() {
  const search = useSearch({ from: "/providers" });
  const navigate = useNavigate();
  const rights = useRights();
  // Quota and breaker have no event: they are read again every few seconds while they are looked at.
  const list = useQuery({ ...providersQuery, refetchInterval: 3_000 });
  const providers = list.data?.providers;
  const go = (to: ProviderSearch, replace = false) => void navigate({ to: "/providers", search: to, replace });
  return (
    <Page title="Providers">
      {list.isError && !providers ? (
        <ErrorBox error={list.error} retry={() => void list.refetch()} />
      ) : !providers ? (
        <Skeleton rows={4} />
      ) : providers.length === 0 ? (
        <Empty icon={<Plug className="size-8" aria-hidden />} title="No provider that you may use">
          A provider answers runs without an environment. Whoever runs this server sets one up with{" "}
          <code className="font-mono text-[13px] text-text">
            OZ_PROVIDER_<wbr />
            CLAUDE_<wbr />
            MODEL
          </code>{" "}
          and its key, and starts it again.
        </Empty>
      ) : (
        <ul aria-label="Providers" className="grid gap-3 lg:grid-cols-2">
          {providers.map((p) => (
            <Card key={p.key} provider={p} ask={rights.write && canBeAsked(p) ? () => go({ ask: p.key }) : undefined} />
          ))}
        </ul>
      )}
      {search.ask && rights.write && providers && (
        <AskProvider
          key={search.ask}
          provider={providers.find((p) => p.key === search.ask)}
          run={search.run}
          started={(run) => go({ ask: search.ask, run }, search.run !== undefined)}
          again={() => go({ ask: search.ask })}
          close={() => go({})}
        />
      )}
    </Page>
  );
}

function Card({ provider: p, ask }: { provider: Provider; ask?: () => void }) {
  const health = healthOf(p);
  const quota = used(p);
  return (
    <li className="flex flex-col rounded-lg border border-line bg-panel p-4">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <h2 className="min-w-0 font-semibold break-all">{p.key}</h2>
        <Badge tone={health.tone}>{health.text}</Badge>
        {ask && (
          <Button size="small" className="ml-auto" onClick={ask} aria-label={`Ask ${p.key}`}>
            Ask it
          </Button>
        )}
      </div>
      <p className="mt-1 text-[13px] text-muted">
        {TYPES[p.type] ?? p.type}
        {p.model && p.model !== p.key && (
          <>
            {" · "}
            <span className="font-mono break-all">{p.model}</span>
          </>
        )}
      </p>
      {p.discovered && <p className="mt-1 text-[13px] break-words text-muted">Found on the server{p.found ? `: ${p.found}` : ""}. Only the administrator's runs use it.</p>}
      {health.means && (
        <p className="mt-2 text-[13px]">
          {health.means}
          {health.until && (
            <>
              {" It is free again "}
              <Time at={health.until} />.
            </>
          )}
        </p>
      )}
      {quota && (
        <div className="mt-3">
          <div className="flex flex-wrap justify-between gap-x-2 text-[13px]">
            <span className="text-muted">Messages within {windowText(p.window_seconds ?? 0)}{p.quota_scope === "global" ? ", of everybody together" : ""}</span>
            <span className="tabular-nums">
              {quota.used} of {quota.limit}
            </span>
          </div>
          <div role="meter" aria-label={`Quota of ${p.key}`} aria-valuemin={0} aria-valuemax={100} aria-valuenow={quota.percent} aria-valuetext={`${quota.used} of ${quota.limit}`} className="mt-1 h-1.5 overflow-hidden rounded-full bg-quiet-soft">
            <div className={cx("h-full rounded-full", quota.left === 0 ? "bg-bad-fill" : "bg-accent-fill")} style={{ width: `${quota.percent}%` }} />
          </div>
          {p.resets_at && quota.left > 0 && (
            <p className="mt-1 text-xs text-muted">
              The next one is free again <Time at={p.resets_at} />
            </p>
          )}
        </div>
      )}
      <p className="mt-auto pt-3 text-[13px] text-muted tabular-nums">
        {p.running ?? 0} {p.max_parallel ? `of ${p.max_parallel} ` : ""}running
        {!quota && " · no quota"}
      </p>
    </li>
  );
}
