import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { type Login, sessionKey, signIn } from "./api/auth";
import { mayRetry, onUnauthorized } from "./api/client";
import { codeProblem, router } from "./router";
import { applyTheme, usePrefs } from "./state/prefs";
import { Toasts } from "./ui/toast";
import "./styles.css";

applyTheme(usePrefs.getState().theme);
usePrefs.subscribe((s) => applyTheme(s.theme));

const queries = new QueryClient({
  defaultOptions: { queries: { retry: mayRetry, staleTime: 5_000, refetchOnWindowFocus: true }, mutations: { retry: false } },
});
onUnauthorized(() => queries.setQueryData<Login>(sessionKey, { user: null }));

/** A link of the command line signs in by a code behind the #, which never reaches a server's log; it leaves the address at once. */
async function redeemCode() {
  const code = /^#code=([^&]+)$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(history.state, "", location.pathname + location.search);
  try {
    queries.setQueryData<Login>(sessionKey, await signIn({ code: decodeURIComponent(code) }));
  } catch (e) {
    codeProblem.error = e;
  }
}

void redeemCode().then(() =>
  createRoot(document.getElementById("root")!).render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <RouterProvider router={router} />
        <Toasts />
      </QueryClientProvider>
    </StrictMode>,
  ),
);
