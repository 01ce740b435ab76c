// Development only, never in the build: with MUSTER_TOKEN set, Vite stands in for the sign-in of a server that has none.
// Who signs in with a token is asked of the real server; the cookie stands for that token until Vite ends.
import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Plugin, ProxyOptions } from "vite";

const COOKIE = "muster_dev_login";
const logins = new Map<string, string>();

function tokenOf(req: IncomingMessage): string | undefined {
  const found = new RegExp(`${COOKIE}=([0-9a-f-]+)`).exec(req.headers.cookie ?? "");
  return found?.[1] ? logins.get(found[1]) : undefined;
}

export function proxyTo(server: string, token: string | undefined): Record<string, ProxyOptions> {
  const options: ProxyOptions = {
    target: server,
    changeOrigin: true,
    ws: true,
    configure(proxy) {
      const sign = (out: { setHeader(name: string, value: string): void; removeHeader(name: string): void }, req: IncomingMessage) => {
        if (req.headers.origin) out.setHeader("origin", server);
        const mine = token ? tokenOf(req) : undefined;
        if (mine) out.setHeader("authorization", `Bearer ${mine}`);
      };
      proxy.on("proxyReq", sign);
      proxy.on("proxyReqWs", sign);
    },
  };
  return { "^/(api|ws|health|openapi.json|approve)(/|$|\\?)": options };
}

export function devLogin(server: string, token: string | undefined): Plugin {
  const json = (res: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) => {
    res.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", ...headers });
    res.end(JSON.stringify(body));
  };

  async function whoIs(bearer: string) {
    const answer = await fetch(new URL("/api/v1/orgs/me", server), { headers: { Authorization: `Bearer ${bearer}` } });
    if (!answer.ok) return null;
    const { data } = (await answer.json()) as { data: { orgId: string; role: string } };
    const user = { id: data.orgId, name: data.role, role: data.role, admin: data.role === "platform_admin", orgId: data.orgId };
    return { user, expires: new Date(Date.now() + 86_400_000).toISOString() };
  }

  async function answer(req: IncomingMessage, res: ServerResponse, next: () => void) {
    const path = (req.url ?? "").split("?")[0];
    if (path === "/api/auth/session" && req.method === "GET") {
      const mine = tokenOf(req);
      json(res, 200, (mine && (await whoIs(mine))) || { user: null });
    } else if (path === "/api/auth/login" && req.method === "POST") {
      const parts: Buffer[] = [];
      for await (const part of req) parts.push(part as Buffer);
      const body = JSON.parse(Buffer.concat(parts).toString() || "{}") as { token?: string; code?: string };
      // A code is redeemed as the developer's own token.
      const bearer = body.code ? token : body.token;
      const who = bearer ? await whoIs(bearer) : null;
      if (!bearer || !who) {
        json(res, 401, { error: "This token is not known here.", code: "UNAUTHORIZED", field: "token", requestId: "req_dev" });
        return;
      }
      const id = randomUUID();
      logins.set(id, bearer);
      json(res, 200, who, { "Set-Cookie": `${COOKIE}=${id}; Path=/; HttpOnly; SameSite=Strict` });
    } else if (path === "/api/auth/logout" && req.method === "POST") {
      logins.delete(new RegExp(`${COOKIE}=([0-9a-f-]+)`).exec(req.headers.cookie ?? "")?.[1] ?? "");
      json(res, 200, { success: true }, { "Set-Cookie": `${COOKIE}=; Path=/; Max-Age=0` });
    } else {
      next();
    }
  }

  const use = (middlewares: { use(fn: (req: IncomingMessage, res: ServerResponse, next: (e?: unknown) => void) => void): void }) => {
    if (token) middlewares.use((req, res, next) => void answer(req, res, next).catch(next));
  };
  return {
    name: "muster-dev-login",
    apply: (_, env) => env.command === "serve",
    configureServer: (vite) => use(vite.middlewares),
    configurePreviewServer: (vite) => use(vite.middlewares),
  };
}
