"""Sphinx configuration of the web edition, which `make site` builds into build/site/."""

import re
import shutil
from zipfile import ZIP_DEFLATED, ZipFile

import nbformat
from docutils import nodes
from sphinx.builders.html import StandaloneHTMLBuilder

from utils.course import REPO_URL, ROOT

PAGES = ["site/*.md", "notebooks/*.ipynb", "figures/*.png"]
DOWNLOAD = ["notebooks/*.*", "utils/*.*", "data/README.md", "requirements.txt", "LICENSE"]

project = html_title = "Computing gradients in PyTorch"
copyright = "2026, the authors of the course. Code: MIT License; prose and figures: CC BY 4.0"
extensions = ["myst_nb", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the pages show the stored outputs
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
copybutton_selector = "div.cell_input pre, div.highlight-bash pre"
mathjax_path = "tex-svg.js"  # one file, fonts included
mathjax3_config = {"options": {"enableMenu": False}}  # Tab skips formulas
html_theme = "sphinx_book_theme"
html_static_path = ["_static", str(ROOT / "node_modules/mathjax/es5" / mathjax_path)]
html_css_files, html_js_files = ["course.css"], [("course.js", {"defer": ""})]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto", "link_suffix": ""}  # the reader's light; see SectionSearch
html_sourcelink_suffix = ""
html_show_search_summary = False  # summaries are fetched, which a browser refuses to file://
html_theme_options = {
    "footer_content_items": ["copyright.html"],
    "launch_buttons": {"colab_url": "https://colab.research.google.com"} if REPO_URL else {},
    "navbar_persistent": [],
    "path_to_docs": "notebooks",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "repository_branch": "main",
    "repository_url": REPO_URL,
    "use_repository_button": bool(REPO_URL),
}


class SectionSearch(StandaloneHTMLBuilder):
    """Sphinx's HTML builder, whose search leads to sections and not only to pages."""

    def index_page(self, page, doctree, title):
        """Put every section of a page into the index, under its address."""
        self.indexer.prune = lambda pages: None  # it would remove what is not a page
        for part in doctree.findall(nodes.section):
            address = f"{page}.html" + (f"#{part['ids'][0]}" if part.parent is not doctree else "")
            children = [e.deepcopy() for e in part if not isinstance(e, nodes.section)]
            self.indexer.feed(address, page, part[0].astext(), nodes.section("", *children))


def setup(app):
    """Gather in one folder what Sphinx reads, pack the course for download, and mend links."""
    for path in (path for pattern in PAGES for path in ROOT.glob(pattern)):
        shutil.copy(path, app.srcdir)
    with ZipFile(app.srcdir / "course.zip", "w", ZIP_DEFLATED) as archive:
        for path in (path for pattern in DOWNLOAD for path in ROOT.glob(pattern)):
            archive.write(path, f"course/{path.relative_to(ROOT)}")
    cells = nbformat.read(next(ROOT.glob("notebooks/01_*.ipynb")), as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    (hero,) = (data["text/html"] for data in outputs if "text/html" in data)
    (app.srcdir / "hero.html").write_text(hero, "utf-8")
    if REPO_URL:
        app.tags.add("colab")
    app.add_builder(SectionSearch, override=True)
    app.connect("source-read", prepare)


def prepare(app, page, content):
    """Make links work: section 2.4 is called `section-2.4`, and all pages lie in one folder."""
    text = re.sub(r"\.\./(site|notebooks|figures)/", "", content[0])
    text = re.sub(r'"<a id=\\"([\w-]+)\\"></a>', r'"(\1)=', text)
    content[0] = re.sub(r'"(## (\d\.\d+) )', r'"(section-\2)=\\n\1', text)
