/* Repairs what the theme leaves open to readers who use the keyboard or a screen reader. */

// What scrolls sideways can be reached by Tab, and then scrolled by the arrow keys.
function reachScrollers() {
  for (const box of document.querySelectorAll(".bd-article *")) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === "auto";
    if (scrolls && !box.closest("[tabindex]")) box.tabIndex = 0;
  }
}

// A comma after a formula stays on the formula's line.
function joinPunctuation() {
  for (const formula of document.querySelectorAll("span.math")) {
    const text = formula.nextSibling;
    const [mark] = (text?.nodeType === Node.TEXT_NODE && /^[.,;:?!)]+/.exec(text.data)) || [];
    if (!mark) continue;
    const joined = document.createElement("span");
    joined.className = "joined";
    formula.before(joined);
    joined.append(formula, mark);
    text.data = text.data.slice(mark.length);
  }
}

addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  // Its visible text is its name; the theme's label hides the shortcut that it shows.
  document.querySelectorAll("button.search-button-field").forEach((b) => b.removeAttribute("aria-label"));
  joinPunctuation();
  reachScrollers();
  addEventListener("resize", reachScrollers);
  addEventListener("toggle", reachScrollers, true); // a solution unfolds
  document.body.dataset.ready = "true";
});
