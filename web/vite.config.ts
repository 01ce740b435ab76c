import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { devLogin, proxyTo } from "./script/dev-login";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const server = process.env.MUSTER_URL ?? "http://127.0.0.1:8080";
const token = process.env.MUSTER_TOKEN;

// What the server sends with the page; `npm run preview` does the same so that nothing slips in that it forbids.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; " +
  "connect-src 'self' ws: wss:; worker-src 'self' blob:; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

export default defineConfig({
  plugins: [react(), tailwindcss(), devLogin(server, token)],
  resolve: {
    alias: {
      "@": here("./src"),
      // Radix locks scrolling through this one, which makes a <style> element: forbidden by style-src 'self'.
      "react-remove-scroll": here("./src/ui/scroll-lock.tsx"),
    },
  },
  server: { host: "127.0.0.1", port: 5173, proxy: proxyTo(server, token) },
  preview: { host: "127.0.0.1", port: 4173, proxy: proxyTo(server, token), headers: { "Content-Security-Policy": policy } },
  build: {
    outDir: "dist",
    target: "es2022",
    // No data: URLs for code or styles, and small files stay files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { output: { entryFileNames: "assets/[name]-[hash].js", chunkFileNames: "assets/[name]-[hash].js" } },
  },
  test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"] },
});
