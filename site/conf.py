"""Sphinx configuration of the web edition; `make site` builds it (see tools/site.py)."""

import sys
from pathlib import Path

from utils import course

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Computing gradients in PyTorch"
copyright = "2026, the authors of the course. Code: MIT License; prose and figures: CC BY 4.0"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design", "notebooks", "places", "terms"]
root_doc = "index"
exclude_patterns = ["_ext"]

nb_execution_mode = "off"  # the pages show the stored outputs
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "substitution"]
myst_substitutions = {
    "online": "Each notebook has a link to Colab, and one to Binder, below its title."
    if course.REPO_URL
    else "Upload a notebook and the folder `utils` of the course (one-click links to come)."
}
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_use_index = False
html_copy_source = False  # the pages offer the notebooks themselves
html_show_search_summary = False  # summaries are fetched, which a browser refuses to file://
html_last_updated_fmt = None
mathjax_path = "mathjax/tex-svg.js"  # one file, fonts included
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-bash pre"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}
html_theme_options = {
    "footer_content_items": ["copyright.html"],
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "repository_branch": course.REPO_REF,
    "repository_url": course.REPO_URL,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_repository_button": bool(course.REPO_URL),
}
