import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { documentWithoutStyles, withoutStyles } from "./styles";

export interface Engine {
  term: Terminal;
  search: SearchAddon;
  /** As large as its box; undefined: it has none. */
  fit(): { cols: number; rows: number } | undefined;
  dispose(): void;
}

const LIGHT: ITheme = {
  background: "#ffffff",
  foreground: "#1b1c21",
  cursor: "#1b1c21",
  cursorAccent: "#ffffff",
  selectionBackground: "#cfd3f7",
  black: "#24262c",
  red: "#a8231b",
  green: "#14683c",
  yellow: "#7d4a00",
  blue: "#1b579f",
  magenta: "#83318f",
  cyan: "#0f6471",
  white: "#6b6f7a",
  brightBlack: "#5a5e6a",
  brightRed: "#c53a31",
  brightGreen: "#1b7f4a",
  brightYellow: "#955b05",
  brightBlue: "#2b6cc0",
  brightMagenta: "#9c46a8",
  brightCyan: "#177a89",
  brightWhite: "#1b1c21",
};
const DARK: ITheme = {
  background: "#16171b",
  foreground: "#e8e9ec",
  cursor: "#e8e9ec",
  cursorAccent: "#16171b",
  selectionBackground: "#3d4066",
  black: "#3a3d45",
  red: "#ff9d96",
  green: "#6ad79b",
  yellow: "#efbd6a",
  blue: "#8fbff8",
  magenta: "#d8a5ea",
  cyan: "#7fd4e0",
  white: "#c9cbd1",
  brightBlack: "#8b8f9c",
  brightRed: "#ffb4ae",
  brightGreen: "#93e6b8",
  brightYellow: "#f5d08f",
  brightBlue: "#b2d4fb",
  brightMagenta: "#e6c2f2",
  brightCyan: "#a5e4ec",
  brightWhite: "#ffffff",
};

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const isWeb = (uri: string) => /^https?:\/\//i.test(uri);

/** A terminal in that box. Links go to whoever asks first; nothing in the output reaches the clipboard or the title. */
export function makeTerminal(box: HTMLElement, options: { writable: boolean; onLink(uri: string): void; small: boolean }): Engine {
  const term = new Terminal({
    allowProposedApi: true,
    convertEol: false,
    cursorBlink: false,
    disableStdin: !options.writable,
    documentOverride: documentWithoutStyles(),
    fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--font-mono") || "ui-monospace, Menlo, Consolas, 'Liberation Mono', monospace",
    fontSize: options.small ? 12 : 13,
    lineHeight: 1.2,
    scrollback: 10_000,
    minimumContrastRatio: 4.5,
    linkHandler: { activate: (_, uri) => isWeb(uri) && options.onLink(uri), allowNonHttpProtocols: false },
    theme: dark() ? DARK : LIGHT,
  });
  const fit = new FitAddon();
  const search = new SearchAddon();
  term.loadAddon(fit);
  term.loadAddon(search);
  term.loadAddon(new Unicode11Addon());
  term.unicode.activeVersion = "11";
  term.loadAddon(new WebLinksAddon((_, uri) => isWeb(uri) && options.onLink(uri)));
  for (const osc of [0, 1, 2, 52]) term.parser.registerOscHandler(osc, () => true);
  withoutStyles(() => term.open(box));
  try {
    const webgl = new WebglAddon();
    webgl.onContextLoss(() => webgl.dispose());
    term.loadAddon(webgl);
  } catch {
    // Without it the terminal is drawn as elements of the page.
  }
  const paint = () => {
    term.options.theme = dark() ? DARK : LIGHT;
  };
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", paint);
  const watch = new MutationObserver(paint);
  watch.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return {
    term,
    search,
    fit() {
      const size = fit.proposeDimensions();
      if (!size || !Number.isFinite(size.cols) || !Number.isFinite(size.rows) || box.clientWidth < 50) return undefined;
      const cols = Math.min(500, Math.max(20, size.cols));
      const rows = Math.min(200, Math.max(5, size.rows));
      if (cols !== term.cols || rows !== term.rows) term.resize(cols, rows);
      return { cols, rows };
    },
    dispose() {
      media.removeEventListener("change", paint);
      watch.disconnect();
      term.dispose();
    },
  };
}
