// Before MathJax starts: what counts as a formula, and that pages wait for the last one.
window.MathJax = {
  tex: { inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]], processEscapes: true },
  svg: { fontCache: "local" }, // so that a formula can be copied into the speaker's window
  options: { enableMenu: false, skipHtmlTags: ["script", "style", "pre", "code"] },
};
