// Make the figures of the page live: position i of each shows value i of every bound element.
for (const root of document.querySelectorAll("figure.course-figure:not(.live)")) {
  const all = (what) => [...root.querySelectorAll(what)];
  const frames = JSON.parse(root.dataset.frames), last = frames[0].length - 1;
  const image = root.querySelector("img"), view = image.parentNode;
  const source = decodeURIComponent(image.getAttribute("src").replace(/^[^,]*,/, ""));
  const svg = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", image.alt);
  image.replaceWith(svg);
  const bound = all("[data-bind]").map((e) => [e, ...e.dataset.bind.split(" ")]);
  const slider = root.querySelector("input");
  let at = 0;

  function show(i) {
    at = Math.max(0, Math.min(last, i));
    for (const [element, k, name] of bound) {
      if (name) element.setAttribute(name, frames[k][at]);
      else element.innerHTML = frames[k][at];
    }
    if (slider) slider.value = at;
    const work = root.querySelector(".now .ring");
    if (!work || view.scrollWidth <= view.clientWidth) return;
    const box = work.getBoundingClientRect(), room = view.getBoundingClientRect();
    view.scrollLeft += box.left + box.width / 2 - room.left - room.width / 2;
  }

  // In slides, every step is a fragment, which the clicker shows and hides.
  const deck = root.closest(".reveal");
  const paper = /[?&](print-pdf|view=print)/.test(location.search);
  const steps = !deck || slider || paper ? [] : Array.from({ length: last }, () => {
    const step = root.appendChild(document.createElement("span"));
    step.className = "fragment";
    return step;
  });
  const follow = () => show(steps.filter((step) => step.classList.contains("visible")).length);
  function go(i) {
    if (!steps.length || !window.Reveal) return show(i);
    const first = +steps[0].dataset.fragmentIndex;
    Reveal.navigateFragment(first - 1 + Math.max(0, Math.min(last, i)));
  }
  for (const event of steps.length ? ["ready", "slidechanged", "fragmentshown", "fragmenthidden"] : [])
    deck.addEventListener(event, follow);

  const moves = { first: () => 0, back: () => at - 1, next: () => at + 1, last: () => last };
  const keys = { Home: "first", ArrowLeft: "back", ArrowRight: "next", End: "last" };
  for (const button of all("button"))
    button.addEventListener("click", () => go(moves[button.value]()));
  root.addEventListener("keydown", (event) => {
    const leave = event.key.startsWith("Page") || (slider && event.key === " ");
    if (deck && leave) document.activeElement.blur(); // a clicker, or Space: next slide
    if (!/^(Arrow|Home|End)/.test(event.key)) return;
    event.stopPropagation(); // what the page would do, such as change the slide
    if (event.target === slider || !(event.key in keys)) return;
    event.preventDefault();
    go(moves[keys[event.key]]());
  });
  if (slider) {
    slider.addEventListener("input", () => show(+slider.value));
    const [low, high] = svg.dataset.drag.split(" ");
    const drag = (event) => {
      if (!event.buttons) return;
      const here = new DOMPoint(event.clientX, event.clientY);
      const { x } = here.matrixTransform(svg.getScreenCTM().inverse());
      show(Math.round(((x - low) / (high - low)) * last));
    };
    for (const event of ["pointerdown", "pointermove"]) svg.addEventListener(event, drag);
    svg.addEventListener("pointerdown", (event) => svg.setPointerCapture(event.pointerId));
  }
  root.classList.add("live");
  for (const part of all(".course-live")) part.style.display = "";
  show(slider ? +slider.value : paper ? last : 0);
  let before;
  addEventListener("beforeprint", () => { before = at; show(slider ? at : last); });
  addEventListener("afterprint", () => show(before));
}
