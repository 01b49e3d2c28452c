// Names for what the theme and the widgets leave without one, so that a screen reader can say what it is.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav summary")) {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Sections of ${link ? link.textContent.trim() : "this part"}`);
  }
  for (const button of document.querySelectorAll("button.search-button__button")) {
    button.setAttribute("aria-label", button.textContent.replace(/\s+/g, " ").trim() || "Search");
  }
  for (const list of document.querySelectorAll("div.citation-list[role=list]")) {
    list.removeAttribute("role"); // its entries are not all list items
  }
  const name = () => {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
      handle.setAttribute("aria-label", label?.textContent.trim() || "slider");
    }
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true }); // widgets come later
});
