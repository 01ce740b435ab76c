import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { type Login, sessionKey, signIn } from "@/api/auth";
import { ApiError } from "@/api/client";
import { Button } from "@/ui/button";
import { Field } from "@/ui/field";
import { ErrorBox } from "@/ui/states";
import { useTitle } from "./title";

/** Shown in the place of whatever was asked for: the address stays, and with it where one goes after signing in. */
export function SignIn({ failed }: { failed?: unknown }) {
  const queries = useQueryClient();
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(failed);
  useTitle("Sign in");

  async function submit(e: FormEvent) {
    e.preventDefault();
    if (!token.trim() || busy) return;
    setBusy(true);
    setError(undefined);
    try {
      const login = await signIn({ token: token.trim() });
      // Whoever comes may be somebody else than who went.
      queries.removeQueries({ predicate: (q) => q.queryKey[0] !== "auth" });
      queries.setQueryData<Login>(sessionKey, login);
    } catch (e) {
      setError(e);
      setBusy(false);
    }
  }
  const wrong = error instanceof ApiError && (error.status === 401 || error.status === 403 || error.status === 400) && error !== failed;
  return (
    <main className="flex min-h-dvh items-center justify-center p-4">
      <div className="w-full max-w-sm">
        <img src="/favicon.svg" alt="" width={40} height={40} className="mb-4" />
        <h1 className="text-xl font-semibold">Sign in to Muster</h1>
        <p className="mt-1 mb-5 text-muted">With the administrator's key or a key that was issued to you.</p>
        <form onSubmit={submit} className="space-y-3">
          <Field
            label="Token"
            type="password"
            name="token"
            autoComplete="current-password"
            autoFocus
            required
            spellCheck={false}
            value={token}
            onChange={(e) => setToken(e.target.value)}
            error={wrong ? error.message : undefined}
            hint="It is exchanged for a cookie and not kept in this browser."
          />
          <Button kind="primary" type="submit" busy={busy} className="w-full">
            {busy ? "Signing in…" : "Sign in"}
          </Button>
        </form>
        {error !== undefined && !wrong && <ErrorBox error={error} className="mt-4" />}
        <details className="mt-6 text-muted">
          <summary className="cursor-pointer">Where is the key?</summary>
          <p className="mt-2">
            On the machine of the server, <code className="font-mono text-[13px] text-text">admin.key</code> in its data folder; the path is printed at its start. An
            administrator issues keys for others.
          </p>
        </details>
      </div>
    </main>
  );
}
