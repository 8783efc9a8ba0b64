// When the formulas stand: fit pictures and text to their slides, then hand over to reveal.js.
const WIDTH = 1168, HEIGHT = 720, SMALLEST = 240, GROWTH = 1.5;

// Every slide has a title, and slides with one title are numbered.
function title(slides) {
  let titles = [];
  for (const slide of slides) {
    let own = [...slide.querySelectorAll("h1, h2, h3")].at(-1);
    if (own) titles = [];
    else {
      slide.prepend((own = document.createElement("h2")));
      own.innerHTML = titles[0].innerHTML;
    }
    titles.push(own);
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

// Code grows as far as its lines and the slide have room; without room, all text shrinks.
function scale(slide) {
  const blocks = [...slide.querySelectorAll("pre:not(aside pre)")];
  for (let size = 28; size >= 9; size--) {
    slide.style.setProperty("--code", `${size}px`);
    slide.style.fontSize = `${Math.min(27, size / 0.7)}px`;
    const cut = blocks.some((block) => block.scrollWidth > block.clientWidth);
    if (!cut && slide.scrollHeight <= HEIGHT) return;
  }
}

function start() {
  const printing = /print-pdf/.test(window.location.search);
  const all = (what, change) => document.querySelectorAll(what).forEach(change);
  if (printing) all("section section:has(.celltag_solution)", (slide) => slide.remove());
  all("aside.notes mjx-assistive-mml", (formula) => formula.remove());
  all("aside.notes details", (hint) => (hint.open = true));
  all(".jp-CodeCell:not(.celltag_slide-output) .jp-OutputArea", (e) => e.classList.add("fragment"));
  title(document.querySelectorAll("section section"));
  all("section section", (slide) => {
    slide.append(...slide.querySelectorAll("aside.notes")); // in a fragment only the first is shown
    fit(slide);
    scale(slide);
  });
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
const loaded = Promise.all([window.MathJax.startup.promise, document.fonts.ready]);
window.deckReady = loaded.then(start).then(() => true);
