/**
 * xterm.js writes its colours and sizes into <style> elements, which a strict content policy forbids. It takes the document
 * to make elements with as an option: here is one whose style elements are constructed style sheets instead, which are allowed.
 */
class Sheet extends HTMLElement {
  private sheet = new CSSStyleSheet();
  override get textContent(): string {
    return "";
  }
  override set textContent(text: string) {
    this.sheet.replaceSync(text);
  }
  connectedCallback() {
    const sheets = document.adoptedStyleSheets;
    if (!sheets.includes(this.sheet)) document.adoptedStyleSheets = [...sheets, this.sheet];
  }
  disconnectedCallback() {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== this.sheet);
  }
}

const NAME = "muster-sheet";

/** For the one part that asks the window's document all the same, while it is opened. */
export function withoutStyles(open: () => void) {
  const create = document.createElement.bind(document);
  const own = document as { createElement?: unknown };
  own.createElement = (tag: string, options?: ElementCreationOptions) => create(tag === "style" ? NAME : tag, options);
  try {
    open();
  } finally {
    delete own.createElement;
  }
}

export function documentWithoutStyles(): Document {
  if (!customElements.get(NAME)) customElements.define(NAME, Sheet);
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") return (tag: string) => target.createElement(tag === "style" ? NAME : tag);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  });
}
