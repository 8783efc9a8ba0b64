// When the formulas stand: fit the pictures to their slides, then hand over to reveal.js.
const HEIGHT = 720, WIDTH = 1168, SMALLEST = 240, GROWTH = 1.5, CODE = { smallest: 19, largest: 28 };

// Pictures take the room that the text leaves, and give some of theirs where it leaves none.
function fit(slide) {
  const pictures = [...slide.querySelectorAll(".outputs > div img, .opening img")];
  const room = HEIGHT - 1 - slide.scrollHeight;
  const changes = pictures.map((p) =>
    room > 0 ? p.height * Math.min(GROWTH - 1, WIDTH / p.width - 1) : Math.min(0, SMALLEST - p.height));
  const share = Math.min(1, room / changes.reduce((sum, change) => sum + change, 0));
  pictures.forEach((p, i) => (p.style.height = `${p.height + share * changes[i]}px`));
}

// Text becomes smaller where even the smallest pictures leave it no room.
function shrink(slide) {
  for (let size = 26; slide.scrollHeight > HEIGHT && size >= 12; size--) slide.style.fontSize = `${size}px`;
}

// Code and outputs become larger as long as no line has to be longer than the slide.
function grow(slide) {
  const blocks = [...slide.querySelectorAll("pre:not(aside pre)")];
  const sizes = (size) => blocks.map((block) => block.clientHeight / size);
  const least = sizes(CODE.smallest);
  for (let size = CODE.smallest + 1; size <= CODE.largest; size++) {
    slide.style.setProperty("--code", `${size}px`);
    const wrapped = sizes(size).some((height, i) => height > least[i] + 0.5);
    const cut = blocks.some((block) => block.scrollWidth > block.clientWidth);
    if (wrapped || cut || slide.scrollHeight > HEIGHT) {
      slide.style.setProperty("--code", `${size - 1}px`);
      return;
    }
  }
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
  document.querySelectorAll("aside.notes mjx-assistive-mml").forEach((formula) => formula.remove());
  document.querySelectorAll("aside.notes details").forEach((hint) => (hint.open = true));
  let title = null;
  for (const slide of document.querySelectorAll("section section")) {
    title = [...slide.querySelectorAll("h1, h2, h3")].at(-1) || repeat(title, slide);
    slide.append(...slide.querySelectorAll("aside.notes")); // in a fragment only the first is shown
    fit(slide);
    shrink(slide);
    if (!slide.style.fontSize) grow(slide);
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
window.deckReady = Promise.all([window.MathJax.startup.promise, document.fonts.ready]).then(start).then(() => true);
