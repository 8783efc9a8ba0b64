// When the formulas stand: fit pictures and text to their slides, then hand over to reveal.js.
const WIDTH = 1168, HEIGHT = 720, SMALLEST = 240, GROWTH = 1.5;

// Each solution follows the task with the same call of check, wherever the notebook has it.
function move(solution, slides) {
  const [call] = /check\(".*?"/.exec(solution.textContent);
  slides.find((slide) => slide.textContent.includes(call)).after(solution);
}

// Every slide has a title, and slides with one title are numbered.
function title(slides) {
  let titles = [];
  for (const slide of slides) {
    const own = [...slide.querySelectorAll("h1, h2, h3")].at(-1);
    if (!own) slide.insertAdjacentHTML("afterbegin", `<h2>${titles[0].innerHTML}</h2>`);
    titles = own ? [own] : [...titles, slide.firstElementChild];
    titles.forEach((one, i) => (one.dataset.part = `${i + 1}/${titles.length}`));
  }
}

// Pictures take the room that the text leaves, and give some of theirs where it leaves none.
function fit(slide) {
  const pictures = [...slide.querySelectorAll(".jp-OutputArea > div img")];
  const room = HEIGHT - 1 - slide.scrollHeight;
  const changes = pictures.map(({ width, height }) =>
    room > 0 ? height * Math.min(GROWTH - 1, WIDTH / width - 1) : Math.min(0, SMALLEST - height));
  const share = Math.min(1, room / changes.reduce((sum, change) => sum + change, 0));
  pictures.forEach((p, i) => (p.style.height = `${p.height + share * changes[i]}px`));
}

// Code grows to 28 px if its lines and the slide have room; without room, all text shrinks.
function scale(slide) {
  const blocks = [...slide.querySelectorAll("pre")].filter((block) => block.checkVisibility());
  const lengths = blocks.flatMap(({ textContent }) => textContent.split("\n").map((l) => l.length));
  const widest = Math.floor(1900 / Math.max(67, ...lengths.filter((length) => length <= 100)));
  for (let size = widest; size >= 9; size -= 0.5) { // a letter has 0.6 of it; longer lines wrap
    slide.style.setProperty("--code", `${size}px`);
    slide.style.fontSize = `${Math.min(27, 27 * size / Math.min(23, widest))}px`;
    if (slide.scrollHeight <= HEIGHT) return;
  }
}

function start() {
  const printing = /print-pdf/.test(window.location.search);
  const all = (what) => [...document.querySelectorAll(what)];
  const slides = all("section section"), solutions = all("section section:has(.celltag_solution)");
  for (const solution of solutions) {
    if (printing) solution.remove();
    else move(solution, slides);
  }
  all("aside.notes mjx-assistive-mml").forEach((formula) => formula.remove());
  all("aside.notes details").forEach((hint) => (hint.open = true));
  for (const outputs of all(".jp-CodeCell:not(.celltag_slide-output) .jp-OutputArea"))
    outputs.classList.add("fragment");
  title(all("section section"));
  for (const slide of all("section section")) {
    slide.append(...slide.querySelectorAll("aside.notes")); // in a fragment only the first is shown
    fit(slide);
    scale(slide);
  }
  document.body.classList.remove("unfitted");
  const ready = new Promise((done) => Reveal.on(printing ? "pdf-ready" : "ready", done));
  Reveal.initialize({
    width: 1280, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none",
    navigationMode: "linear", // the right arrow visits every slide
    slideNumber: "c/t", pdfSeparateFragments: false, plugins: [RevealNotes],
    keyboardCondition: () => !document.activeElement.matches("input, button, summary"),
  });
  addEventListener("pointerup", () => document.activeElement.blur()); // keys turn slides again
  return ready;
}

// Resolved when the deck is ready to be shown, or its pages to be printed.
const fonts = [...document.fonts].map((font) => font.load());
const loaded = Promise.all([window.MathJax.startup.promise, ...fonts]);
window.deckReady = loaded.then(start).then(() => true);
