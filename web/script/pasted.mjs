/** What the clipboard has: no page may read it (the server's Permissions-Policy), people paste it. */
export async function pasted(page) {
  await page.evaluate(() => {
    const field = document.createElement("textarea");
    field.id = "pasted-here";
    document.body.append(field);
    field.focus();
  });
  await page.keyboard.press("Control+V");
  return page.evaluate(() => {
    const field = document.getElementById("pasted-here");
    field.remove();
    return field.value;
  });
}
