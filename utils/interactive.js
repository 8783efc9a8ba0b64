// Make the figures of the page live: their parts and numbers follow the sliders and buttons.
for (const root of document.querySelectorAll("figure.course-figure:not(.live)")) {
  const { columns, paths, parts, slots, steps, drag } = JSON.parse(root.dataset.frames);
  const all = (what) => [...root.querySelectorAll(what)];
  const scope = `course${(window.courseFigures = (window.courseFigures ?? 0) + 1)}-`;
  const find = (id) => root.querySelector(`#${scope}${id}`);
  const artists = (part) => all(`[id^=${scope}${part}-]`);

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
  for (const [part, [x, y, anchor]] of Object.entries(slots)) {
    const drawn = find(`${part}-number`), { fill } = drawn.firstChild.style;
    drawn.style.display = "none"; // and not removed, because other texts use its glyphs
    drawn.insertAdjacentHTML("afterend", `<text id="${scope}${part}-text" x="${x}" y="${y}"
      text-anchor="${anchor}" style="fill: ${fill}"></text>`);
  }

  const inputs = all("input"), [back, next] = all("button"), last = steps.length - 1;
  const shown = Object.entries(parts).map(([part, first]) => [artists(part), first]);
  let at = last;

  const fill = (template, position) => template.replace(/{(\w+)}/g, (_, key) => columns[key][position]);
  const status = root.querySelector("[role=status]"), count = Object.values(columns)[0].length;
  const sentences = steps.flatMap(({ say }) => [...Array(count).keys()].map((i) => fill(say, i)));
  status.insertAdjacentHTML("afterend", "<p aria-hidden='true'></p>"); // keeps room for the longest
  status.nextSibling.textContent = sentences.reduce((a, b) => (a.length < b.length ? b : a));

  function show(step = at) {
    const position = inputs.reduceRight((sum, e) => sum * (+e.max + 1) + +e.value, 0);
    at = Math.max(0, Math.min(last, step));
    const { say, now, sums } = steps[at];
    for (const [group, first] of shown)
      for (const artist of group) artist.style.visibility = at < first ? "hidden" : "";
    for (const part in slots) find(`${part}-text`).textContent = fill(sums?.[part] ?? `{${part}}`, position);
    for (const [id, key] of Object.entries(paths)) {
      const d = columns[key][position];
      find(id).firstChild.setAttribute("d", id === key ? d : d.replace(/[ML]([^ML]+)/g, "M$1h0"));
    }
    for (const artist of all(".now")) artist.classList.remove("now");
    for (const artist of now.flatMap(artists)) artist.classList.add("now");
    for (const input of inputs) {
      const label = input.previousSibling;
      label.textContent = fill(label.dataset.say, position);
      input.setAttribute("aria-valuetext", label.textContent);
    }
    status.textContent = fill(say, position);
  }

  function walk(step) {
    show(step);
    const box = root.querySelector(".now"), view = box?.closest(".course-view");
    if (!view) return;
    const [here, room] = [box, view].map((e) => e.getBoundingClientRect());
    view.scrollLeft += here.left + here.width / 2 - room.left - room.width / 2;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) all(".now[id$=arrow]").forEach(send);
  }
  function send(arrow) { // a dot runs along it
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    const line = arrow.firstChild, start = performance.now();
    dot.setAttribute("r", 6);
    dot.style.fill = line.style.stroke;
    arrow.append(dot);
    requestAnimationFrame(function move(time) {
      const share = Math.max(0, time - start) / 400;
      const { x, y } = line.getPointAtLength(share * line.getTotalLength());
      dot.setAttribute("transform", `translate(${x} ${y})`);
      if (share < 1) requestAnimationFrame(move);
      else dot.remove();
    });
  }

  // In slides, every step of a figure without a slider is a fragment, which the clicker shows.
  const deck = root.closest(".reveal"), paper = /[?&](print-pdf|view=print)/.test(location.search);
  const waits = deck && !paper && !inputs.length;
  if (waits) root.insertAdjacentHTML("beforeend", "<span class='fragment'></span>".repeat(last));
  const fragments = all(".fragment");
  const follow = () => {
    const step = fragments.filter((e) => e.classList.contains("visible")).length;
    if (step !== at) walk(step);
  };
  for (const event of waits ? ["ready", "slidechanged", "fragmentshown", "fragmenthidden"] : [])
    deck.addEventListener(event, follow);
  function go(step) {
    if (!waits || !window.Reveal) return walk((step + steps.length) % steps.length);
    Reveal.navigateFragment(+fragments[0].dataset.fragmentIndex - 1 + Math.max(0, Math.min(last, step)));
  }
  back?.addEventListener("click", () => go(at - 1));
  next?.addEventListener("click", () => go(at + 1));
  root.addEventListener("keydown", (event) => {
    const { key, target } = event, isSlider = target.matches("input");
    if (deck && (key.startsWith("Page") || (isSlider && key === " "))) target.blur(); // next slide
    if (!key.startsWith("Arrow")) return;
    event.stopPropagation(); // what the page would do
    if (key === "ArrowLeft" && target.matches("button")) go(at - 1);
    if (key === "ArrowRight" && target.matches("button")) go(at + 1);
  });

  for (const input of inputs) input.addEventListener("input", () => show());
  if (drag) {
    const svg = all(".course-view > svg").at(-1), [low, high] = drag;
    svg.dataset.drag = "";
    const move = ({ buttons, clientX, clientY }) => {
      const { x } = new DOMPoint(clientX, clientY).matrixTransform(svg.getScreenCTM().inverse());
      if (buttons) inputs[0].value = Math.round(((x - low) / (high - low)) * inputs[0].max);
      if (buttons) show();
    };
    for (const event of ["pointerdown", "pointermove"]) svg.addEventListener(event, move);
    svg.addEventListener("pointerdown", (event) => svg.setPointerCapture(event.pointerId));
  }
  root.classList.add("live");
  root.querySelector(".course-controls").style.display = "";
  show(inputs.length || paper ? last : 0);
  let before;
  addEventListener("beforeprint", () => { before = at; show(last); });
  addEventListener("afterprint", () => show(before));
}
