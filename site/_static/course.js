// A Predict waits for its reader: what follows it, from the first output on, opens with a button.
function ask(question) {
  const answers = [], button = document.createElement("button");
  button.className = "btn btn-sm mt-2";
  button.textContent = "Reveal";
  function reveal() {
    for (const answer of answers) answer.hidden = false;
    button.remove();
  }
  button.addEventListener("click", reveal);
  addEventListener("beforeprint", reveal);
  question.append(button);
  return (answer) => {
    answers.push(answer);
    answer.hidden = "until-found"; // a search within the page opens it, and all others
    answer.addEventListener("beforematch", reveal);
  };
}

for (const section of document.querySelectorAll(".bd-article section")) {
  let hide = () => {}, next = null;
  for (const element of section.children) {
    if (element.matches("section")) break;
    hide(element);
    const output = next && element.querySelector(".cell_output");
    if (element.matches("blockquote")) next = ask(element);
    else if (output) {
      next(output);
      [hide, next] = [next, null];
    }
  }
}

// The code of a picture is folded, so that the picture follows the sentence that leads to it.
for (const code of document.querySelectorAll(".tag_slide-output:has(a > img) .cell_input")) {
  code.insertAdjacentHTML("beforebegin", "<details><summary>Show the code</summary></details>");
  code.previousSibling.append(code);
}

// The contents at the side follow the reader: the theme marks only headings that are in view.
addEventListener("scrollend", () => {
  const sections = [...document.querySelectorAll(".bd-article section[id]")];
  const here = sections.findLast((section) => section.getBoundingClientRect().top < 120);
  for (const link of document.querySelectorAll(".bd-sidebar-secondary .nav-link")) {
    const current = link.classList.toggle("active", link.hash === `#${here?.id}`);
    const off = current ? link.getBoundingClientRect().top - innerHeight / 2 : 0;
    link.closest(".bd-sidebar-secondary").scrollBy(0, off); // scrollIntoView moves the page, too
  }
});
