// A Predict waits for its reader: what follows it, from the first output on, opens with a button.
function ask(question) {
  const answers = [], button = document.createElement("button");
  button.className = "btn btn-primary btn-sm mt-2";
  button.textContent = "Reveal";
  function reveal() {
    for (const answer of answers) answer.hidden = false;
    button.remove();
  }
  button.addEventListener("click", reveal);
  button.addEventListener("beforematch", reveal);
  addEventListener("beforeprint", reveal);
  question.append(button);
  return answers;
}

for (const section of document.querySelectorAll(".bd-article section")) {
  const all = [];
  let answers = [], asked = null;
  for (const element of section.children) {
    if (element.matches("section")) break;
    answers.push(element);
    const output = asked && element.querySelector(".cell_output");
    if (element.matches("blockquote") && element.innerText.startsWith("Predict")) {
      all.push((asked = ask(element)));
    } else if (output) {
      asked.push(output);
      [answers, asked] = [asked, null];
    }
  }
  for (const answer of all.flat()) answer.hidden = "until-found"; // a search within the page opens it
}

// The contents at the side follow the reader: the theme marks only headings that are in view.
addEventListener("scrollend", () => {
  const sections = [...document.querySelectorAll(".bd-article section[id]")];
  const here = sections.findLast((section) => section.getBoundingClientRect().top < 120);
  for (const link of document.querySelectorAll(".bd-sidebar-secondary .nav-link")) {
    const current = link.hash === `#${here?.id}`;
    link.classList.toggle("active", current);
    if (current) link.scrollIntoView({ block: "nearest" });
  }
});
