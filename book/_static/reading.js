// A way through the book for those who do not program: a button that hides the code and leaves what it printed.
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector("article.bd-article");
  if (!article || !article.querySelector("div.cell_input")) return;
  const button = document.createElement("button");
  button.className = "reading";
  const set = (hidden) => {
    document.body.classList.toggle("without-code", hidden);
    button.textContent = hidden ? "show the code" : "hide the code";
    button.setAttribute("aria-pressed", String(hidden));
    try { localStorage.setItem("without-code", hidden ? "1" : ""); } catch (error) { /* not kept, then */ }
  };
  let before = false;
  try { before = localStorage.getItem("without-code") === "1"; } catch (error) { /* a page from a file, perhaps */ }
  button.addEventListener("click", () => set(!document.body.classList.contains("without-code")));
  article.prepend(button);
  set(before);
});
