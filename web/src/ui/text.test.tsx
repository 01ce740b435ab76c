import { renderToStaticMarkup } from "react-dom/server";
import { expect, it } from "vitest";
import { CodeText, visibleName } from "./text";

const shown = (text: string) => {
  const box = document.createElement("div");
  box.innerHTML = renderToStaticMarkup(<CodeText text={text} />);
  return box.textContent;
};

it("shows the text to the letter, markup and all", () => expect(shown('<b onclick="x">&amp;</b>\n\ttab')).toBe('<b onclick="x">&amp;</b>\n\ttab'));
it("shows by number what could not be seen or would turn the rest", () => {
  expect(shown("rm\u202e x\u200b\u0000\u{e0041}")).toBe("rmU+202E xU+200BU+0000U+E0041");
});
it("leaves the letters of other scripts alone", () => expect(shown("naïve 日本 עברית 👍")).toBe("naïve 日本 עברית 👍"));
it("shows a name on one line", () => {
  const box = document.createElement("div");
  box.innerHTML = renderToStaticMarkup(<p>{visibleName("a\tb\n\u202ec")}</p>);
  expect(box.textContent).toBe("a\\tb\\nU+202Ec");
});
