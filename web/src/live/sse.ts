export interface ServerEvent {
  event: string;
  data: string;
  id?: string;
}

/** Server-sent events out of text that may be cut anywhere. */
export function sseParser(emit: (event: ServerEvent) => void) {
  let rest = "";
  let event = "";
  let id: string | undefined;
  let data: string[] = [];
  let skipNewline = false;

  const line = (text: string) => {
    if (text === "") {
      if (data.length) emit({ event: event || "message", data: data.join("\n"), id });
      event = "";
      data = [];
      id = undefined;
      return;
    }
    if (text.startsWith(":")) return;
    const colon = text.indexOf(":");
    const name = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? "" : text.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event = value;
    else if (name === "data") data.push(value);
    else if (name === "id") id = value;
  };

  return (chunk: string) => {
    let text = rest + chunk;
    if (skipNewline && text.startsWith("\n")) text = text.slice(1);
    skipNewline = false;
    for (;;) {
      const at = text.search(/[\r\n]/);
      if (at < 0) break;
      line(text.slice(0, at));
      if (text[at] === "\r" && at + 1 === text.length) {
        skipNewline = true; // its \n may be in the next piece
        text = "";
      } else {
        text = text.slice(at + (text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1));
      }
    }
    rest = text;
  };
}
