import { Link } from "@tanstack/react-router";
import { Gauge } from "lucide-react";
import type { ReactNode } from "react";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { duration } from "@/ui/time-format";
import { useNow } from "@/ui/clock";
import type { TabProps } from "./session";
import { useFacts } from "./use-facts";

const money = (n: number) => n.toLocaleString(undefined, { style: "currency", currency: "USD", maximumFractionDigits: n < 1 ? 4 : 2 });

/** What it took: tokens, money, time; all of it and turn by turn. */
export default function UsageTab({ session: s, log, shownNow }: TabProps & { shownNow: boolean }) {
  const { facts, whole, error, retry } = useFacts(s.sessionId, log, shownNow);
  const now = useNow(5_000);
  const u = s.usage;
  const turns = facts?.turns ?? [];
  const priced = turns.some((t) => t.cost);
  return (
    <div className="min-h-0 flex-1 space-y-5 overflow-y-auto p-4">
      <dl className="grid grid-cols-2 gap-3 sm:grid-cols-3">
        <Figure name="Tokens read" value={u.tokensIn.toLocaleString()} />
        <Figure name="Tokens written" value={u.tokensOut.toLocaleString()} />
        <Figure name="Calls of the model" value={u.apiCalls.toLocaleString()} />
        <Figure name="Computing time" value={duration(u.computeSeconds * 1000)} />
        <Figure name="Time so far" value={duration(s.durationSeconds * 1000)} />
        <Figure name="Cost, as the agent tells it" value={facts?.cost ? money(facts.cost) : "not told"} />
      </dl>
      <section>
        <h2 className="mb-1 font-semibold">Turn by turn</h2>
        {error ? (
          <ErrorBox error={error} retry={retry} />
        ) : !facts ? (
          <Skeleton rows={3} />
        ) : turns.length === 0 ? (
          <Empty icon={<Gauge className="size-8" aria-hidden />} title={s.mode === "interactive" ? "No turn yet" : "A task is one turn"}>
            {s.mode === "interactive" ? "Each prompt is one." : "The figures above are all of it."}
          </Empty>
        ) : (
          <div className="overflow-x-auto rounded-lg border border-line" tabIndex={0} role="group" aria-label="Turns">
            <table className="w-full text-[13px] tabular-nums [&_td]:px-3 [&_td]:py-1.5 [&_th]:px-3 [&_th]:py-1.5 [&_th]:text-left [&_th]:font-medium [&_th]:text-muted">
              <thead className="border-b border-line bg-sunken">
                <tr>
                  <th scope="col">Turn</th>
                  <th scope="col">Began</th>
                  <th scope="col">Took</th>
                  <th scope="col">Waited for people</th>
                  <th scope="col">Tools</th>
                  {priced && <th scope="col">Cost</th>}
                  <th scope="col">Ended</th>
                </tr>
              </thead>
              <tbody className="divide-y divide-line">
                {turns.map((t) => (
                  <tr key={t.promptId}>
                    <td>
                      <Link to="/sessions/$id" params={{ id: s.sessionId }} search={(old: object) => old} hash={`event-${t.seq}`} className="text-accent underline underline-offset-2">
                        {t.name.replace("Turn ", "")}
                      </Link>
                    </td>
                    <td>
                      <Time at={new Date(t.from).toISOString()} />
                    </td>
                    <td>{duration((t.to ?? now) - t.from)}</td>
                    <td>{t.waited ? duration(t.waited) : "–"}</td>
                    <td>{t.tools}</td>
                    {priced && <td>{t.cost === undefined ? "–" : money(t.cost)}</td>}
                    <td>{t.state}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        {!whole && <p className="mt-1 text-[13px] text-muted">The log is very long: only its beginning is counted turn by turn.</p>}
      </section>
    </div>
  );
}

const Figure = ({ name, value }: { name: string; value: ReactNode }) => (
  <div className="rounded-lg border border-line bg-bg px-3 py-2">
    <dt className="text-[13px] text-muted">{name}</dt>
    <dd className="mt-0.5 text-lg font-semibold tabular-nums">{value}</dd>
  </div>
);
