import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Keyboard, Link2, LogOut, MonitorSmartphone } from "lucide-react";
import { type ReactNode, useState } from "react";
import { loginQuery } from "@/api/auth";
import { orgQuery } from "@/api/catalog";
import { createLoginLink, endLogin, type LoginEntry, loginsKey, loginsQuery } from "@/api/logins";
import { useRights } from "@/api/rights";
import { openSheet } from "@/keys/registry";
import { roleName } from "@/places/keys/words";
import { ShownOnce } from "@/places/keys/shown-once";
import { Page } from "@/shell/page";
import { THEMES } from "@/shell/parts";
import { useSignOut } from "@/shell/shell";
import { usePrefs } from "@/state/prefs";
import { Badge } from "@/ui/badge";
import { Button } from "@/ui/button";
import { Confirm } from "@/ui/confirm";
import { cx } from "@/ui/cx";
import { Check } from "@/ui/field";
import { ErrorBox, Skeleton } from "@/ui/states";
import { Time } from "@/ui/time";
import { toast } from "@/ui/toast";
import { agentText } from "./agent";

export function Settings() {
  return (
    <Page title="Settings">
      <div className="max-w-3xl space-y-8">
        <Appearance />
        <Person />
        <Logins />
      </div>
    </Page>
  );
}

function Section({ title, hint, action, children }: { title: string; hint?: string; action?: ReactNode; children: ReactNode }) {
  return (
    <section aria-label={title}>
      <header className="mb-2 flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-0 flex-1 basis-64">
          <h2 className="font-semibold">{title}</h2>
          {hint && <p className="text-[13px] text-muted">{hint}</p>}
        </div>
        {action}
      </header>
      <div className="rounded-lg border border-line bg-panel">{children}</div>
    </section>
  );
}

function Appearance() {
  const { theme, setTheme, letters, setLetters } = usePrefs();
  return (
    <Section title="This browser" hint="Kept in this browser only.">
      <div className="space-y-4 p-4">
        <fieldset>
          <legend className="mb-2 text-[13px] font-medium text-muted">Colours</legend>
          <div className="flex flex-wrap gap-2">
            {THEMES.map((t) => (
              <label key={t.value} className={cx("flex h-9 cursor-pointer items-center gap-2 rounded-md border px-3 has-focus-visible:outline-2 has-focus-visible:outline-offset-2 has-focus-visible:outline-accent", theme === t.value ? "border-accent text-accent" : "border-line-strong/60")}>
                <input type="radio" name="theme" value={t.value} checked={theme === t.value} onChange={() => setTheme(t.value)} className="accent-(--accent-fill)" />
                {t.label}
              </label>
            ))}
          </div>
        </fieldset>
        <div className="flex flex-wrap items-start gap-x-4 gap-y-2">
          <Check className="min-w-0 flex-1 basis-64" label="Keys without Ctrl or ⌘" checked={letters} onChange={(e) => setLetters(e.target.checked)} hint="One letter does something, such as j and k in lists. Ctrl K or ⌘ K works always." />
          <Button size="small" icon={<Keyboard className="size-3.5" aria-hidden />} onClick={() => openSheet()}>
            All keys
          </Button>
        </div>
      </div>
    </Section>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="gap-x-4 border-b border-line px-4 py-2.5 last:border-0 sm:grid sm:grid-cols-[11rem_1fr]">
      <dt className="text-muted">{name}</dt>
      <dd className="min-w-0 break-all">{children}</dd>
    </div>
  );
}

const LIMITS: Record<string, { name: string; unit: string }> = {
  maxSessionsPerOrg: { name: "Sessions at once", unit: "" },
  defaultTimeoutMinutes: { name: "A session may run", unit: " min unless it says otherwise" },
  maxTimeoutMinutes: { name: "Longest session", unit: " min" },
  maxQueueMinutes: { name: "Waits for a worker", unit: " min at most" },
  approvalTimeoutMinutes: { name: "A gate waits", unit: " min, then it is denied" },
};

function Person() {
  const { user } = useRights();
  const org = useQuery(orgQuery);
  const login = useQuery(loginQuery);
  const role = user?.role === "platform_admin" ? "Administrator of this server" : roleName(user?.role);
  return (
    <Section title="Who you are here" hint="A browser acts as the key that it signed in with.">
      <dl>
        <Fact name="Name">{user?.name}</Fact>
        <Fact name="Role">{role}</Fact>
        <Fact name="Organisation">
          <span className="font-mono text-[13px]">{user?.orgId}</span>
        </Fact>
        {login.data?.expires && (
          <Fact name="Signed in until">
            <Time at={login.data.expires} /> <span className="text-muted">unless you come back before</span>
          </Fact>
        )}
        {Object.entries(LIMITS).map(([key, { name, unit }]) => {
          const value = org.data?.limits[key];
          if (typeof value !== "number") return null;
          return (
            <Fact key={key} name={name}>
              {key === "maxSessionsPerOrg" && value === 0 ? "no limit" : `${value.toLocaleString()}${unit}`}
            </Fact>
          );
        })}
      </dl>
      {org.isError && !org.data && <ErrorBox error={org.error} retry={() => void org.refetch()} className="m-4" />}
    </Section>
  );
}

function Logins() {
  const queries = useQueryClient();
  const { admin } = useRights();
  const out = useSignOut();
  const logins = useQuery({ ...loginsQuery, refetchInterval: 15_000 });
  const [others, askOthers] = useState(false);
  const read = () => queries.invalidateQueries({ queryKey: loginsKey });
  const link = useMutation({ mutationFn: createLoginLink, gcTime: 0 });
  const end = useMutation({
    mutationFn: (l: LoginEntry) => endLogin(l.id),
    onSuccess: (_, l) => toast(`${agentText(l.userAgent)} is signed out.`),
    onSettled: read,
  });
  const elsewhere = logins.data?.filter((l) => !l.current) ?? [];
  return (
    <Section
      title="Where you are signed in"
      hint="Every browser that signed in with the key that you use here."
      action={
        <>
          {admin && (
            <Button icon={<Link2 className="size-4" aria-hidden />} busy={link.isPending} onClick={() => link.mutate()}>
              Sign-in link
            </Button>
          )}
          {elsewhere.length > 0 && (
            <Button kind="danger" onClick={() => askOthers(true)}>
              Sign out everywhere else
            </Button>
          )}
        </>
      }
    >
      {logins.isError && !logins.data ? (
        <ErrorBox error={logins.error} retry={() => void logins.refetch()} className="m-4" />
      ) : !logins.data ? (
        <Skeleton rows={2} className="p-4" />
      ) : (
        <ul aria-label="Logins">
          {logins.data.map((l) => (
            <li key={l.id} className="flex min-h-13 flex-wrap items-center gap-x-3 gap-y-1 border-b border-line px-4 py-2 last:border-0">
              <MonitorSmartphone className="size-4 shrink-0 text-muted" aria-hidden />
              <span className="min-w-0 flex-1 basis-48">
                <span className="font-medium break-words" title={l.userAgent}>
                  {agentText(l.userAgent)}
                </span>
                <span className="block text-[13px] text-muted">
                  signed in <Time at={l.created} /> · used <Time at={l.lastUsed} />
                </span>
              </span>
              {l.current ? (
                <>
                  <Badge tone="accent">This browser</Badge>
                  <Button size="small" icon={<LogOut className="size-3.5" aria-hidden />} onClick={() => void out()}>
                    Sign out
                  </Button>
                </>
              ) : (
                <Button size="small" kind="danger" busy={end.isPending && end.variables.id === l.id} onClick={() => end.mutate(l)} aria-label={`Sign out ${agentText(l.userAgent)}`}>
                  Sign out
                </Button>
              )}
            </li>
          ))}
        </ul>
      )}
      {end.isError && <ErrorBox error={end.error} className="m-4" />}
      {link.isError && <ErrorBox error={link.error} className="m-4" />}
      {link.data && (
        <ShownOnce title="A sign-in link" label="Link" secret={link.data.url} close={() => link.reset()}>
          <p className="mt-3 text-muted">
            Whoever opens it is signed in as the administrator of this server, once. It ends <Time at={link.data.expires_at} />.
          </p>
        </ShownOnce>
      )}
      <Confirm
        open={others}
        close={() => askOthers(false)}
        title="Sign out everywhere else?"
        does={elsewhere.length === 1 ? "Sign out the other one" : `Sign out the ${elsewhere.length} others`}
        act={async () => {
          // The server has no single call for it; one that went by itself meanwhile is as good.
          const ends = await Promise.allSettled(elsewhere.map((l) => endLogin(l.id)));
          await read();
          const failed = ends.find((e): e is PromiseRejectedResult => e.status === "rejected" && e.reason?.status !== 404);
          if (failed) throw failed.reason;
        }}
        done={() => toast("Only this browser is signed in now.")}
      >
        <p>The key stays valid: whoever has it can sign in again. To shut somebody out, revoke the key.</p>
      </Confirm>
    </Section>
  );
}
