import { useQuery } from "@tanstack/react-query";
import { createRootRoute, createRoute, createRouter, Link, lazyRouteComponent, redirect } from "@tanstack/react-router";
import { Compass } from "lucide-react";
import { loginQuery } from "@/api/auth";
import { environmentSearch } from "@/places/environments/search";
import { keySearch } from "@/places/keys/search";
import { providerSearch } from "@/places/providers/search";
import { scheduleSearch } from "@/places/schedules/search";
import { pageSearch } from "@/places/session/search";
import { sessionSearch } from "@/places/sessions/search";
import { Page } from "@/shell/page";
import { Shell } from "@/shell/shell";
import { SignIn } from "@/shell/signin";
import { Empty, ErrorBox, Skeleton } from "@/ui/states";

/** Why the code of a sign-in link was not taken, if it was not. */
export const codeProblem: { error?: unknown } = {};

function Root() {
  const login = useQuery(loginQuery);
  if (login.data?.user) return <Shell user={login.data.user} />;
  if (login.data) return <SignIn failed={codeProblem.error} />;
  if (login.isError) {
    return (
      <main className="mx-auto max-w-md p-6 pt-[20dvh]">
        <ErrorBox error={login.error} retry={() => void login.refetch()} />
      </main>
    );
  }
  return <Skeleton className="mx-auto max-w-md p-6 pt-[20dvh]" />;
}

function Missing() {
  return (
    <Page title="Not found">
      <Empty icon={<Compass className="size-8" aria-hidden />} title="There is nothing at this address" action={<Link to="/" className="text-accent underline">Go home</Link>}>
        The link may be old, or it belongs to a part of Muster that this server does not have.
      </Empty>
    </Page>
  );
}

const root = createRootRoute({ component: Root, notFoundComponent: Missing });
const home = createRoute({ getParentRoute: () => root, path: "/", component: lazyRouteComponent(() => import("@/places/home/home"), "Home") });
const sessions = createRoute({
  getParentRoute: () => root,
  path: "/sessions",
  validateSearch: sessionSearch,
  component: lazyRouteComponent(() => import("@/places/sessions/sessions"), "Sessions"),
});
const session = createRoute({
  getParentRoute: () => root,
  path: "/sessions/$id",
  validateSearch: pageSearch,
  component: lazyRouteComponent(() => import("@/places/session/session"), "SessionPage"),
});
const gates = createRoute({
  getParentRoute: () => root,
  path: "/gates",
  validateSearch: (s: Record<string, unknown>): { gate?: string } => (typeof s.gate === "string" ? { gate: s.gate } : {}),
  component: lazyRouteComponent(() => import("@/places/gates/gates"), "Gates"),
});
const fleet = createRoute({ getParentRoute: () => root, path: "/fleet", component: lazyRouteComponent(() => import("@/places/fleet/fleet"), "Fleet") });
const environments = createRoute({
  getParentRoute: () => root,
  path: "/environments",
  validateSearch: environmentSearch,
  component: lazyRouteComponent(() => import("@/places/environments/environments"), "Environments"),
});
const schedules = createRoute({
  getParentRoute: () => root,
  path: "/schedules",
  validateSearch: scheduleSearch,
  component: lazyRouteComponent(() => import("@/places/schedules/schedules"), "Schedules"),
});
const providers = createRoute({
  getParentRoute: () => root,
  path: "/providers",
  validateSearch: providerSearch,
  component: lazyRouteComponent(() => import("@/places/providers/providers"), "Providers"),
});
const keys = createRoute({ getParentRoute: () => root, path: "/keys", validateSearch: keySearch, component: lazyRouteComponent(() => import("@/places/keys/keys"), "Keys") });
const settings = createRoute({ getParentRoute: () => root, path: "/settings", component: lazyRouteComponent(() => import("@/places/settings/settings"), "Settings") });
const moved = (path: "/home" | "/inbox" | "/login", to: "/" | "/gates") =>
  createRoute({
    getParentRoute: () => root,
    path,
    beforeLoad: () => {
      throw redirect({ to, replace: true });
    },
  });

export const router = createRouter({
  routeTree: root.addChildren([home, sessions, session, gates, fleet, environments, schedules, providers, keys, settings, moved("/home", "/"), moved("/inbox", "/gates"), moved("/login", "/")]),
  defaultPreload: "intent",
  scrollRestoration: true,
  defaultPendingMs: 150,
  defaultPendingComponent: () => <Skeleton rows={6} className="mx-auto max-w-5xl p-8" />,
  defaultErrorComponent: ({ error, reset }) => (
    <div className="mx-auto max-w-2xl p-8">
      <ErrorBox error={error} retry={reset} />
    </div>
  ),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
