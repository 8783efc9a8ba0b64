// Make the figures of the page live: their parts and numbers follow the sliders and buttons.
for (const root of document.querySelectorAll("figure.course-figure:not(.live)")) {
  const { steps, lines, sliders } = JSON.parse(root.dataset.frames);
  const all = (what) => [...root.querySelectorAll(what)];
  const scope = `course${(window.courseFigures = (window.courseFigures ?? 0) + 1)}-`;
  const find = (id) => root.querySelector(`#${scope}${id}`);
  const controls = sliders.map(({ texts, at }) =>
    `<label><span></span><input type="range" max="${texts.length - 1}" value="${at}"></label>`);
  if (steps.length > 1) controls.push("<button>Back</button><button>Next</button>");
  all(".course-hint")[0].outerHTML = `<div class="course-controls">${controls.join("")}</div>`;
  const inputs = all("input"), last = steps.length - 1;
  const deck = root.closest(".reveal"), paper = location.search.includes("print");
  let at = last;

  // The images become part of the page, with ids of their own, and colors that the page may change.
  for (const image of all("img")) {
    const source = decodeURIComponent(image.getAttribute("src").replace(/^[^,]*,/, ""))
      .replace(/( id="|href="#|url\(#)/g, `$1${scope}`)
      .replace(/: #([0-9a-f]{6})/g, ": var(--course-$1, #$1)");
    const svg = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", image.alt);
    image.parentNode.style.setProperty("--width", svg.viewBox.baseVal.width);
    image.replaceWith(svg);
  }

  // A column has a text for each position of the sliders, or one for all.
  function show(step) {
    at = step;
    const position = inputs.reduceRight((sum, e) => sum * (+e.max + 1) + +e.value, 0);
    const pick = (column) => (Array.isArray(column) ? column[position] : column);
    const merge = (some) => Object.assign({}, ...some.map(([, parts]) => parts));
    const shown = merge(steps.slice(0, at + 1));
    for (const part in merge(steps)) {
      for (const artist of all(`[id^=${scope}${part}-]`)) {
        artist.style.visibility = part in shown ? "" : "hidden";
        artist.classList.toggle("now", at > 0 && part in steps[at][1]);
      }
      find(`${part}-number`)?.replaceChildren(pick(shown[part]) ?? "");
    }
    for (const [id, column] of Object.entries(lines))
      find(id).firstChild.setAttribute("d", pick(column));
    const points = pick(lines.path)?.replace(/[ML]([^ML]+)/g, "M$1h0");
    find("dots")?.firstChild.setAttribute("d", points);
    inputs.forEach((input, i) => {
      input.previousSibling.textContent = sliders[i].texts[input.value];
      input.setAttribute("aria-valuetext", sliders[i].texts[input.value]);
    });
    root.querySelector("[role=status]").textContent = pick(steps[at][0]);
  }

  function walk(step) { // with what is at work in sight, and a dot that runs along its arrows
    show(step);
    const middle = (e) => e.getBoundingClientRect().x + e.getBoundingClientRect().width / 2;
    const box = root.querySelector(".now[id*=box]"), view = box?.closest(".course-view");
    view?.scrollBy(middle(box) - middle(view), 0);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const arrow of all(".now[id$=arrow]")) {
      const line = arrow.firstChild;
      arrow.insertAdjacentHTML("beforeend", "<circle r='6'></circle>");
      const dot = arrow.lastChild;
      dot.style.fill = line.style.stroke;
      dot.style.offsetPath = `path("${line.getAttribute("d")}")`;
      dot.animate({ offsetDistance: ["0%", "100%"] }, 400).onfinish = () => dot.remove();
    }
  }

  // In slides, every step of a figure without a slider is a fragment, which the clicker shows.
  const waits = deck && !paper && !inputs.length;
  if (waits) root.insertAdjacentHTML("beforeend", "<span class='fragment'></span>".repeat(last));
  for (const event of ["ready", "slidechanged", "fragmentshown", "fragmenthidden"])
    deck?.addEventListener(event, () => {
      const step = all(".fragment.visible").length;
      if (waits && step !== at) walk(step);
    });
  function go(way) {
    if (waits) way < 0 ? Reveal.prevFragment() : Reveal.nextFragment();
    else walk((at + way + steps.length) % steps.length);
  }
  all("button").forEach((e, i) => e.addEventListener("click", () => go(2 * i - 1)));
  root.addEventListener("keydown", (event) => {
    const { key, target } = event, way = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const shortcut = !deck && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (shortcut || key.startsWith("Arrow")) event.stopPropagation(); // what the page would do
    if (way && target.matches("button")) go(way);
    const turns = key.startsWith("Page") || (key === " " && target.matches("input"));
    if (deck && turns) target.blur(); // then the deck gets the key
  });

  for (const input of inputs) input.addEventListener("input", () => show(at));
  if (lines.dot) {
    const svg = all(".course-view > svg").at(-1);
    svg.classList.add("drag");
    const move = (event) => {
      if (event.type === "pointerdown") svg.setPointerCapture(event.pointerId);
      if (!svg.hasPointerCapture(event.pointerId)) return;
      const { x } = new DOMPoint(event.clientX, 0).matrixTransform(svg.getScreenCTM().inverse());
      const far = [lines.dot].flat().map((d) => (d ? Math.abs(parseFloat(d.slice(1)) - x) : 1e9));
      inputs[0].value = far.indexOf(Math.min(...far));
      show(at);
    };
    for (const event of ["pointerdown", "pointermove"]) svg.addEventListener(event, move);
  }
  root.classList.add("live");
  show(inputs.length || paper ? last : 0);
  addEventListener("beforeprint", () => {
    const before = at;
    show(last);
    addEventListener("afterprint", () => show(before), { once: true });
  });
}
