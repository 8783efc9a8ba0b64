// When the formulas stand: fit the pictures to their slides, then hand over to reveal.js.
const HEIGHT = 720, SMALLEST = 240;

function fit(slide) {
  const excess = slide.scrollHeight - HEIGHT;
  const pictures = [...slide.querySelectorAll(".outputs > div img")].filter((p) => p.height > SMALLEST);
  if (excess <= 0 || pictures.length === 0) return;
  const room = pictures.reduce((sum, p) => sum + p.height - SMALLEST, 0);
  for (const p of pictures)
    p.style.height = `${p.height - Math.min(1, (excess + 1) / room) * (p.height - SMALLEST)}px`;
}

function repeat(title, slide) {
  const copy = document.createElement("h2");
  copy.innerHTML = title.innerHTML;
  slide.prepend(copy);
  return title;
}

function start() {
  const printing = /print-pdf/.test(window.location.search);
  if (printing) // the handout: tasks without solutions
    document.querySelectorAll("section section:has(.celltag_solution)").forEach((s) => s.remove());
  let title = null;
  for (const slide of document.querySelectorAll("section section")) {
    title = [...slide.querySelectorAll("h1, h2, h3")].at(-1) || repeat(title, slide);
    slide.append(...slide.querySelectorAll("aside.notes")); // in a fragment only the first is shown
    fit(slide);
  }
  document.body.classList.remove("unfitted");
  const ready = new Promise((done) => Reveal.on(printing ? "pdf-ready" : "ready", done));
  Reveal.initialize({
    width: 1280, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none",
    slideNumber: "c/t", pdfSeparateFragments: false, plugins: [RevealNotes],
    keyboardCondition: () => !document.activeElement.matches("input, button, summary"),
  });
  return ready;
}

// Resolved when the deck is ready to be shown, or its pages to be printed.
window.deckReady = Promise.all([window.MathJax.startup.promise, document.fonts.ready]).then(start).then(() => true);
