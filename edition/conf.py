"""Settings of Sphinx for the readable edition; ``build.py`` beside this file runs it."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.docutils import SphinxTranslator

project, author, language, html_title = "ftcourse", "the authors of ftcourse", "en", "ftcourse"
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # words as the lessons have them
nb_execution_mode = "off"  # the lessons are stored with their outputs
nb_ipywidgets_js = {}  # would come from a network

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["edition.css"]
html_math_renderer = "mathml"  # browsers draw it; MathJax would come from a network
html_show_search_summary = False  # a page that is a file may not read others
html_copy_source = html_show_copyright = html_use_index = html_domain_indices = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"


def setup(app):
    """Add formulas as MathML, and JupyterLab's anchors."""
    app.add_html_math_renderer("mathml", (_draw_formula, None), (_draw_formula, None))
    app.connect("doctree-read", _add_anchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _draw_formula(translator: SphinxTranslator, node: nodes.Element) -> None:
    if isinstance(node, nodes.math_block):
        html = convert(node.astext(), display="block")
        translator.body.append(f'<div class="formula" tabindex="0">{html}</div>')
    else:
        translator.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def _add_anchors(app, doctree: nodes.document) -> None:
    """Give cells and headings the anchors that JupyterLab gives them, which MyST checks."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for cell in [c for c in doctree.findall(nodes.container) if "cell_metadata" in c]:
        name = f"cell-id={cell['cell_metadata']['id']}"
        cell["ids"].append(name)
        slugs[name] = (0, name, "")
    for section in doctree.findall(nodes.section):
        name = section[0].astext().replace(" ", "-").replace('"', "")
        if name not in section["ids"]:
            section["ids"].append(name)
            slugs[name] = (0, name, "")
